package seeds

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// entry is one line of a ledger.
type entry struct {
	began       time.Time
	commit      string
	first, last uint64
	took        time.Duration
	verdict     string
	counts      string
}

const header = "date\tcommit\tfirst seed\tlast seed\tseconds\tverdict\tcounts\n"

func (e *entry) String() string {
	return fmt.Sprintf("%s\t%s\t%d\t%d\t%.0f\t%s\t%s\n", e.began.UTC().Format("2006-01-02"), e.commit, e.first, e.last, e.took.Seconds(), e.verdict, e.counts)
}

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

// nextIn is nextSeed of a file, which need not be there.
func nextIn(path string) (uint64, error) {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	next, err := nextSeed(string(old))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	return next, nil
}

// add writes a line to a ledger and shows it.
func (e *entry) add(path string) error {
	fmt.Print(e)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	line := e.String()
	info, err := f.Stat()
	if err == nil && info.Size() == 0 {
		line = header + line
	}
	if err == nil {
		_, err = f.WriteString(line)
	}
	return errors.Join(err, f.Close())
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
