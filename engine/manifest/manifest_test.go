package manifest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
)

func testFile(num uint64, start, end string) *FileMeta {
	return &FileMeta{
		Num: num, Size: int64(num) * 100, Nonce: num * 7, SmallestSeq: base.SeqNum(num), LargestSeq: base.SeqNum(num + 5),
		Smallest: base.MakeInternalKey([]byte(start), base.SeqNum(num), base.KindSet),
		Largest:  base.MakeInternalKey([]byte(end), base.SeqNum(num), base.KindSet),
		Entries:  num, Deletes: 1, RangeDels: 2,
	}
}

// testRenumbered is testFile of a table made elsewhere.
func testRenumbered(num uint64, start, end string) *FileMeta {
	f := testFile(num, start, end)
	f.LargestSeq, f.Renumbered = f.SmallestSeq, true
	return f
}

func testOptions(fs vfs.FS) Options {
	rng := rand.New(rand.NewPCG(1, 1))
	return Options{FS: fs, Dir: "d", Rand: rng.Uint64, MaxBytes: 600}
}

func same(a, b State) bool {
	return a.NextFile == b.NextFile && a.FlushedSeq == b.FlushedSeq && a.LogNumber == b.LogNumber &&
		a.Version.String() == b.Version.String()
}

// build makes a log in d with some edits and returns its states in order.
func build(t testing.TB, fs vfs.FS, edits int) (*Log, []State) {
	t.Helper()
	if err := fs.MkdirAll("d"); err != nil {
		t.Fatal(err)
	}
	l, err := Create(testOptions(fs), 1, State{Version: NewVersion(3), NextFile: 2})
	if err != nil {
		t.Fatal(err)
	}
	states := []State{l.State()}
	next := uint64(100)
	for i := range edits {
		e := &Edit{NextFile: next, FlushedSeq: base.SeqNum(i + 1), LogNumber: uint64(i + 1)}
		name := fmt.Sprintf("k%02d", i)
		e.Added = []NewFile{{Level: i % 3, FileMeta: testFile(uint64(i+2), name, name)}}
		if i%4 == 2 {
			e.Added[0].FileMeta = testRenumbered(uint64(i+2), name, name)
		}
		if i > 6 {
			e.Deleted = []DeletedFile{{Level: (i - 6) % 3, Num: uint64(i - 4)}}
		}
		s, err := l.Append(e, func() uint64 { next++; return next - 1 })
		if err != nil {
			t.Fatal(err)
		}
		states = append(states, s)
	}
	return l, states
}

