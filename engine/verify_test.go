package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/manifest"
	"github.com/pairdb/pairdb/engine/vfs"
)

// closedDB is a disk with a DB that went through everything and was closed.
func closedDB(t *testing.T) *vfs.MemFS {
	t.Helper()
	mem := vfs.NewMem()
	if err := newScript(mem, 1).run(90); err != nil { // it closes the DB
		t.Fatal(err)
	}
	return mem
}

// filesIn reads every file below dir.
func filesIn(t *testing.T, fsys vfs.FS, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	names, err := fsys.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		name = dir + "/" + name
		info, err := fsys.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir {
			maps.Copy(out, filesIn(t, fsys, name))
			continue
		}
		b, err := readWhole(fsys, name)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = string(b)
	}
	return out
}

// A sound directory has no damage, and not a byte or a name of it changes.
func TestVerifyDirChangesNothing(t *testing.T) {
	mem := closedDB(t)
	before := filesIn(t, mem, "db")
	readOnly := vfs.Inject(mem, func(o vfs.Op) error {
		if o.Mutates() || o.Kind == vfs.OpCreate {
			t.Errorf("%s of %s", o.Kind, o.Path)
		}
		return nil
	})
	var seen []Progress
	r, err := VerifyDir(t.Context(), readOnly, "db/", VerifyOptions{Progress: func(p Progress) { seen = append(seen, p) }})
	if err != nil || len(r.Damage) > 0 {
		t.Fatalf("%v, %v", err, r.Damage)
	}
	if after := filesIn(t, mem, "db"); !maps.Equal(before, after) {
		t.Error("the directory has changed")
	}
	if r.Tables == 0 || r.Tables != r.State.Version.Files() || r.Segments == 0 || r.LastSeq == 0 || r.Manifest == 0 {
		t.Errorf("%+v", r)
	}
	last := seen[len(seen)-1]
	if last.Done != last.Total || last.Total != r.TableBytes {
		t.Errorf("progress ended at %+v of %d", last, r.TableBytes)
	}
	db, err := Open("db", tiny(mem, 3))
	if err != nil {
		t.Fatal(err)
	}
	if got := base.SeqNum(db.Metrics().VisibleSeq); got != r.LastSeq {
		t.Errorf("last sequence number %d, want %d", r.LastSeq, got)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// An open DB is refused, and a DB that is being verified cannot be opened.
func TestVerifyDirInUse(t *testing.T) {
	mem := closedDB(t)
	var oerr error
	_, err := VerifyDir(t.Context(), mem, "db", VerifyOptions{Progress: func(Progress) { _, oerr = Open("db", tiny(mem, 3)) }})
	if err != nil || oerr == nil {
		t.Errorf("verify %v, open meanwhile %v", err, oerr)
	}
	db, err := Open("db", tiny(mem, 3))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyDir(t.Context(), mem, "db", VerifyOptions{}); !errors.Is(err, ErrInUse) {
		t.Errorf("open: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyDirRefuses(t *testing.T) {
	mem := closedDB(t)
	if err := mem.MkdirAll("empty"); err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyDir(t.Context(), mem, "empty", VerifyOptions{}); !errors.Is(err, ErrNoDB) {
		t.Errorf("empty: %v", err)
	}
	if _, err := VerifyDir(t.Context(), mem, "none", VerifyOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	if _, err := VerifyDir(t.Context(), mem, "db/CURRENT", VerifyOptions{}); err == nil {
		t.Error("a file was taken for a directory")
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err := VerifyDir(ctx, mem, "db", VerifyOptions{Progress: func(Progress) { cancel() }})
	if !errors.Is(err, context.Canceled) || r.Tables != 1 || len(r.Damage) > 0 {
		t.Errorf("cancelled: %v, %+v", err, r)
	}
}

// Each kind of file that is gone, cut or one too many is told of by name.
func TestVerifyDirFindings(t *testing.T) {
	disk := closedDB(t)
	state, num, err := manifest.Load(disk, "db")
	if err != nil {
		t.Fatal(err)
	}
	var tables []uint64
	for _, l := range state.Version.Levels {
		for _, f := range l {
			tables = append(tables, f.Num)
		}
	}
	segment := segmentPath("db", state.LogEnd.Segment)
	table := "db/" + tableName(tables[0])
	for what, c := range map[string]struct {
		change func(m *vfs.MemFS) error
		damage string // in the only finding; empty: none
		orphan string
	}{
		"sound":          {change: func(*vfs.MemFS) error { return nil }},
		"no table":       {change: func(m *vfs.MemFS) error { return m.Remove(table) }, damage: table + ": table is missing"},
		"no segment":     {change: func(m *vfs.MemFS) error { return m.Remove(segment) }, damage: segment},
		"no CURRENT":     {change: func(m *vfs.MemFS) error { return m.Remove("db/CURRENT") }, damage: "db/CURRENT: missing"},
		"no manifest":    {change: func(m *vfs.MemFS) error { return m.Remove("db/" + manifest.Name(num)) }, damage: "CURRENT names a missing file"},
		"short table":    {change: func(m *vfs.MemFS) error { return cut(m, table, 200) }, damage: "table has 200 bytes"},
		"short segment":  {change: func(m *vfs.MemFS) error { return cut(m, segment, 100) }, damage: segment},
		"orphan table":   {change: func(m *vfs.MemFS) error { return m.Link(table, "db/999999.sst") }, orphan: "999999.sst table that no level lists"},
		"temporary":      {change: func(m *vfs.MemFS) error { return m.Link(table, "db/999999.sst.tmp") }, orphan: "999999.sst.tmp unfinished"},
		"old manifest":   {change: func(m *vfs.MemFS) error { return m.Link(table, "db/MANIFEST-000001") }, orphan: "MANIFEST-000001 manifest that CURRENT does not name"},
		"foreign":        {change: func(m *vfs.MemFS) error { return m.Link(table, "db/notes.txt") }, orphan: "notes.txt foreign"},
		"old segment":    {change: func(m *vfs.MemFS) error { return m.Link(table, "db/wal/000000.wal") }, orphan: "wal/000000.wal log segment whose records are all in tables"},
		"foreign in wal": {change: func(m *vfs.MemFS) error { return m.Link(table, "db/wal/x") }, orphan: "wal/x foreign"},
	} {
		m := disk.Crash(vfs.CrashKeepAll, nil)
		if err := c.change(m); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		r, err := VerifyDir(t.Context(), m, "db", VerifyOptions{})
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if text := fmt.Sprint(r.Damage); len(r.Damage) > 1 || (len(r.Damage) > 0) != (c.damage != "") || !strings.Contains(text, c.damage) {
			t.Errorf("%s: damage %v, want %q", what, r.Damage, c.damage)
		}
		found := slices.ContainsFunc(r.Orphans, func(o Orphan) bool { return o.Name+" "+o.Why == c.orphan && o.Bytes > 0 })
		if found != (c.orphan != "") {
			t.Errorf("%s: orphans %+v, want %q", what, r.Orphans, c.orphan)
		}
	}
}

func cut(m *vfs.MemFS, name string, size int64) error {
	f, err := m.OpenAppend(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// Every damaged block of a table is named, in both ways to verify.
func TestVerifyNamesEveryBlock(t *testing.T) {
	mem := closedDB(t)
	state, _, err := manifest.Load(mem, "db")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(state.Version.Levels, func(l []*manifest.FileMeta) bool { return len(l) > 0 })
	big := state.Version.Levels[i][0]
	path := "db/" + tableName(big.Num)
	raw, err := readWhole(mem, path)
	if err != nil {
		t.Fatal(err)
	}
	raw[0] ^= 1             // the first data block
	raw[len(raw)-96-6] ^= 1 // the top index
	if err := writeWhole(mem, path, raw); err != nil {
		t.Fatal(err)
	}
	r, err := VerifyDir(t.Context(), mem, "db", VerifyOptions{})
	if err != nil || len(r.Damage) != 1 || r.Tables < 2 {
		// With the index gone its data blocks are out of reach.
		t.Errorf("%v: %v", err, r.Damage)
	}
	raw[len(raw)-96-6] ^= 1
	if err := writeWhole(mem, path, raw); err != nil {
		t.Fatal(err)
	}
	db, err := Open("db", tiny(mem, 3))
	if err != nil {
		t.Fatal(err)
	}
	live, err := db.VerifyWith(t.Context(), VerifyOptions{})
	var ce *base.CorruptError
	if err != nil || len(live.Damage) != 1 || !errors.As(live.Damage[0], &ce) || ce.File != path || ce.Offset != 0 {
		t.Errorf("%v: %v", err, live.Damage)
	}
	if err := db.Verify(); !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if live, err = db.VerifyWith(ctx, VerifyOptions{}); !errors.Is(err, context.Canceled) || live.Tables != 0 {
		t.Errorf("cancelled: %v, %+v", err, live)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err = db.VerifyWith(t.Context(), VerifyOptions{}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}
