package coord_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// plan names one run of a simulation. As text it is the kind and the seed, and
// what makes the run smaller than the seed's whole one:
//
//	registers/5036/end=3.2s/faults=2,7/off=drop,jitter/keys=k1,once0
//
// The run ends early, only the faults with these numbers happen ("none": not
// one), some knobs of the network and the clocks are off, and only some keys have
// clients.
type plan struct {
	kind string
	seed uint64
	// end is when the faults and the clients stop; 0 when the kind says.
	end time.Duration
	// faults and keys are all if nil.
	faults []int
	keys   []string
	off    []string
}

// knobs are what a plan can turn off.
var knobs = []string{"drop", "dup", "jitter", "skew"}

func (p plan) String() string {
	parts := []string{p.kind, strconv.FormatUint(p.seed, 10)}
	if p.end != 0 {
		parts = append(parts, "end="+p.end.String())
	}
	if p.faults != nil {
		var numbers []string
		for _, n := range p.faults {
			numbers = append(numbers, strconv.Itoa(n))
		}
		parts = append(parts, "faults="+list(numbers))
	}
	if len(p.off) > 0 {
		parts = append(parts, "off="+list(p.off))
	}
	if p.keys != nil {
		parts = append(parts, "keys="+list(p.keys))
	}
	return strings.Join(parts, "/")
}

const emptyList = "none"

func list(names []string) string {
	if len(names) == 0 {
		return emptyList
	}
	return strings.Join(names, ",")
}

// unlist returns what list made one of.
func unlist(text string) []string {
	if text == emptyList {
		return []string{}
	}
	return strings.Split(text, ",")
}

// parsePlan reads what String writes.
func parsePlan(text string) (plan, error) {
	bad := func(why string, args ...any) (plan, error) {
		return plan{}, fmt.Errorf("plan %q: %s", text, fmt.Sprintf(why, args...))
	}
	// Keys come last, and may have slashes themselves.
	head, keys, named := strings.Cut(text, "/keys=")
	parts := strings.Split(head, "/")
	if len(parts) < 2 {
		return bad("want kind/seed")
	}
	p := plan{kind: parts[0]}
	if kinds[p.kind].run == nil {
		return bad("there is no simulation %q", p.kind)
	}
	var err error
	if p.seed, err = strconv.ParseUint(parts[1], 10, 64); err != nil {
		return bad("seed: %v", err)
	}
	if named {
		p.keys = unlist(keys)
	}
	for _, part := range parts[2:] {
		name, value, _ := strings.Cut(part, "=")
		values := unlist(value)
		switch name {
		case "end":
			if p.end, err = time.ParseDuration(value); err != nil || p.end <= 0 {
				return bad("end: want a time above 0")
			}
		case "faults":
			p.faults = []int{}
			for _, v := range values {
				n, err := strconv.Atoi(v)
				if err != nil || n < 0 {
					return bad("fault %q", v)
				}
				p.faults = append(p.faults, n)
			}
		case "off":
			for _, v := range values {
				if !slices.Contains(knobs, v) {
					return bad("there is no knob %q", v)
				}
			}
			p.off = values
		default:
			return bad("what is %q?", part)
		}
	}
	return p, nil
}

// until is when the faults and the clients stop.
func (p plan) until() time.Duration {
	if p.end != 0 {
		return p.end
	}
	return kinds[p.kind].end
}

func (p plan) hasFault(n int) bool { return p.faults == nil || slices.Contains(p.faults, n) }

func (p plan) hasKey(key string) bool { return p.keys == nil || slices.Contains(p.keys, key) }

func (p plan) isOn(knob string) bool { return !slices.Contains(p.off, knob) }
