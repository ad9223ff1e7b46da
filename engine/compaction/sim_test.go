package compaction

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/manifest"
)

// sim is a tree of made-up tables under load: keys are drawn uniformly from
// [0, 1) or ascend, and a table of a range holds as many bytes as the law of
// large numbers says. Nothing in it is random, so its figures are exact.
type sim struct {
	opts     Options
	v        *manifest.Version
	num      uint64
	universe float64 // bytes of all keys there are; +Inf: each is written once
	workers  int

	busy    Busy
	cursors [][]byte
	running []*simJob

	flushed, written, deepest float64
	jobs                      map[Reason]int
}

type simJob struct {
	*Job
	out  []*manifest.FileMeta
	left float64 // bytes to be written
}

func newSim(o Options, universe float64, workers int) *sim {
	return &sim{
		opts: o, v: manifest.NewVersion(5), universe: universe, workers: workers,
		cursors: make([][]byte, 5), jobs: map[Reason]int{},
	}
}

func simKey(x float64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(x*(1<<62))) }

func simPos(k []byte) float64 { return float64(binary.BigEndian.Uint64(k)) / (1 << 62) }

// table makes one of the keys in [lo, hi).
func (s *sim) table(lo, hi, size float64) *manifest.FileMeta {
	s.num++
	f := &manifest.FileMeta{
		Num: s.num, Size: max(1, int64(size)), Entries: uint64(size / 100),
		SmallestSeq: base.SeqNum(s.num), LargestSeq: base.SeqNum(s.num),
		Smallest: base.MakeInternalKey(simKey(lo), 1, base.KindSet),
	}
	f.Largest = base.RangeDel{End: simKey(hi)}.EndKey()
	return f
}

func (s *sim) edit(e *manifest.Edit) {
	v, err := s.v.Apply(e)
	if err != nil {
		panic(err)
	}
	s.v = v
}

// flush adds a table of the keys in [lo, hi) and lets the workers write budget
// bytes meanwhile.
func (s *sim) flush(lo, hi, size, budget float64) {
	s.edit(&manifest.Edit{Added: []manifest.NewFile{{Level: 0, FileMeta: s.table(lo, hi, size)}}})
	s.flushed += size
	s.work(budget)
	s.deepest = max(s.deepest, float64(NewTree(s.opts, s.v).Depth))
}

// work picks and does jobs until budget bytes are written or nothing is due.
func (s *sim) work(budget float64) {
	for {
		for len(s.running) < s.workers {
			j := NewTree(s.opts, s.v).Pick(Context{Busy: &s.busy, Cursors: s.cursors, Floor: base.MaxSeqNum})
			if j == nil {
				break
			}
			s.busy.Add(j)
			s.jobs[j.Reason]++
			s.running = append(s.running, s.begin(j))
		}
		if len(s.running) == 0 || budget <= 0 {
			return
		}
		share := budget / float64(len(s.running))
		for _, j := range s.running {
			share = min(share, j.left)
		}
		for _, j := range s.running {
			j.left -= share
			budget -= share
		}
		s.running = slices.DeleteFunc(s.running, s.end)
	}
}

// begin works out the tables that a job makes.
func (s *sim) begin(j *Job) *simJob {
	out := &simJob{Job: j}
	if j.Move {
		return out
	}
	// Between the borders of the inputs the keys are spread evenly.
	var borders []float64
	for _, f := range j.Files() {
		borders = append(borders, simPos(f.Smallest.UserKey), simPos(f.Largest.UserKey))
	}
	slices.Sort(borders)
	borders = slices.Compact(borders)
	var cur, from float64
	from = borders[0]
	for i, lo := range borders[:len(borders)-1] {
		hi := borders[i+1]
		size := s.merged(j.Files(), lo, hi)
		for cur+size >= float64(s.opts.TargetFileSize) {
			part := float64(s.opts.TargetFileSize) - cur
			lo += (hi - lo) * part / size
			out.out = append(out.out, s.table(from, lo, float64(s.opts.TargetFileSize)))
			size -= part
			cur, from = 0, lo
		}
		cur += size
	}
	if end := borders[len(borders)-1]; cur > 0 && from < end {
		out.out = append(out.out, s.table(from, end, cur))
	}
	if j.Output == 0 {
		for _, f := range out.out { // as new as what they are made of
			f.SmallestSeq, f.LargestSeq = j.Inputs[len(j.Inputs)-1].SmallestSeq, j.Inputs[0].LargestSeq
		}
	}
	out.left = float64(manifest.Bytes(out.out))
	return out
}

