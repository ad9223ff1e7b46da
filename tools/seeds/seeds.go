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
	// Ledger is the file; the next run goes on from there.
	Ledger string
	// Counts are those of the printed ones that go into the ledger, in order.
	Counts []string
}

// Main runs a job as a command: it adds the flags -minutes, -batch and -ledger,
// parses, and exits with 1 if a seed failed.
func Main(j Job) {
	minutes := flag.Float64("minutes", 10, "how long new batches are begun")
	flag.Uint64Var(&j.Batch, "batch", j.Batch, "seeds run by one process")
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

	s := &batches{Job: j, ctx: ctx, binary: binary, next: first, until: time.Now().Add(length), sums: map[string]uint64{}}
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
	if s.next == first || ctx.Err() != nil {
		return errors.Join(s.err, ctx.Err())
	}
	e := entry{began, commit, first, s.next - 1, time.Since(began), verdict, s.summary()}
	return errors.Join(s.err, e.add(j.Ledger))
}

// batches hands out batches of seeds.
type batches struct {
	Job
	ctx    context.Context
	binary string
	until  time.Time

	mu   sync.Mutex
	next uint64 // the first seed nobody has begun
	sums map[string]uint64
	err  error // the first failure
}

func (s *batches) take() (first uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || s.ctx.Err() != nil || !time.Now().Before(s.until) {
		return 0, false
	}
	first = s.next
	s.next += s.Batch
	return first, true
}

func (s *batches) work() {
	for {
		first, ok := s.take()
		if !ok {
			return
		}
		args := append([]string{
			"-test.v", "-test.timeout=1h", "-test.run=" + s.Tests,
			fmt.Sprintf("-%s.first=%d", s.Name, first), fmt.Sprintf("-%s.seeds=%d", s.Name, s.Batch),
		}, s.Flags...)
		cmd := exec.CommandContext(s.ctx, s.binary, args...)
		cmd.Dir = s.Package
		cmd.Env = append(os.Environ(), s.Env...)
		out, err := cmd.CombinedOutput()
		s.note(first, string(out), err)
	}
}

var countText = regexp.MustCompile(`([a-z][a-z ]*):(\d+)`)

// note adds up what a batch says that it did.
func (s *batches) note(first uint64, out string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && s.err == nil {
		s.err = fmt.Errorf("seeds %d to %d: %w\n%s", first, first+s.Batch-1, err, out)
	}
	for line := range strings.SplitSeq(out, "\n") {
		_, text, ok := strings.Cut(line, " seeds: map[")
		if !ok {
			continue
		}
		for _, m := range countText.FindAllStringSubmatch(text, -1) {
			n, _ := strconv.ParseUint(m[2], 10, 64) // it is digits, and small
			s.sums[strings.TrimSpace(m[1])] += n
		}
	}
	fmt.Fprintf(os.Stderr, "seeds %d to %d done: %s\n", first, first+s.Batch-1, s.summary())
}

// summary is what a reader of the ledger wants to know.
func (s *batches) summary() string {
	var parts []string
	for _, name := range s.Counts {
		parts = append(parts, fmt.Sprintf("%s %d", name, s.sums[name]))
	}
	return strings.Join(parts, ", ")
}
