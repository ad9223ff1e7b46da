package kerneltest_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pairdb/pairdb/engine"
)

// driverLimit bounds the life of a driver: one that takes longer hangs.
const driverLimit = 2 * time.Minute

// outcome is what the test knows of a driver that has ended.
type outcome struct {
	opened   bool
	readable bool
	// acked is the number of durable batches of each writer, acks the number
	// of acknowledged ones.
	acked []int
	acks  int
	// until is the time after which acknowledgements do not count any more, 0
	// for never. reached has those, too.
	until   int64
	reached []int
	found   []bool // the writer has said what it found
	// ended is, of each writer, the line that says how.
	ended []string
	notes []string
	ops   []string
	// killed says that a signal ended the process.
	killed syscall.Signal
}

// runDriver runs a driver until it ends, below the command in front, if any.
// acked is what was acknowledged before, and may not be taken back. event is
// called with each line that it says, as it comes.
func runDriver(t *testing.T, j job, acked []int, front []string, event func(line string, o *outcome)) *outcome {
	t.Helper()
	text, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), driverLimit)
	defer cancel()
	args := append(slices.Clone(front), self)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	// Preemption by signals would have the main thread do work of the runtime,
	// with calls of its own, and calls be restarted.
	cmd.Env = append(os.Environ(), driverEnv+"="+string(text), "GODEBUG=asyncpreemptoff=1")
	// All of the group, so that a driver does not outlive its tracer.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start the driver: %v", err)
	}
	o := &outcome{acked: slices.Clone(acked), reached: slices.Clone(acked), ended: make([]string, j.Writers), found: make([]bool, j.Writers)}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if err := o.take(lines.Text()); err != nil {
			t.Errorf("driver: %v", err)
		}
		if event != nil {
			event(lines.Text(), o)
		}
	}
	err = errors.Join(lines.Err(), cmd.Wait())
	if ctx.Err() != nil {
		t.Fatalf("the driver hangs: %v after %s\n%+v\n%s", ctx.Err(), driverLimit, o, errs.String())
	}
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		o.killed = status.Signal()
	} else if err != nil {
		t.Fatalf("driver: %v\n%+v\n%s", err, o, errs.String())
	}
	return o
}

// take notes what a line says.
func (o *outcome) take(line string) error {
	what, rest, _ := strings.Cut(line, " ")
	var w, n int
	var at int64
	switch what {
	case "opening":
	case "open":
		o.opened = true
	case "readable":
		o.readable = true
	case "ack":
		if _, err := fmt.Sscan(rest, &w, &n, &at); err != nil || w >= len(o.acked) || o.ended[w] != "" {
			return fmt.Errorf("strange line %q", line)
		}
		if n < o.acked[w] || o.found[w] && n <= o.reached[w] {
			return fmt.Errorf("%q, but %d were acknowledged before", line, o.reached[w])
		}
		o.reached[w] = max(o.reached[w], n)
		if o.until == 0 || at < o.until {
			if o.found[w] {
				o.acks++
			}
			o.acked[w] = n
		}
		o.found[w] = true
	case "end":
		if _, err := fmt.Sscan(rest, &w); err != nil || w >= len(o.ended) || o.ended[w] != "" {
			return fmt.Errorf("strange line %q", line)
		}
		_, o.ended[w], _ = strings.Cut(rest, " ")
	case "op":
		o.ops = append(o.ops, rest)
	case "note":
		o.notes = append(o.notes, rest)
	default:
		return errors.New(line)
	}
	return nil
}

// writesAfter is how many batches each writer does after a fault.
const writesAfter = 4

// checkReopened opens the database after a fault and makes sure that it holds
// what was acknowledged, and of what else was begun whole batches; that it is
// sound, takes writes, and holds it all when it is opened once more.
func (h *history) checkReopened(dir string, acked, reached []int) error {
	for round := range 2 {
		db, err := engine.Open(dir, options(h.seed))
		if err != nil {
			return fmt.Errorf("open %d: %w", round, err)
		}
		err = h.checkOpen(db, acked, reached, round == 0)
		if err := errors.Join(err, db.Close()); err != nil {
			return fmt.Errorf("open %d: %w", round, err)
		}
		acked, reached = h.positions(), h.positions()
	}
	return nil
}

func (h *history) checkOpen(db *engine.DB, acked, reached []int, write bool) error {
	if db.DurableSeq() != db.VisibleSeq() {
		return fmt.Errorf("durable are %d of %d operations", db.DurableSeq(), db.VisibleSeq())
	}
	if err := h.compare(db, acked, reached); err != nil {
		return err
	}
	if err := db.Verify(); err != nil {
		return err
	}
	if !write {
		return nil
	}
	b := engine.NewBatch()
	for w, at := range h.positions() {
		for i := range writesAfter {
			h.step(w, at+i).fill(b)
			if _, err := db.Apply(b, engine.WriteOptions{Sync: i%2 == 1}); err != nil {
				return fmt.Errorf("write after the fault: %w", err)
			}
		}
		h.advance(w, at+writesAfter)
	}
	return h.compare(db, h.positions(), h.positions())
}
