package compaction

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
)

// TestMarks: tables may end where range deletes begin, and within them where
// tables below do.
func TestMarks(t *testing.T) {
	tree := NewTree(Options{L0Trigger: 3, BaseBytes: 10, Multiplier: 10, TargetFileSize: 100},
		parseVersion(t, "L4 1:b-c:600 2:e-g:600 3:k-l:600 4:m-p:600 5:t-u:600"))
	for _, c := range []struct {
		dels string
		want string
	}{
		{"", ""},
		{"a-z", "a b e k m t"},
		{"f-n", "f k m"},
		{"a-b c-d e-h q-r", "a c e q"},
		{"a-f a-f", "a b e"}, // two of other ages
		{"v-z", "v"},
	} {
		var dels []base.RangeDel
		for _, f := range bytes.Fields([]byte(c.dels)) {
			dels = append(dels, base.RangeDel{Start: f[:1], End: f[2:], Seq: 9})
		}
		if got := string(bytes.Join(tree.NewCutter(3, nil).Marks(dels), []byte(" "))); got != c.want {
			t.Errorf("%s: %s, want %s", c.dels, got, c.want)
		}
	}
	if got := (*Cutter)(nil).Marks([]base.RangeDel{{Start: []byte("a"), End: []byte("z")}}); got != nil {
		t.Errorf("with nothing below: %s", fmt.Sprint(got))
	}
}
