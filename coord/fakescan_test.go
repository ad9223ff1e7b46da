package coord_test

import (
	"slices"
	"strings"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// Scan implements coord.Replica. A scan takes a millisecond, and what it shows
// is synced before.
func (d *fakeDisk) Scan(r *coord.ScanRange, done func(coord.ScanPiece, error)) {
	ask := *r
	d.n.later(time.Millisecond, func() {
		p, keys := d.collect(&ask)
		d.sync(func(err error) { done(p, err) }, keys...)
	})
}

func (d *fakeDisk) collect(r *coord.ScanRange) (p coord.ScanPiece, keys []string) {
	var all []coord.Position
	for k := range d.live {
		at := coord.Position{Token: ring.KeyToken(r.Tenant, []byte(k)), Key: []byte(k)}
		if strings.Contains(k, "\x00") || d.n.w.layout.PartitionOf(at.Token) != r.Partition || at.Compare(&r.From) < 0 ||
			r.Until != nil && at.Compare(r.Until) >= 0 || r.Group && at.Token != r.From.Token || !r.Wants(at.Key) {
			continue
		}
		all = append(all, at)
	}
	slices.SortFunc(all, func(a, b coord.Position) int { return a.Compare(&b) })
	for i := range all {
		if len(p.Entries) == r.MaxKeys {
			p.Next = &all[i]
			break
		}
		key := string(all[i].Key)
		o, err := causal.Decode(d.live[key])
		if err != nil {
			panic(err)
		}
		e := coord.ScanEntry{Key: all[i].Key, Size: len(d.live[key])}
		switch r.Mode {
		case coord.ScanDigests:
			e.Digest = o.Digest()
		case coord.ScanKeys:
			for k := range o.Siblings {
				o.Siblings[k].Value = nil
			}
			e.Object = o.Append(nil)
		default:
			e.Object = d.live[key]
		}
		p.Entries = append(p.Entries, e)
		p.Scanned++
		keys = append(keys, key)
	}
	return p, keys
}

// Scan implements coord.Replica: it is answered when the test says so.
func (r *rig) Scan(_ *coord.ScanRange, done func(coord.ScanPiece, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.scans = append(r.mu.scans, done)
}