func TestLogIsItsEdits(t *testing.T) {
	mem := vfs.NewMem()
	l, states := build(t, mem, 30)
	if l.Num() == 1 {
		t.Error("the log was never replaced")
	}
	got, num, err := Load(mem, "d")
	if err != nil || num != l.Num() || !same(got, states[30]) {
		t.Fatalf("loaded %d %+v: %v", num, got, err)
	}
	if len(l.TakeStale()) == 0 || len(l.TakeStale()) != 0 {
		t.Error("stale logs are not handed out once")
	}
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(&Edit{}, nil); !errors.Is(err, base.ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
}

func TestBadEditsAreRefused(t *testing.T) {
	mem := vfs.NewMem()
	l, states := build(t, mem, 4)
	twoNumbers := testFile(50, "x", "y")
	twoNumbers.Renumbered = true
	for name, e := range map[string]*Edit{
		"twice":    {Added: []NewFile{{0, testFile(2, "a", "b")}}},
		"absent":   {Deleted: []DeletedFile{{0, 99}}},
		"level":    {Deleted: []DeletedFile{{3, 2}}},
		"overlap":  {Added: []NewFile{{1, testFile(50, "k00", "k09")}}},
		"bounds":   {Added: []NewFile{{1, testFile(50, "z", "y")}}},
		"numbers":  {Added: []NewFile{{1, twoNumbers}}},
		"backward": {LogNumber: 1},
	} {
		if _, err := l.Append(e, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	got, _, err := Load(mem, "d")
	if err != nil || !same(got, states[4]) {
		t.Fatalf("a refused edit left a trace: %v", err)
	}
}

// TestCrashes cuts the power at every call in every mode: the log is always
// that of an acknowledged edit or of the one under way.
func TestCrashes(t *testing.T) {
	mem := vfs.NewMem()
	rng := rand.New(rand.NewPCG(2, 2))
	var all []State
	var issued int
	points := 0
	var l *Log
	var violation error
	hooked := vfs.Inject(mem, func(o vfs.Op) error {
		if !o.Mutates() || l == nil {
			return nil
		}
		for _, mode := range vfs.CrashModes() {
			points++
			got, _, err := Load(mem.Crash(mode, rng), "d")
			if violation == nil && (err != nil || !same(got, all[issued-1]) && !same(got, all[issued])) {
				violation = fmt.Errorf("before %s, mode %s: %v", o, mode, err)
			}
		}
		return nil
	})
	// A dry run tells the states that follow.
	_, all = build(t, vfs.NewMem(), 25)
	if err := errors.Join(mem.MkdirAll("d"), mem.SyncDir(".")); err != nil {
		t.Fatal(err)
	}
	first, err := Create(testOptions(hooked), 1, all[0])
	if err != nil {
		t.Fatal(err)
	}
	l = first
	next := uint64(100)
	for i := range 25 {
		issued = i + 1
		e := &Edit{NextFile: next, FlushedSeq: base.SeqNum(i + 1), LogNumber: uint64(i + 1)}
		name := fmt.Sprintf("k%02d", i)
		e.Added = []NewFile{{Level: i % 3, FileMeta: testFile(uint64(i+2), name, name)}}
		if i%4 == 2 {
			e.Added[0].FileMeta = testRenumbered(uint64(i+2), name, name)
		}
		if i > 6 {
			e.Deleted = []DeletedFile{{Level: (i - 6) % 3, Num: uint64(i - 4)}}
		}
		if _, err := l.Append(e, func() uint64 { next++; return next - 1 }); err != nil {
			t.Fatal(err)
		}
		if violation != nil {
			t.Fatal(violation)
		}
	}
	if points < 300 {
		t.Errorf("only %d points", points)
	}
}

// decode sums up a log in memory.
func decode(path string, num uint64, b []byte) (State, error) {
	info, err := walk(bytes.NewReader(b), int64(len(b)), path, num, nil)
	if err != nil {
		return State{}, err
	}
	return info.State, nil
}

// TestDamage flips every byte of a log: the answer is that of the undamaged
// log, or an error, or, for damage to the very last edit, that edit is missing.
func TestDamage(t *testing.T) {
	mem := vfs.NewMem()
	l, states := build(t, mem, 5)
	path := "d/" + Name(l.Num())
	raw, err := readFile(mem, path, maxFile)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for i := range raw {
		b := append([]byte(nil), raw...)
		b[i] ^= 1 << (i % 8)
		got, err := decode(path, l.Num(), b)
		switch {
		case err != nil:
			if !errors.Is(err, base.ErrCorrupt) && !errors.Is(err, base.ErrFormat) {
				t.Fatalf("byte %d: %v", i, err)
			}
			refused++
		case !same(got, states[5]) && !same(got, states[4]):
			t.Fatalf("byte %d: wrong state %+v", i, got)
		}
	}
	for n := range raw {
		if got, err := decode(path, l.Num(), raw[:n]); err == nil {
			found := false
			for _, s := range states {
				found = found || same(got, s)
			}
			if !found {
				t.Fatalf("cut to %d: wrong state", n)
			}
		}
	}
	if refused < 100 {
		t.Errorf("only %d flips were refused", refused)
	}
}

func TestFormats(t *testing.T) {
	mem := vfs.NewMem()
	l, _ := build(t, mem, 2)
	path := "d/" + Name(l.Num())
	if _, _, err := Load(mem, "elsewhere"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	head := appendFileHeader(nil, 1, 5)
	head[8] = formatVersion + 1
	head = fixHeader(head)
	if _, err := decode(path, 1, head); !errors.Is(err, base.ErrFormat) {
		t.Errorf("newer version: %v", err)
	}
	if _, err := decode(path, 2, fixHeader(appendFileHeader(nil, 1, 5))); !errors.Is(err, base.ErrCorrupt) {
		t.Errorf("another file's number: %v", err)
	}
	payload := appendBytes([]byte{tagComparer}, []byte("reverse"))
	payload = append(payload, tagLevels, 3)
	b := appendRecord(appendFileHeader(nil, 1, 5), 5, headerLen, payload)
	if _, err := decode(path, 1, b); !errors.Is(err, base.ErrFormat) {
		t.Errorf("another comparer: %v", err)
	}
}

// fixHeader makes the checksum of a changed header right.
func fixHeader(head []byte) []byte {
	return binary.LittleEndian.AppendUint32(head[:headerLen-4], crc32.Checksum(head[:headerLen-4], castagnoli))
}

// TestFaults makes each call fail in turn. Lack of room is survived where no
// live file was touched; everything else is final, and never acknowledged.
func TestFaults(t *testing.T) {
	for _, fault := range []error{syscall.EIO, syscall.ENOSPC} {
		for n, more := 0, true; more; n++ {
			more = false
			mem := vfs.NewMem()
			if err := mem.MkdirAll("d"); err != nil {
				t.Fatal(err)
			}
			hooked := vfs.Inject(mem, func(o vfs.Op) error {
				if o.Mutates() && o.Index == n {
					more = true
					return fault
				}
				return nil
			})
			l, err := Create(testOptions(hooked), 1, State{Version: NewVersion(3), NextFile: 2})
			if err != nil {
				continue
			}
			acked, maybe := l.State(), l.State()
			next := uint64(100)
			for i := range 20 {
				e := &Edit{FlushedSeq: base.SeqNum(i + 1)}
				s, err := l.Append(e, func() uint64 { next++; return next - 1 })
				if errors.Is(err, base.ErrReadOnly) {
					maybe, _ = acked.Apply(e)
					if _, err := l.Append(e, nil); !errors.Is(err, base.ErrReadOnly) {
						t.Fatalf("%v at %d: append after the end: %v", fault, n, err)
					}
					break
				}
				if err != nil {
					continue // refused for lack of room
				}
				acked, maybe = s, s
			}
			got, _, err := Load(mem, "d")
			if err != nil || got.FlushedSeq != acked.FlushedSeq && got.FlushedSeq != maybe.FlushedSeq {
				t.Fatalf("%v at %d: loaded %d, acknowledged %d: %v", fault, n, got.FlushedSeq, acked.FlushedSeq, err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func FuzzManifest(f *testing.F) {
	mem := vfs.NewMem()
	l, _ := build(f, mem, 9)
	raw, err := readFile(mem, "d/"+Name(l.Num()), maxFile)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add(raw[:headerLen])
	e := &Edit{NextFile: 3, FlushedSeq: 4, Added: []NewFile{{1, testFile(4, "a", "b")}}}
	f.Add(e.append(nil))
	e.Added[0].FileMeta = testRenumbered(4, "a", "b")
	f.Add(e.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := decode("f", l.Num(), b); err == nil {
			if err := s.Version.Check(); err != nil {
				t.Fatalf("accepted a broken version: %v", err)
			}
		}
		e, _, err := decodeEdit(b, false)
		if err != nil {
			return
		}
		again, _, err := decodeEdit(e.append(nil), false)
		if err != nil {
			t.Fatalf("own encoding refused: %v", err)
		}
		if fmt.Sprint(again.Deleted, again.NextFile, again.Added) != fmt.Sprint(e.Deleted, e.NextFile, e.Added) {
			t.Fatalf("changed by encoding: %+v, %+v", e, again)
		}
	})
}
