package meta

import (
	"bytes"
	"errors"
	"testing"

	"github.com/zeebo/xxh3"

	"github.com/pairdb/pairdb/gossip/ring"
)

var member = ring.NodeID{1} // of oneOfThree, beside the node itself

// logOf is a node of three whose log goes up to v.
func logOf(t *testing.T, v ring.Version, trim Trim) *Core {
	t.Helper()
	s := oneOfThree(t)
	for at := ring.Version(2); at <= v; at++ {
		s = append(s, Record{logKey(at), createAt(at)})
	}
	return openList(t, s, trim)
}

// ask has one node ask another, once, and gives the answer, opened.
func ask(t *testing.T, c, peer *Core) (Send, *exchange) {
	t.Helper()
	q, ok := c.PullFrom(member)
	if !ok {
		t.Fatal("it asks nobody")
	}
	b, err := peer.HandleRequest(member, q.Method, q.Payload) // any member may ask
	if err != nil {
		t.Fatal(err)
	}
	m, err := decodeExchange(b)
	if err != nil {
		t.Fatal(err)
	}
	m.nodes = nil // those of a twin
	return q, m
}

func TestSnapshotInOnePiece(t *testing.T) {
	c, peer := logOf(t, 3, Trim{}), logOf(t, 30, Trim{Entries: 2})
	q, m := ask(t, c, peer)
	if m.part == nil || m.first != 27 || len(m.log) != 4 {
		t.Fatalf("the answer begins at %d with %d entries", m.first, len(m.log))
	}
	if err := c.HandleReply(q, m.encode(), nil); err != nil || c.Version() != 30 {
		t.Fatalf("version %d, %v", c.Version(), err)
	}
	if !bytes.Equal(ring.AppendState(nil, c.state), ring.AppendState(nil, peer.state)) || c.tail.last != peer.tail.last {
		t.Error("the two say something else")
	}
}

func TestSnapshotInPieces(t *testing.T) {
	c, peer := logOf(t, 3, Trim{}), logOf(t, 30, Trim{Entries: 2, Piece: 64})
	other := logOf(t, 40, Trim{Entries: 2, Piece: 64})
	first, second := ask(t, c, peer)
	take := func(q Send, m *exchange) {
		t.Helper()
		if err := c.HandleReply(q, m.encode(), nil); err != nil {
			t.Fatal(err)
		}
	}
	take(first, second)
	if c.fetch == nil || len(c.fetch.buf) != 64 || c.Version() != 3 || !c.Busy() {
		t.Fatal("the first piece is not kept")
	}
	follows := c.Take().Send
	if len(follows) != 1 {
		t.Fatalf("it asks %d times for the next piece", len(follows))
	}
	take(first, second) // comes twice
	if len(c.fetch.buf) != 64 {
		t.Error("a piece was taken twice")
	}
	// A newer one is begun; what is left of the older one is not mixed in.
	q, m := ask(t, c, peer)
	if m.part.offset != 64 {
		t.Fatalf("asked for what follows: it got %d", m.part.offset)
	}
	take(ask(t, c, other))
	if c.fetch.head.version != 36 || len(c.fetch.buf) != 64 {
		t.Fatalf("of the newer snapshot: %+v", c.fetch.head)
	}
	take(q, m)
	take(first, second)
	if c.fetch.head.version != 36 || len(c.fetch.buf) != 64 {
		t.Fatal("an older snapshot is mixed in")
	}
	// It is forgotten when nobody goes on.
	for range answerTicks + 2 {
		if err := c.Tick(1); err != nil {
			t.Fatal(err)
		}
	}
	if c.fetch != nil {
		t.Error("it is kept for ever")
	}
	for range 100 {
		if q, m := ask(t, c, peer); m.part != nil {
			take(q, m)
		}
	}
	if c.Version() != 30 || c.fetch != nil {
		t.Errorf("version %d", c.Version())
	}
}

