package sstable

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
)

// inspected is everything that Inspect told of a file.
type inspected struct {
	info    Info
	blocks  []BlockInfo
	entries []kv
}

func inspectAll(f *byteFile) (inspected, error) {
	var got inspected
	var err error
	got.info, err = Inspect(f, int64(len(f.b)), "t.sst", Visitor{
		Block: func(b BlockInfo) error {
			b.First, b.Last = b.First.Clone(), b.Last.Clone()
			got.blocks = append(got.blocks, b)
			return nil
		},
		Entry: func(_ int64, k base.InternalKey, v []byte) error {
			got.entries = append(got.entries, kv{k.Clone(), bytes.Clone(v)})
			return nil
		},
	})
	return got, err
}

// What Inspect says of a sound table is what the Reader knows, and its blocks
// are every byte of the file but the footer.
func TestInspectSound(t *testing.T) {
	for name, f := range smallTables(t) {
		got, err := inspectAll(f)
		if err != nil || got.info.Damaged != 0 || got.info.Contents != nil {
			t.Fatalf("%s: %v, %+v", name, err, got.info)
		}
		r := open(t, f, nil)
		if err := equal(got.entries, dump(t, r)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		m := r.Meta()
		i := got.info
		if i.Size != m.Size || i.Nonce != m.Nonce || fmt.Sprint(i.Properties) != fmt.Sprint(m.Properties) ||
			len(i.RangeDels) != int(m.RangeDels) || i.FormatVersion != formatVersion || i.IndexLevels != int(r.foot.levels) ||
			i.Filter.Lines != r.filter.n || i.Filter.Probes != r.filter.probes {
			t.Errorf("%s: %+v, want %+v", name, i, m)
		}
		slices.SortStableFunc(got.blocks, func(a, b BlockInfo) int { return cmp.Compare(a.Offset, b.Offset) })
		at, kinds := int64(0), map[BlockKind]uint64{}
		var first base.InternalKey
		for n, b := range got.blocks {
			if b.Offset != at || b.Decoded == 0 || b.Err != nil {
				t.Errorf("%s: block %d begins at %d, not %d: %+v", name, n, b.Offset, at, b)
			}
			at += b.Length + trailerSize
			kinds[b.Kind]++
			if b.Kind == BlockData {
				if base.Compare(b.First, first) <= 0 || base.Compare(b.First, b.Last) > 0 {
					t.Errorf("%s: block %d from %s to %s after %s", name, n, b.First, b.Last, first)
				}
				first = b.Last
			}
		}
		if at != m.Size-footerSize || kinds[BlockData] != m.DataBlocks || kinds[BlockTopIndex] != 1 || kinds[BlockProperties] != 1 {
			t.Errorf("%s: blocks end at %d of %d: %v", name, at, m.Size, kinds)
		}
		if r.foot.levels == 2 && kinds[BlockIndex] != m.IndexBlocks {
			t.Errorf("%s: %d index blocks, want %d", name, kinds[BlockIndex], m.IndexBlocks)
		}
	}
}

// Every single-bit error is found, in the block that has it, and hides no other.
func TestInspectFindsEveryFlip(t *testing.T) {
	for name, f := range smallTables(t) {
		sound, err := inspectAll(f)
		if err != nil {
			t.Fatal(err)
		}
		index := sound.blocks[len(sound.blocks)-1]
		b := bytes.Clone(f.b)
		for i := range b {
			b[i] ^= 1 << (i % 8)
			got, err := inspectAll(&byteFile{b: b})
			b[i] ^= 1 << (i % 8)
			if i >= len(b)-footerSize {
				if !errors.Is(err, base.ErrCorrupt) {
					t.Fatalf("%s, byte %d of the footer: %v", name, i, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%s, byte %d: %v", name, i, err)
			}
			bad := 0
			for _, blk := range got.blocks {
				inside := int64(i) >= blk.Offset && int64(i) < blk.Offset+blk.Length+trailerSize
				if blk.Err != nil {
					bad++
				}
				if inside != (blk.Err != nil) || blk.Err != nil && !errors.Is(blk.Err, base.ErrCorrupt) {
					t.Fatalf("%s, byte %d: block %+v", name, i, blk)
				}
			}
			lost := int64(i) >= index.Offset // the top index: nothing below is reached
			if bad != 1 || got.info.Damaged != 1 || !lost && got.info.IndexLevels == 1 && len(got.blocks) != len(sound.blocks) {
				t.Fatalf("%s, byte %d: %d damaged of %d blocks", name, i, bad, len(got.blocks))
			}
		}
	}
}

// Blocks that are sound and do not belong together are told of.
func TestInspectContents(t *testing.T) {
	f, _ := build(t, WriterOptions{BlockSize: 128, RestartInterval: 4}, numbered(14, 16))
	r := open(t, f, nil)
	p := r.props
	p.Entries++
	at := r.foot.props
	copy(f.b[at.offset:], p.append(nil))
	reseal(f.b)
	got, err := inspectAll(f)
	if err != nil || got.info.Damaged != 0 || !errors.Is(got.info.Contents, base.ErrCorrupt) {
		t.Fatal(err, got.info)
	}
}

// Whatever is not a table is refused before memory is taken for it.
func TestInspectRefuses(t *testing.T) {
	f := smallTables(t)["raw"]
	for n := range len(f.b) {
		if _, err := inspectAll(&byteFile{b: f.b[:n]}); !errors.Is(err, base.ErrCorrupt) {
			t.Fatalf("cut to %d: %v", n, err)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, b := range [][]byte{nil, make([]byte, 32<<20), bytes.Repeat([]byte("not a table "), 1<<20)} {
		if _, err := inspectAll(&byteFile{b: b}); !errors.Is(err, base.ErrCorrupt) {
			t.Fatalf("%d bytes: %v", len(b), err)
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
		t.Errorf("took %d bytes to refuse", n)
	}
}

// A visitor's error and a failed read end an inspection.
func TestInspectStops(t *testing.T) {
	f := smallTables(t)["s2 two-level"]
	boom := errors.New("boom")
	for _, v := range []Visitor{
		{Block: func(BlockInfo) error { return boom }},
		{Entry: func(int64, base.InternalKey, []byte) error { return boom }},
	} {
		if _, err := Inspect(f, int64(len(f.b)), "t.sst", v); !errors.Is(err, boom) {
			t.Error(err)
		}
	}
	f.fail = boom
	if _, err := inspectAll(f); !errors.Is(err, boom) || errors.Is(err, base.ErrCorrupt) {
		t.Errorf("a failed read must not pass for damage: %v", err)
	}
}

// FuzzInspect looks at hostile tables, as they are and with their checksums made
// right. What the Reader finds sound has no damage, and no block is seen twice.
func FuzzInspect(f *testing.F) {
	for _, t := range smallTables(f) {
		f.Add(t.b, false)
		f.Add(t.b, true)
		f.Add(t.b[:len(t.b)-1], true)
	}
	f.Fuzz(func(t *testing.T, b []byte, sealed bool) {
		b = bytes.Clone(b)
		if sealed {
			reseal(b)
		}
		got, err := inspectAll(&byteFile{b: b})
		if err != nil && !errors.Is(err, base.ErrCorrupt) && !errors.Is(err, base.ErrFormat) {
			t.Fatalf("untyped error %v", err)
		}
		_, _, rerr := readAll(&byteFile{b: b})
		if clean := err == nil && got.info.Damaged == 0 && got.info.Contents == nil; !sealed && clean != (rerr == nil) {
			t.Fatalf("Inspect %v, %+v; Reader %v", err, got.info, rerr)
		}
		end := int64(0)
		for _, blk := range got.blocks {
			if blk.Kind != BlockData {
				continue
			}
			if blk.Offset < end {
				t.Fatalf("block at %d after one that ends at %d", blk.Offset, end)
			}
			end = blk.Offset + blk.Length + trailerSize
		}
	})
}
