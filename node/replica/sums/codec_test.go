package sums

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/gossip/ring"
)

// sample is a part with leaves of every kind.
func sample() *part {
	p := &part{known: true, seen: causal.NewContext(causal.Dot{Actor: 7, Counter: 9}, causal.Dot{Actor: 1, Counter: 300})}
	g := newGrid(2, clean)
	g.leaves[0].sum = repair.Sum{Count: 300, Hi: 1 << 63, Lo: 5}
	g.leaves[1].state = dirty
	g.leaves[2].state = computing
	p.tenants = []*tenant{{number: 3, grid: newGrid(0, clean)}, {number: 1 << 31, grid: g}}
	return p
}

func TestRecordRoundTrip(t *testing.T) {
	b := sample().appendRecord(nil, 12)
	rec, err := decodeRecord(b[frameLen:], 4)
	if err != nil {
		t.Fatal(err)
	}
	again := &part{known: rec.known, seen: rec.seen, tenants: rec.tenants}
	if got := again.appendRecord(nil, rec.at); !bytes.Equal(got, b) {
		t.Errorf("%x became %x", b, got)
	}
	if l := rec.tenants[1].leaves; l[2].state != dirty || l[0].sum.Count != 300 {
		t.Errorf("leaves %v", l)
	}
	if _, err := decodeRecord(b[frameLen:], 3); err == nil {
		t.Error("a partition that the ring does not have")
	}
}

// TestDamageToTheFile: no change of a byte and no cut of a file is taken for one of
// sums, and what is refused leaves nothing behind.
func TestDamageToTheFile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, 4, 30)
		for range 100 {
			w.tick()
		}
		for more := true; more; {
			var err error
			if more, err = w.s.Step(w); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.save(0); err != nil {
			t.Fatal(err)
		}
		f, err := w.fs.Open("d/sums")
		if err != nil {
			return // nothing was written yet
		}
		size, err := f.Size()
		b := make([]byte, size)
		if _, rerr := f.ReadAt(b, 0); err != nil || rerr != nil {
			t.Fatal(err, rerr)
		}
		i := rapid.IntRange(0, len(b)-1).Draw(t, "at")
		switch rapid.IntRange(0, 2).Draw(t, "damage") {
		case 0:
			b[i] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		case 1:
			b = b[:i]
		default:
			b = append(b, 0)
		}
		fsys := vfs.NewMem()
		out, err := fsys.Create("sums")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		s := New(func() int { return 4 })
		if seq, err := s.Load(fsys, "sums"); !errors.Is(err, ErrFile) || seq != 0 {
			t.Fatalf("damage was taken for sums up to %d: %v", seq, err)
		}
		if _, known := s.Tenants(1); known {
			t.Error("a damaged file made something known")
		}
	})
}

func TestFileOfAnotherRing(t *testing.T) {
	fsys := vfs.NewMem()
	s := New(func() int { return 4 })
	if err := s.Save(fsys, "sums", &listLog{seq: 5}); err != nil {
		t.Fatal(err)
	}
	if seq, err := New(func() int { return 4 }).Load(fsys, "sums"); seq != 5 || err != nil {
		t.Fatal(seq, err)
	}
	for _, n := range []int{0, 8} {
		if seq, err := New(func() int { return n }).Load(fsys, "sums"); !errors.Is(err, ErrFile) || seq != 0 {
			t.Errorf("%d partitions: %d, %v", n, seq, err)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(sample().appendRecord(nil, 3)[frameLen:])
	f.Add([]byte{0, 0, 1, 1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := decodeRecord(b, 4)
		if err != nil {
			return
		}
		p := &part{known: rec.known, seen: rec.seen, tenants: rec.tenants}
		if rec.at >= ring.Partition(16) {
			t.Fatal(rec.at)
		}
		again := p.appendRecord(nil, rec.at)
		if len(again) > 0 && len(again[frameLen:]) > len(b) {
			t.Fatalf("%d bytes became %d", len(b), len(again)-frameLen)
		}
	})
}

func FuzzFile(f *testing.F) {
	fsys := vfs.NewMem()
	s := New(func() int { return 4 })
	parts := s.all()
	parts[2].tenants, parts[2].seen = sample().tenants, sample().seen
	if err := s.Save(fsys, "sums", &listLog{seq: 5}); err != nil {
		f.Fatal(err)
	}
	file, err := fsys.Open("sums")
	if err != nil {
		f.Fatal(err)
	}
	size, err := file.Size()
	b := make([]byte, size)
	if _, rerr := file.ReadAt(b, 0); err != nil || rerr != nil {
		f.Fatal(err, rerr)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		s := New(func() int { return 4 })
		into := make([]record, len(s.all()))
		if _, err := s.load(bytes.NewReader(b), int64(len(b)), into); err != nil && !errors.Is(err, ErrFile) {
			t.Fatal(err)
		}
	})
}
