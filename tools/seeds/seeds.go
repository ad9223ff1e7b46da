// Package seeds runs tests that take a seed for a time, from the seed after the
// last one that a ledger knows, and adds a line to the ledger. It is for the
// tools that are run from the module's root.
package seeds

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Job is what to run, and where to note it.
type Job struct {
	// Package is the folder of the tests, below the module's root.
	Package string
	// Tests is a pattern of tests. They take their seeds from the flags
	// "-NAME.first" and "-NAME.seeds", and each prints a line
	// "… seeds: map[count:n …]".
	Tests, Name string
	// Flags are more flags for them, Env is added to their environment.
	Flags, Env []string
	// Batch is how many seeds one process runs, at least 1.
	Batch uint64
	// Workers is how many processes run at a time, at least 1.
	Workers int
	// Until is the last seed to run, 0 for no end.
	Until uint64
	// Ledger is the file; the next run goes on from there.
	Ledger string
	// Counts are those of the printed ones that go into the ledger, in order.
	Counts []string
}

// Main runs a job as a command: it adds the flags -minutes, -batch, -until and
// -ledger, parses, and exits with 1 if a seed failed. A run that is interrupted notes
// what it has done, and the next one goes on from there.
func Main(j Job) {
	minutes := flag.Float64("minutes", 10, "how long new batches are begun")
	flag.Uint64Var(&j.Batch, "batch", j.Batch, "seeds run by one process")
	flag.Uint64Var(&j.Until, "until", j.Until, "the last seed to run, 0 for no end")
	flag.StringVar(&j.Ledger, "ledger", j.Ledger, "where runs are noted; the next one goes on from there")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, j, time.Duration(*minutes*float64(time.Minute)))
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", j.Name, err)
		os.Exit(1)
	}
}

// run begins batches for a time and notes what became of them.
func run(ctx context.Context, j Job, length time.Duration) error {
	if j.Batch == 0 || length <= 0 {
		return errors.New("-batch and -minutes must be above 0")
	}
	first, err := nextIn(j.Ledger)
	if err != nil {
		return err
	}
	if j.Until > 0 && first > j.Until {
		fmt.Printf("the ledger %s has all seeds up to %d\n", j.Ledger, j.Until)
		return nil
	}
	dir, err := os.MkdirTemp("", "pairdb-"+j.Name+"-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, j.Name+".test")
	if out, err := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, "./"+j.Package).CombinedOutput(); err != nil {
		return fmt.Errorf("build the tests: %w\n%s", err, out)
	}
	commit, err := commitName(ctx)
	if err != nil {
		return err
	}

	s := &batches{Job: j, ctx: ctx, binary: binary, next: first, until: time.Now().Add(length), done: map[uint64]batch{}}
	began := time.Now()
	var wg sync.WaitGroup
	for range j.Workers {
		wg.Go(s.work)
	}
	wg.Wait()
	verdict := "ok"
	if s.err != nil {
		verdict = "FAILED"
	}
	end := s.next
	if ctx.Err() != nil {
		end = s.doneUntil(first)
	}
	if end == first {
		return errors.Join(s.err, ctx.Err())
	}
	e := entry{began, commit, first, end - 1, time.Since(began), verdict, s.summary(end)}
	return errors.Join(s.err, ctx.Err(), e.add(j.Ledger))
}

// batch is one that is done: the seed after its last, and what it counted.
type batch struct {
	end  uint64
	sums map[string]uint64
}

// batches hands out batches of seeds.
type batches struct {
	Job
	ctx    context.Context
	binary string
	until  time.Time

	mu   sync.Mutex
	next uint64           // the first seed nobody has begun
	done map[uint64]batch // by the first seed
	err  error            // the first failure
}

// take gives the first seed of the next batch and the one after its last.
func (s *batches) take() (first, end uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || s.ctx.Err() != nil || !time.Now().Before(s.until) || s.Until > 0 && s.next > s.Until {
		return 0, 0, false
	}
	first = s.next
	s.next += s.Batch
	if s.Until > 0 {
		s.next = min(s.next, s.Until+1)
	}
	return first, s.next, true
}

// doneUntil gives the first seed from first on that is not done.
func (s *batches) doneUntil(first uint64) uint64 {
	for {
		b, ok := s.done[first]
		if !ok {
			return first
		}
		first = b.end
	}
}

func (s *batches) work() {
	for {
		first, end, ok := s.take()
		if !ok {
			return
		}
		args := append([]string{
			"-test.v", "-test.timeout=1h", "-test.run=" + s.Tests,
			fmt.Sprintf("-%s.first=%d", s.Name, first), fmt.Sprintf("-%s.seeds=%d", s.Name, end-first),
		}, s.Flags...)
		cmd := exec.CommandContext(s.ctx, s.binary, args...)
		cmd.Dir = s.Package
		cmd.Env = append(os.Environ(), s.Env...)
		out, err := cmd.CombinedOutput()
		s.note(first, end, string(out), err)
	}
}

var countText = regexp.MustCompile(`([a-z][a-z ]*):(\d+)`)

// note keeps what a batch says that it did. One that was interrupted is not done.
func (s *batches) note(first, end uint64, out string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && s.ctx.Err() != nil {
		return
	}
	if err != nil && s.err == nil {
		s.err = fmt.Errorf("seeds %d to %d: %w\n%s", first, end-1, err, out)
	}
	b := batch{end, map[string]uint64{}}
	for line := range strings.SplitSeq(out, "\n") {
		_, text, ok := strings.Cut(line, " seeds: map[")
		if !ok {
			continue
		}
		for _, m := range countText.FindAllStringSubmatch(text, -1) {
			n, _ := strconv.ParseUint(m[2], 10, 64) // it is digits, and small
			b.sums[strings.TrimSpace(m[1])] += n
		}
	}
	s.done[first] = b
	fmt.Fprintf(os.Stderr, "seeds %d to %d done: %s\n", first, end-1, s.summary(s.next))
}

// summary is what a reader of the ledger wants to know of the batches before end.
func (s *batches) summary(end uint64) string {
	sums := map[string]uint64{}
	for _, b := range s.done {
		if b.end > end {
			continue
		}
		for name, n := range b.sums {
			sums[name] += n
		}
	}
	var parts []string
	for _, name := range s.Counts {
		parts = append(parts, fmt.Sprintf("%s %d", name, sums[name]))
	}
	return strings.Join(parts, ", ")
}
