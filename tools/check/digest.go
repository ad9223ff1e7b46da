package main

import (
	"bytes"
	"regexp"
)

const (
	// digestLines and digestLine bound what is said again of a step that failed, in
	// lines and in bytes of each. As many lines again are left for the names of tests
	// that failed later, and for what they logged.
	digestLines = 60
	digestLine  = 400
	// digestBefore and digestAfter are how many lines around a failure belong to it:
	// go test prints what a test logged after its failure, and with -v before it.
	digestBefore = 8
	digestAfter  = 12
	// digestLogged is how many lines with a place in the source are kept beyond those:
	// the reason for a failure is among the last that a test logged.
	digestLogged = 4
	// digestRaces is how many reports of the race detector are said again, by their first
	// digestAfter lines. Each is hundreds of lines long, and a racy test may make many.
	digestRaces = 2
)

var (
	// failures are how lines begin, behind spaces, that tell of one.
	failures = [][]byte{[]byte("--- FAIL"), []byte("panic: "), []byte("fatal error: "), []byte("--> "), packageFailed}
	// tests are how other lines begin that go test prints between the output of two tests
	// or packages, and packageFailed how one ends.
	tests         = [][]byte{[]byte("=== RUN"), []byte("--- PASS"), []byte("--- SKIP"), []byte("ok  \t")}
	packageFailed = []byte("FAIL\t")
	// logged is how a line begins that a test logged.
	logged = regexp.MustCompile(`^ +[\w-]+\.go:\d+: `)

	raceBegins, raceEnds = []byte("WARNING: DATA RACE"), []byte("==================")
)

// digest picks the lines around failures out of what a step prints. Whoever reads only
// the end of a long run finds them there.
type digest struct {
	picked [][]byte
	// before are the lines since the last that was picked, no more than digestBefore,
	// and early the logged ones among those before them, no more than digestLogged.
	early, before [][]byte
	// after is how many more lines belong to the last failure, and late are the logged
	// ones among those behind them, no more than digestLogged.
	after int
	late  [][]byte
	// failed says that the output of the test that failed may go on.
	failed bool
	// races counts reports of the race detector. inRace says that one is under way, and
	// race how many more lines of it are picked.
	races, race int
	inRace      bool
}

// add takes the next line. Reports of races are picked apart from the rest, so that none
// stands between a failure and its reason.
func (d *digest) add(line []byte) {
	text := bytes.TrimSpace(line)
	kept := bytes.TrimRight(line, "\n")
	kept = bytes.Clone(kept[:min(len(kept), digestLine)])
	failure := begins(text, failures)
	switch {
	case begins(text, tests):
		d.ended()
	case bytes.HasPrefix(text, raceBegins):
		d.races++
		d.inRace, d.race = true, 0
		if d.races <= digestRaces {
			d.race = digestAfter
			d.pick(kept)
		}
	case d.inRace && !failure && !logged.Match(line):
		d.inRace = !bytes.Equal(text, raceEnds)
		if d.race > 0 {
			d.race--
			d.pick(kept)
		}
	case failure:
		before := append(d.early, d.before...)
		d.ended()
		d.pick(append(before, kept)...)
		if !bytes.HasPrefix(text, packageFailed) {
			d.after, d.failed = digestAfter, true
		}
	case d.after > 0:
		d.after--
		d.pick(kept)
	default:
		d.aside(line, kept)
	}
}

// ended is called once the next line no longer belongs to the same test.
func (d *digest) ended() {
	d.pick(d.late...)
	d.early, d.before, d.late = nil, nil, nil
	d.after, d.failed, d.inRace = 0, false, false
}

// aside keeps a line that belongs to no failure yet, or to one further back.
func (d *digest) aside(line, kept []byte) {
	if d.failed {
		if logged.Match(line) {
			d.late = newest(append(d.late, kept), digestLogged)
		}
		return
	}
	d.before = append(d.before, kept)
	if len(d.before) > digestBefore {
		if logged.Match(d.before[0]) {
			d.early = newest(append(d.early, d.before[0]), digestLogged)
		}
		d.before = newest(d.before, digestBefore)
	}
}

// pick takes lines as long as there is room for them.
func (d *digest) pick(lines ...[]byte) {
	for _, line := range lines {
		told := begins(bytes.TrimSpace(line), failures) || logged.Match(line)
		if len(d.picked) < digestLines || told && len(d.picked) < 2*digestLines {
			d.picked = append(d.picked, line)
		}
	}
}

// newest returns the last n lines, or all if there are fewer.
func newest(lines [][]byte, n int) [][]byte { return lines[max(0, len(lines)-n):] }

func begins(text []byte, marks [][]byte) bool {
	for _, mark := range marks {
		if bytes.HasPrefix(text, mark) {
			return true
		}
	}
	return false
}
