package coord

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// What a page asks of each partition, and the decisions of what becomes of the
// answers. All of it is pure.
const (
	// A piece, the answer of one owner, is bounded by these.
	pieceKeys   = 1024
	pieceBytes  = 1 << 20
	pieceBudget = 10_000
	// itemOverhead and siblingOverhead are what they count beside keys, tokens and
	// values, and pageOverhead what is kept free in a page, in bytes: many clients
	// take no message larger than 4 MiB.
	itemOverhead, siblingOverhead, pageOverhead = 24, 64, 4096
	// roundBytes bounds the pieces of a round behind its first.
	roundBytes = 8 << 20
	// maxReads bounds the keys that are read by themselves at once because their
	// owners differ, and maxReadBytes what is known of their sizes.
	maxReads     = 256
	maxReadBytes = 4 << 20
	// maxAhead is how many partitions are asked at once at most.
	maxAhead = 64
)

// room is what may still be put somewhere.
type room struct{ keys, bytes, scanned int }

// ahead returns how many partitions to ask at once: so many that they fill what
// is left of the page if they are as the visited ones were, and at first few, for
// what does not fit is asked for again with the next page.
func ahead(visited int, used, left room) int {
	n := max(1, min(maxAhead, 8*visited))
	for _, r := range [][2]int{{used.keys, left.keys}, {used.bytes, left.bytes}, {used.scanned, left.scanned}} {
		if used, left := r[0], r[1]; used > 0 {
			n = min(n, max(1, left*visited/used))
		}
	}
	return n
}

// scanned is an entry of a piece, taken apart.
type scanned struct {
	at     Position
	object *causal.Object // nil if only the digest is known
	digest [16]byte
	size   int
}

// ownerPiece is what one owner holds from the beginning of a range up to reach.
type ownerPiece struct {
	entries []scanned
	// reach is nil at the end of the range.
	reach   *Position
	scanned int
}

var errPiece = errors.New("sent a piece of a scan that was not asked for")

// checkPiece takes a piece apart and holds it against what was asked.
func checkPiece(r *ScanRange, p *ScanPiece) (ownerPiece, error) {
	o := ownerPiece{entries: make([]scanned, len(p.Entries)), reach: p.Next, scanned: p.Scanned}
	if p.Next == nil {
		o.reach = r.Until
	} else if p.Next.Compare(&r.From) <= 0 || r.Until != nil && p.Next.Compare(r.Until) > 0 {
		return o, fmt.Errorf("%w: it ends at %s, before it begins or behind its end", errPiece, p.Next.Token)
	}
	last := r.From
	for i := range p.Entries {
		e, s := &p.Entries[i], &o.entries[i]
		s.at = Position{Token: ring.KeyToken(r.Tenant, e.Key), Key: e.Key}
		s.digest, s.size = e.Digest, e.Size
		if c := s.at.Compare(&last); c < 0 || c == 0 && i > 0 || o.reach != nil && s.at.Compare(o.reach) >= 0 ||
			r.Group && s.at.Token != r.From.Token || !r.Wants(e.Key) {
			return o, fmt.Errorf("%w: its key %d is out of place", errPiece, i)
		}
		last = s.at
		if r.Mode == ScanDigests {
			continue
		}
		object, err := causal.Decode(e.Object)
		if err != nil {
			return o, err
		}
		s.object, s.digest = &object, object.Digest()
	}
	return o, nil
}

// agreed is a key of a range as its owners have it.
type agreed struct {
	at Position
	// object is what all of them hold; nil if they differ, so that the key has to
	// be read by itself.
	object *causal.Object
	// size is that of the largest copy, encoded, in bytes.
	size int
}

// agree merges the pieces of enough owners, one of which has objects. It returns
// the keys up to where the first of the pieces ends: behind that the owner of that
// piece might hold a key that no other does.
func agree(pieces []ownerPiece) (keys []agreed, reach *Position) {
	for i := range pieces {
		if r := pieces[i].reach; r != nil && (reach == nil || r.Compare(reach) < 0) {
			reach = r
		}
	}
	next := make([]int, len(pieces))
	for {
		var at *Position
		for i := range pieces {
			if next[i] < len(pieces[i].entries) {
				if e := &pieces[i].entries[next[i]]; at == nil || e.at.Compare(at) < 0 {
					at = &e.at
				}
			}
		}
		if at == nil || reach != nil && at.Compare(reach) >= 0 {
			return keys, reach
		}
		k := agreed{at: *at}
		var digest *[16]byte
		same := true
		for i := range pieces {
			if next[i] == len(pieces[i].entries) || pieces[i].entries[next[i]].at.Compare(&k.at) != 0 {
				same = false
				continue
			}
			e := &pieces[i].entries[next[i]]
			next[i]++
			k.size = max(k.size, e.size)
			if e.object != nil {
				k.object = e.object
			}
			if digest == nil {
				digest = &e.digest
			}
			same = same && *digest == e.digest
		}
		if !same {
			k.object = nil
		}
		keys = append(keys, k)
	}
}

// slot is a key that may get into a page.
type slot struct {
	at Position
	// item is what is shown; nil if the key is to be read first, and after that
	// if it has no value.
	item *ScanItem
	// size is how many bytes it takes of a page, or is thought to.
	size int
	err  *Error // of the read
}

// partitionPart is what a round learned of one partition.
type partitionPart struct {
	slots []slot
	// reach is nil at the end of the partition.
	reach   *Position
	scanned int
	err     *Error
}

// gathered is what a round may put into the page.
type gathered struct {
	slots []slot
	reads int
	// at is where the round ends, if that is not the end of its last partition.
	at *Position
	// visited partitions are those that are done or begun.
	visited, scanned int
	err              *Error
}

// gather puts what partitions in a row told one behind the other, as far as there
// is room and as each goes to its end.
func gather(parts []partitionPart, left room) gathered {
	var g gathered
	keys, size, readBytes := 0, 0, 0
	for i := range parts {
		p := &parts[i]
		if p.err != nil {
			g.err = p.err
			return g
		}
		g.visited++
		g.scanned += p.scanned
		for k := range p.slots {
			s := &p.slots[k]
			full := keys == left.keys || len(g.slots) > 0 && size+s.size > left.bytes
			if s.item == nil {
				full = full || g.reads == maxReads || g.reads > 0 && readBytes+s.size > maxReadBytes
			}
			if full {
				g.at = &s.at
				return g
			}
			if s.item == nil {
				g.reads++
				readBytes += s.size
			}
			keys++
			size += s.size
			g.slots = append(g.slots, *s)
		}
		if p.reach != nil {
			g.at = p.reach
			return g
		}
	}
	return g
}

// itemSize is how many bytes an item takes of a page on its way to the client, or
// a little more.
func itemSize(it *ScanItem) int {
	n := itemOverhead + len(it.Key) + len(it.Token)
	for i := range it.Siblings {
		n += siblingOverhead + len(it.Siblings[i].Value)
	}
	return n
}

// withoutValues leaves the values out.
func withoutValues(siblings []causal.Sibling) []causal.Sibling {
	for i := range siblings {
		siblings[i].Value = nil
	}
	return siblings
}

// clonePosition is p with a key of its own.
func clonePosition(p *Position) Position { return Position{p.Token, bytes.Clone(p.Key)} }
