package node

import (
	"strings"
	"testing"

	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/disk"
	"github.com/pairdb/pairdb/engine/vfs"
)

// TestDiskCheck: a disk that hangs makes the node unready, one that is full does
// not, since reads go on; either says what it is.
func TestDiskCheck(t *testing.T) {
	hang := &vfs.Pending{Op: vfs.OpSync, File: vfs.FileLog}
	for _, c := range []struct {
		pending *vfs.Pending
		state   disk.State
		ok      bool
		words   string
	}{
		{nil, disk.OK, true, ""},
		{nil, disk.Warn, true, ""},
		{nil, disk.Throttle, true, "large writes are refused"},
		{nil, disk.Full, true, "writes are refused"},
		{hang, disk.OK, false, "a sync of a log hangs"},
		{hang, disk.Full, false, "a sync of a log hangs"},
	} {
		got := diskCheck(c.pending, &engine.DiskMetrics{State: c.state})
		if got.Name != "disk" || got.OK != c.ok || !strings.Contains(got.Detail, c.words) || c.words == "" && got.Detail != "" {
			t.Errorf("%v, %v: %+v", c.pending, c.state, got)
		}
	}
}
