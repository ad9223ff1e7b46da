package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// set is a data set and what is done with it.
type set struct {
	name   string
	what   string
	keys   uint64
	value  int
	sync   bool
	phases string
}

// sets are those of a comparison. "warm" phases only warm the cache.
var sets = []set{
	{"beyond-100", "100 B values, data 1.7 times the cache", 4_000_000, 100, false, "fill,rr1,rr4,miss1,zipf1,scan1,mix4,over1"},
	{"beyond-1k", "1 KiB values, data 4.6 times the cache", 1_200_000, 1024, false, "fill,rr1,rr4,miss1,zipf1,scan1,mix4,over1"},
	{"cached", "100 B values, all data in the cache", 1_000_000, 100, false, "fill,warm2,rr1,rr4,miss1,zipf1,scan1"},
	{"sync", "100 B values, every write synced", 1_000_000, 100, true, "put1:40000,put16:250000,put64:400000"},
}

// base is the engine that the ratios are to.
const base = "pebble"

func compareCommand(args []string) error {
	fs := flag.NewFlagSet("compare", flag.ExitOnError)
	dir := fs.String("dir", "", "folder for the data")
	rounds := fs.Int("rounds", 3, "times that every engine gets its turn")
	names := fs.String("engines", "", "engines to compare, separated by commas; default all that are built in")
	only := fs.String("sets", "", "data sets, separated by commas; default all")
	raw := fs.String("raw", "", "file to which the results are added as JSON lines; what it holds counts, too")
	fs.Parse(args) // exits on an error
	if *dir == "" {
		return errors.New("compare needs -dir")
	}
	chosen := slices.Sorted(maps.Keys(engines))
	if *names != "" {
		chosen = strings.Split(*names, ",")
	}
	c := &comparison{dir: *dir, results: map[string]map[string]map[string][]Result{}}
	if *raw != "" {
		if err := c.load(*raw); err != nil {
			return err
		}
		defer c.raw.Close()
	}
	for _, s := range sets {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), s.name) {
			continue
		}
		for round := range *rounds {
			for _, name := range chosen {
				fmt.Fprintf(os.Stderr, "# %s, round %d of %d, %s\n", s.name, round+1, *rounds, name)
				if err := c.turn(s, name); err != nil {
					return fmt.Errorf("%s on %s: %w", name, s.name, err)
				}
			}
		}
	}
	c.print(os.Stdout)
	return nil
}

// comparison collects results by set, phase and engine.
type comparison struct {
	dir     string
	raw     *os.File
	results map[string]map[string]map[string][]Result
}

// rawLine is a line of the raw file.
type rawLine struct {
	Set string
	Result
}

func (c *comparison) add(set string, r Result) {
	if c.results[set] == nil {
		c.results[set] = map[string]map[string][]Result{}
	}
	if c.results[set][r.Phase] == nil {
		c.results[set][r.Phase] = map[string][]Result{}
	}
	c.results[set][r.Phase][r.Engine] = append(c.results[set][r.Phase][r.Engine], r)
}

func (c *comparison) load(path string) (err error) {
	if c.raw, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644); err != nil {
		return err
	}
	for lines := bufio.NewScanner(c.raw); lines.Scan(); {
		var l rawLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		c.add(l.Set, l.Result)
	}
	return nil
}

// turn runs all phases of a set on one engine, in a process of its own.
func (c *comparison) turn(s set, engine string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir := filepath.Join(c.dir, engine)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command(self, "run", "-engine", engine, "-dir", dir, "-keys", strconv.FormatUint(s.keys, 10),
		"-value", strconv.Itoa(s.value), "-phases", s.phases, "-sync="+strconv.FormatBool(s.sync))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return err
	}
	for dec := json.NewDecoder(&out); ; {
		var r Result
		if err := dec.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		c.add(s.name, r)
		if c.raw == nil {
			continue
		}
		if err := json.NewEncoder(c.raw).Encode(rawLine{s.name, r}); err != nil {
			return err
		}
	}
}

// print writes a table of medians for each set.
func (c *comparison) print(w io.Writer) {
	for _, s := range sets {
		phases := c.results[s.name]
		if phases == nil {
			continue
		}
		fmt.Fprintf(w, "\n#### %s: %s keys, %s\n\n", s.name, strconv.FormatUint(s.keys, 10), s.what)
		fmt.Fprintf(w, "| phase | engine | runs | ops/s | / %s | p50 us | p99 us | p999 us | CPU us/op | write amp | debt s | disk MB | RSS MB |\n", base)
		fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|---|---|---|---|")
		for text := range strings.SplitSeq(s.phases, ",") {
			text, _, _ = strings.Cut(text, ":")
			if strings.HasPrefix(text, "warm") {
				continue
			}
			for _, name := range slices.Sorted(maps.Keys(phases[text])) {
				fmt.Fprintln(w, row(text, name, phases[text][name], phases[text][base]))
			}
		}
	}
}

// row is a line of the table: medians, and the median of the ratios of rounds.
func row(phase, name string, rs, to []Result) string {
	mid := func(f func(Result) float64) float64 { return median(rs, f) }
	ratio := "-"
	if n := min(len(rs), len(to)); n > 0 {
		var all []Result
		for i := range n {
			all = append(all, Result{OpsPerSec: rs[i].OpsPerSec / to[i].OpsPerSec})
		}
		ratio = fmt.Sprintf("%.2f", median(all, func(r Result) float64 { return r.OpsPerSec }))
	}
	return fmt.Sprintf("| %s | %s | %d | %.0f | %s | %.1f | %.1f | %.0f | %.2f | %.2f | %.1f | %.0f | %.0f |",
		phase, name, len(rs), mid(func(r Result) float64 { return r.OpsPerSec }), ratio,
		mid(func(r Result) float64 { return r.P50 }), mid(func(r Result) float64 { return r.P99 }),
		mid(func(r Result) float64 { return r.P999 }), mid(func(r Result) float64 { return r.CPU }),
		mid(func(r Result) float64 { return r.WriteAmp }), mid(func(r Result) float64 { return r.Settle }),
		mid(func(r Result) float64 { return r.DiskMB }), mid(func(r Result) float64 { return r.RSSMB }))
}

func median(rs []Result, f func(Result) float64) float64 {
	var v []float64
	for _, r := range rs {
		v = append(v, f(r))
	}
	slices.Sort(v)
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}
