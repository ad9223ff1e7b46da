package replica

import (
	"strings"
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
)

// TestOversizedJoin: siblings that fit into no engine value together are refused
// for their key, and for nobody else in the frame.
func TestOversizedJoin(t *testing.T) {
	b := newBench(t)
	value := strings.Repeat("v", 11<<20)
	keep := func(key string, o causal.Object) coord.MergeItem {
		it := item(key, o)
		it.LastWriteWins = false
		return it
	}
	first := b.merge(t, keep("big", foreign(7, 1, 1, value)))
	b.jobs.run()
	if first[0].err != nil {
		t.Fatal(first[0].err)
	}
	got := b.merge(t, keep("big", foreign(8, 1, 1, value)), keep("other", foreign(8, 1, 1, "v")), keep("big", foreign(9, 1, 1, value)))
	b.jobs.run()
	for i, m := range got {
		switch {
		case m.calls != 1:
			t.Errorf("item %d was answered %d times", i, m.calls)
		case i == 1 && m.err != nil:
			t.Errorf("another key's item: %v", m.err)
		case i != 1:
			wantCode(t, m.err, errcode.ResourceExhausted, errcode.NotApplied)
		}
	}
	for key, want := range map[string]int{"big": 1, "other": 1} {
		b.Read(at(key), func(body []byte, err error) {
			if o := decode(t, body); err != nil || len(o.Siblings) != want {
				t.Errorf("%s holds %d siblings, %v", key, len(o.Siblings), err)
			}
		})
	}
	// A write that replaces what is there makes room again.
	next := foreign(7, 1, 1, value)
	next = causal.Mint(&next, next.Context, causal.Sibling{Dot: causal.Dot{Actor: 7, Counter: 2}, HLC: 2, Value: []byte("small")})
	again := b.merge(t, keep("big", next), keep("big", foreign(8, 1, 1, value)), keep("big", foreign(9, 1, 1, value)))
	b.jobs.run()
	for i, m := range again {
		if m.err != nil {
			t.Errorf("item %d: %v", i, m.err)
		}
	}
}