// merged returns the bytes that files hold together of the keys in [lo, hi).
func (s *sim) merged(files []*manifest.FileMeta, lo, hi float64) float64 {
	all := s.universe * (hi - lo)
	sum, missing := 0.0, 1.0
	for _, f := range files {
		a, b := simPos(f.Smallest.UserKey), simPos(f.Largest.UserKey)
		if part := (min(b, hi) - max(a, lo)) / (b - a); part > 0 {
			sum += part * float64(f.Size)
			missing *= 1 - min(1, part*float64(f.Size)/all)
		}
	}
	if math.IsInf(all, 1) {
		return sum
	}
	return all * (1 - missing)
}

// end installs a job that is done.
func (s *sim) end(j *simJob) bool {
	if j.left > 0.5 {
		return false
	}
	e := &manifest.Edit{}
	for _, f := range j.Inputs {
		e.Deleted = append(e.Deleted, manifest.DeletedFile{Level: j.Level, Num: f.Num})
	}
	out := j.Inputs
	if !j.Move {
		for _, f := range j.Below {
			e.Deleted = append(e.Deleted, manifest.DeletedFile{Level: j.Output, Num: f.Num})
		}
		out = j.out
		s.written += float64(manifest.Bytes(out))
	}
	for _, f := range out {
		e.Added = append(e.Added, manifest.NewFile{Level: j.Output, FileMeta: f})
	}
	s.edit(e)
	s.busy.Remove(j.Job)
	_, end, _ := Bounds(j.Inputs)
	s.cursors[j.Level] = end
	return true
}

// TestAmplification runs trees under load, at the default sizes, and pins what
// the choice of jobs costs. Bytes are those of tables: a key-value pair takes
// about half of itself there, and about as much again, uncompressed, in the log.
func TestAmplification(t *testing.T) {
	const mib = 1 << 20
	datadriven.RunTest(t, "testdata/amplification", func(t *testing.T, d *datadriven.TestData) string {
		opts := Options{L0Trigger: 4, BaseBytes: 256 * mib, Multiplier: 10, TargetFileSize: 32 * mib}
		var flushes, workers, speed, universe int
		flush := 30
		d.ScanArgs(t, "flushes", &flushes)
		d.ScanArgs(t, "workers", &workers)
		d.ScanArgs(t, "speed", &speed)
		d.MaybeScanArgs(t, "flush", &flush)
		all := math.Inf(1)
		if d.MaybeScanArgs(t, "universe", &universe) {
			all = float64(universe) * mib
		}
		s := newSim(opts, all, workers)
		size := float64(flush) * mib
		for i := range flushes {
			lo, hi := 0.0, 1.0
			if d.Cmd == "sequential" {
				lo, hi = float64(i)/float64(flushes), float64(i+1)/float64(flushes)
			}
			s.flush(lo, hi, size, float64(speed)*size)
		}
		debt := NewTree(opts, s.v).Debt()
		s.work(math.Inf(1))
		tree := NewTree(opts, s.v)
		if n := tree.Debt(); n != 0 || s.busy.Len() != 0 {
			t.Errorf("debt %d and %d jobs after all work is done", n, s.busy.Len())
		}
		out := fmt.Sprintf("write amplification %.2f, space amplification %.2f, depth %d at most, debt %d MiB\n",
			(s.flushed+s.written)/s.flushed, tree.SpaceAmp(), int(s.deepest), debt/mib)
		for level := range s.v.Levels {
			if n := tree.Bytes(level); n > 0 {
				out += fmt.Sprintf("L%d %d MiB\n", level, n/mib)
			}
		}
		for _, r := range []Reason{ReasonDepth, ReasonIntra, ReasonSize, ReasonTombstones} {
			if s.jobs[r] > 0 {
				out += fmt.Sprintf("%s %d\n", r, s.jobs[r])
			}
		}
		return out
	})
}