// TestSnapshotIsRefused: only a newer one, of this cluster, that can follow, and whole.
func TestSnapshotIsRefused(t *testing.T) {
	old, other := logOf(t, 30, Trim{Entries: 2}), logOf(t, 40, Trim{Entries: 2})
	restate := func(m *exchange, harm func(b []byte)) {
		harm(m.part.piece)
		h, err := decodeHead(m.part.head[:])
		if err != nil {
			t.Fatal(err)
		}
		h.sum = xxh3.Hash(m.part.piece)
		m.part.head = h.encode()
	}
	const stateCluster, stateFounder = 1 + 8, 1 + 8 + 16 + 1 + 4
	for name, c := range map[string]struct {
		harm func(m *exchange)
		want error
	}{
		"a flipped bit":   {func(m *exchange) { m.part.piece[70] ^= 1 }, ErrCorrupt},
		"cut short":       {func(m *exchange) { m.part.piece = m.part.piece[:70] }, nil},
		"too long":        {func(m *exchange) { m.part.piece = append(m.part.piece, 0) }, ErrCorrupt},
		"empty":           {func(m *exchange) { m.part.piece = nil }, ErrCorrupt},
		"from the middle": {func(m *exchange) { m.part.offset = 1 }, nil},
		"no head":         {func(m *exchange) { m.part.head = [headBytes]byte{} }, ErrCorrupt},
		"a newer format":  {func(m *exchange) { m.part.head[0] = 9 }, ErrNewerFormat},
		"another version": {func(m *exchange) { m.part.head[8]++ }, ErrCorrupt},
		"another cluster": {func(m *exchange) { m.part.head[17]++ }, ErrOtherCluster},
		"a state of another cluster": {func(m *exchange) {
			restate(m, func(b []byte) { b[stateCluster]++ })
		}, ErrCorrupt},
		"a state of another founder": {func(m *exchange) {
			restate(m, func(b []byte) { b[stateFounder]++ })
		}, ErrFork},
		"a state of a newer format": {func(m *exchange) {
			restate(m, func(b []byte) { b[0]++ })
		}, ring.ErrNewerFormat},
	} {
		t.Run(name, func(t *testing.T) {
			node := logOf(t, 3, Trim{})
			q, m := ask(t, node, old)
			m.part.piece = bytes.Clone(m.part.piece)
			c.harm(m)
			if err := node.HandleReply(q, m.encode(), nil); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if node.Version() != 3 || node.Fatal() != nil || node.Log().Base != 0 {
				t.Errorf("version %d, fatal %v", node.Version(), node.Fatal())
			}
		})
	}
	t.Run("an older one", func(t *testing.T) {
		node := logOf(t, 3, Trim{})
		q, m := ask(t, node, old)
		if err := other.HandleReply(q, m.encode(), nil); err != nil || other.Version() != 40 || other.Log().Base != 36 {
			t.Errorf("version %d, %v", other.Version(), err)
		}
	})
	t.Run("not asked for", func(t *testing.T) {
		node := logOf(t, 3, Trim{})
		_, m := ask(t, node, old)
		if _, err := node.HandleRequest(member, MethodExchange, m.encode()); err != nil || node.Version() != 3 || node.fetch != nil {
			t.Errorf("version %d, %v", node.Version(), err)
		}
		if out := node.Take(); len(out.Send) != 1 || !out.Send[0].IsPull() || out.Send[0].To != member {
			t.Errorf("it asks for it %d times", len(out.Send))
		}
	})
	t.Run("by a node without a cluster", func(t *testing.T) {
		node := logOf(t, 3, Trim{})
		q, m := ask(t, node, old)
		fresh := openList(t, nil, Trim{})
		if err := fresh.HandleReply(q, m.encode(), nil); !errors.Is(err, errMessage) || fresh.Founded() {
			t.Errorf("founded %v, %v", fresh.Founded(), err)
		}
	})
}

// A log of before there were snapshots is trimmed at the start.
func TestLongLogIsTrimmedAtTheStart(t *testing.T) {
	c := logOf(t, 1000, Trim{})
	if l := c.Log(); l.Base != 640 || l.Entries != 360 || c.Version() != 1000 {
		t.Errorf("%+v", l)
	}
	if c := logOf(t, 100, Trim{Bytes: 600}); c.Log().Entries > 42 || c.Log().Entries < 28 {
		t.Errorf("by their size: %+v", c.Log())
	}
	if l := logOf(t, 383, Trim{}).Log(); l.Base != 0 || l.Entries != 383 {
		t.Errorf("%+v", l)
	}
}
