// Command sim runs simulations of whole clusters for a time, from the seed after
// the last one that the ledger knows, and adds a line to the ledger. It is run
// from the module's root:
//
//	go run ./tools/sim [-minutes 10] [-batch 50] [-ledger docs/evidence/simulations.tsv]
//
// Each seed is a run of each kind of simulation that package coord has. One that
// fails ends the run, with exit code 1 and its output: how to run it again, and the
// smallest run that was found to fail alike.
package main

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
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

func main() {
	minutes := flag.Float64("minutes", 10, "how long new batches are begun")
	batch := flag.Uint64("batch", 50, "seeds run by one process")
	path := flag.String("ledger", "docs/evidence/simulations.tsv", "where runs are noted; the next one goes on from there")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, time.Duration(*minutes*float64(time.Minute)), *batch, *path)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, length time.Duration, batch uint64, path string) error {
	if batch == 0 || length <= 0 {
		return errors.New("-batch and -minutes must be above 0")
	}
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	first, err := nextSeed(string(old))
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	dir, err := os.MkdirTemp("", "pairdb-sim-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "coord.test")
	if out, err := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, "./coord").CombinedOutput(); err != nil {
		return fmt.Errorf("build the simulation: %w\n%s", err, out)
	}
	commit, err := commitName(ctx)
	if err != nil {
		return err
	}

	s := &sims{ctx: ctx, binary: binary, next: first, batch: batch, until: time.Now().Add(length), counts: map[string]uint64{}}
	began := time.Now()
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
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
	line := fmt.Sprintf("%s\t%s\t%d\t%d\t%.0f\t%s\t%s\n", began.UTC().Format("2006-01-02"), commit, first, s.next-1, time.Since(began).Seconds(), verdict, s.summary())
	fmt.Print(line)
	if len(old) == 0 {
		line = header + line
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return errors.Join(s.err, err)
	}
	_, err = f.WriteString(line)
	return errors.Join(s.err, err, f.Close())
}

const header = "date\tcommit\tfirst seed\tlast seed\tseconds\tverdict\tcounts\n"

// nextSeed returns the seed after the last one in the ledger.
func nextSeed(ledger string) (uint64, error) {
	next := uint64(1)
	for n, line := range strings.Split(strings.TrimSpace(ledger), "\n") {
		if n == 0 {
			continue // the header
		}
		fields := strings.Split(line, "\t")
		if len(fields) != 7 {
			return 0, fmt.Errorf("line %d has %d fields and not 7", n+1, len(fields))
		}
		last, err := strconv.ParseUint(fields[3], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("line %d: last seed: %w", n+1, err)
		}
		next = max(next, last+1)
	}
	return next, nil
}

// commitName says which code runs.
func commitName(ctx context.Context) (string, error) {
	head, err := exec.CommandContext(ctx, "git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "", fmt.Errorf("name the commit: %w", err)
	}
	changed, err := exec.CommandContext(ctx, "git", "status", "--porcelain", "--", "*.go", "coord/testdata").Output()
	if err != nil {
		return "", fmt.Errorf("look for changes: %w", err)
	}
	name := strings.TrimSpace(string(head))
	if len(changed) > 0 {
		name += "+changes"
	}
	return name, nil
}

// sims hands out batches of seeds.
type sims struct {
	ctx    context.Context
	binary string
	batch  uint64
	until  time.Time

	mu     sync.Mutex
	next   uint64 // the first seed nobody has begun
	counts map[string]uint64
	err    error // the first failure
}

func (s *sims) take() (first uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || s.ctx.Err() != nil || !time.Now().Before(s.until) {
		return 0, false
	}
	first = s.next
	s.next += s.batch
	return first, true
}

func (s *sims) work() {
	for {
		first, ok := s.take()
		if !ok {
			return
		}
		cmd := exec.CommandContext(s.ctx, s.binary, "-test.v", "-test.timeout=1h", "-test.run=^(TestSimulation|TestSiblingsSimulation|TestForgetfulSimulation)$",
			fmt.Sprint("-sim.first=", first), fmt.Sprint("-sim.seeds=", s.batch))
		cmd.Dir = "coord"
		// There is one for each processor.
		cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
		out, err := cmd.CombinedOutput()
		s.note(first, string(out), err)
	}
}

var countText = regexp.MustCompile(`([a-z][a-z ]*):(\d+)`)

// note adds up what a batch says that it did.
func (s *sims) note(first uint64, out string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && s.err == nil {
		s.err = fmt.Errorf("seeds %d to %d: %w\n%s", first, first+s.batch-1, err, out)
	}
	for line := range strings.SplitSeq(out, "\n") {
		_, text, ok := strings.Cut(line, " seeds: map[")
		if !ok {
			continue
		}
		for _, m := range countText.FindAllStringSubmatch(text, -1) {
			n, _ := strconv.ParseUint(m[2], 10, 64) // it is digits, and small
			s.counts[strings.TrimSpace(m[1])] += n
		}
	}
	fmt.Fprintf(os.Stderr, "seeds %d to %d done: %s\n", first, first+s.batch-1, s.summary())
}

// summary is what a reader of the ledger wants to know.
func (s *sims) summary() string {
	var parts []string
	for _, name := range []string{"written", "written once", "written to all", "read", "crashes", "cuts", "wrong opinions", "remints", "read repairs", "duplicates"} {
		parts = append(parts, fmt.Sprintf("%s %d", name, s.counts[name]))
	}
	return strings.Join(parts, ", ")
}
