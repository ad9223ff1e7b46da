package engine

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pairdb/pairdb/engine/vfs"
)

// TestAmplification holds the figures against what reached the files.
func TestAmplification(t *testing.T) {
	var tables, log atomic.Int64
	mem := vfs.NewMem()
	fs := vfs.Inject(mem, func(o vfs.Op) error {
		if o.Kind == vfs.OpWrite && strings.Contains(o.Path, tableSuffix) {
			tables.Add(int64(o.Bytes))
		}
		if o.Kind == vfs.OpWrite && strings.Contains(o.Path, "/"+walDir+"/") {
			log.Add(int64(o.Bytes))
		}
		return nil
	})
	db := mustOpen(t, Options{
		FS: fs, MemTableSize: 64 << 10, LBaseBytes: 128 << 10, TargetFileSize: 32 << 10,
		WALSegmentSize: 1 << 20, Scheduler: inline{},
	})
	if m := db.Metrics(); m.WriteAmp != 0 || m.ReadAmp != 0 || m.SpaceAmp != 0 || m.Filter != (FilterMetrics{}) {
		t.Errorf("an empty DB: %v %v %v %+v", m.WriteAmp, m.ReadAmp, m.SpaceAmp, m.Filter)
	}
	b := NewBatch()
	key, val := make([]byte, 8), make([]byte, 100)
	const n = 20_000
	for i := range n {
		b.Reset()
		binary.BigEndian.PutUint64(key, uint64(i)*0x9e3779b97f4a7c15)
		binary.BigEndian.PutUint64(val, uint64(i)*0x9e3779b97f4a7c15)
		b.Set(key, val)
		if _, err := db.Apply(b, WriteOptions{Sync: i%100 == 0}); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	table := mustTable(t, mem, "in.sst", set("zz", strings.Repeat("v", 5000)))
	if err := db.Ingest([]string{table}); err != nil {
		t.Fatal(err)
	}
	m := db.Metrics()
	if got := m.FlushBytes + m.CompactionOut; got != tables.Load() {
		t.Errorf("%d bytes of tables are counted, %d were written", got, tables.Load())
	}
	info, err := mem.Stat(table)
	if err != nil {
		t.Fatal(err)
	}
	want := float64(log.Load()+tables.Load()+info.Size) / float64(m.BatchBytes+info.Size)
	if m.Compactions == 0 || math.Abs(m.WriteAmp-want) > 0.05*want || m.WriteAmp < 1.5 {
		t.Errorf("write amplification %.2f, files say %.2f", m.WriteAmp, want)
	}
	used := 0
	for _, l := range m.Levels[1:] {
		if l.Files > 0 {
			used++
		}
	}
	if m.ReadAmp != m.L0Depth+used || used == 0 {
		t.Errorf("read amplification %d, level 0 is %d deep, %d levels below", m.ReadAmp, m.L0Depth, used)
	}
	if m.SpaceAmp < 1 || m.SpaceAmp > 3 {
		t.Errorf("space amplification %.2f", m.SpaceAmp)
	}

	// Every table within whose bounds a key lies is asked once.
	before := m.Filter
	probes := 0
	for i := range 5000 {
		binary.BigEndian.PutUint64(key, uint64(i)*0x9e3779b97f4a7c15+1)
		for _, level := range db.version.levels {
			for _, f := range level {
				if f.Contains(key) {
					probes++
				}
			}
		}
		if _, err := db.Get(nil, key); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
	}
	f := db.Metrics().Filter
	f.Probes, f.Negatives, f.FalsePositives = f.Probes-before.Probes, f.Negatives-before.Negatives, f.FalsePositives-before.FalsePositives
	if f.Probes != int64(probes) || f.Negatives+f.FalsePositives != f.Probes || f.FalsePositives*20 > f.Probes {
		t.Errorf("%d tables were asked for absent keys: %+v", probes, f)
	}
	binary.BigEndian.PutUint64(key, 0)
	if _, err := db.Get(nil, key); err != nil {
		t.Fatal(err)
	}
	if g := db.Metrics().Filter; g.Probes-before.Probes <= f.Probes || g.Probes-g.Negatives-g.FalsePositives == 0 {
		t.Errorf("a key that is there was not counted: %+v", g)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}
