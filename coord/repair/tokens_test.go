package repair

import (
	"testing"

	"github.com/pairdb/pairdb/gossip/ring"
)

// TestTokens: the partitions have all tokens, each one of them.
func TestTokens(t *testing.T) {
	l := mustLayout(t)
	next := ring.Token(0)
	for p := range l.Partitions() {
		first, last := tokens(l, ring.Partition(p))
		if first != next || last < first || l.PartitionOf(first) != ring.Partition(p) || l.PartitionOf(last) != ring.Partition(p) {
			t.Errorf("partition %d has tokens %x to %x, after %x", p, first, last, next)
		}
		next = last + 1
	}
	if next != 0 {
		t.Errorf("the last token is %x", next-1)
	}
}
