package engine

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/engine/vfs"
)

var update = flag.Bool("update", false, "write golden files anew")

// TestGoldenTrace pins every call that changes the disk, and their order, for
// the main events of a DB's life. A change here changes what survives a crash:
// think before -update.
func TestGoldenTrace(t *testing.T) {
	var out strings.Builder
	fs := vfs.Inject(vfs.NewMem(), func(o vfs.Op) error {
		if o.Mutates() {
			fmt.Fprintf(&out, "%s\n", o)
		}
		return nil
	})
	act := func(name string, f func() error) {
		t.Helper()
		fmt.Fprintf(&out, "# %s\n", name)
		if err := f(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	opts := tiny(fs, 1)
	opts.MemTableSize, opts.ManifestSize = 64<<10, 300
	var db *DB
	b := NewBatch()
	put := func(key string, n int, sync bool) func() error {
		return func() error {
			b.Reset()
			b.Set([]byte(key), make([]byte, n))
			_, err := db.Apply(b, WriteOptions{Sync: sync})
			return err
		}
	}
	open := func() (err error) {
		db, err = Open("db", opts)
		return err
	}
	act("open a new DB", open)
	act("put, synced", put("a", 10, true))
	act("put, not synced", put("b", 10, false))
	act("put, synced, with the one before", put("c", 10, true))
	act("flush", func() error { return db.Flush() })
	act("close", func() error { return db.Close() })
	act("open again", open)
	act("put that rotates the log", put("d", 4000, true))
	act("put that needs a segment larger than usual", put("e", 9000, true))
	act("flush that trims the log, compaction", func() error { return db.Flush() })
	act("put that reuses a segment", put("f", 3000, true))
	act("compact all", func() error { return db.Compact(nil, nil) })
	act("write a table for ingest", func() error { return makeTable(fs, "in.sst", 1, []op{set("b", "new"), set("x", "new")}) })
	act("put, not synced, before the ingest", put("g", 10, false))
	act("ingest", func() error { return db.Ingest([]string{"in.sst"}) })
	act("checkpoint", func() error { return db.Checkpoint("copy") })
	act("close for good", func() error { return db.Close() })

	const golden = "testdata/trace.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got := out.String(); got != string(want) {
		t.Errorf("the trace differs from %s; got:\n%s", golden, got)
	}
}
