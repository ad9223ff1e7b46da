package check

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// judged is a history written by hand and what a checker has to say of it.
type judged struct {
	name string
	// siblings says that the tenants keep siblings; else the last writer wins.
	siblings bool
	script   string
	// want is a part of the first violation's text, empty for none.
	want string
}

func judge(t *testing.T, checker func(History) []Violation, cases []judged) {
	t.Helper()
	good, bad := 0, 0
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h := parse(t, c.script, !c.siblings)
			got := checker(h)
			switch {
			case c.want == "" && len(got) > 0:
				t.Errorf("rejected: %v", got)
			case c.want != "" && len(got) == 0:
				t.Error("accepted")
			case c.want != "" && !strings.Contains(got[0].Text, c.want):
				t.Errorf("%v\nwant %q", got[0], c.want)
			}
			for _, v := range got {
				if len(v.Ops) == 0 {
					t.Errorf("%v shows no operation", v)
				}
			}
		})
		if c.want == "" {
			good++
		} else {
			bad++
		}
	}
	if good < 2 || bad < 2 {
		t.Errorf("%d good and %d bad histories are too few", good, bad)
	}
}

// parse reads a history, one operation a line, numbered from 1:
//
//	1-3 c put k=x quorum seen:a1,b2 id:i part:7 tenant:t fades:5-6 -> ok a2 {a2,b2} dup
//	4-5 c get k -> ok x@a2 -@b2 {a2,b2} settled:c1
//
// Times are milliseconds; an operation without the second has no answer. Dots
// are a letter and a number, "-" is a tombstone. Level, tenant and all marks
// may be left out.
func parse(t *testing.T, script string, lww bool) History {
	t.Helper()
	var h History
	for line := range strings.Lines(script) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		o, err := parseOp(line)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		o.ID, o.LWW = len(h)+1, lww
		h = append(h, o)
	}
	if err := h.Validate(); err != nil {
		t.Fatal(err)
	}
	return h
}

func parseOp(line string) (Op, error) {
	call, answer, _ := strings.Cut(line, "->")
	f := strings.Fields(call)
	from, to, _ := strings.Cut(f[0], "-")
	o := Op{Call: Call{Client: f[1], Tenant: "acme", Kind: Kind(f[2]), Level: quorum.Quorum}}
	o.Key, o.Value, _ = strings.Cut(f[3], "=")
	var err error
	if o.At, err = parseTime(from); err != nil {
		return o, err
	}
	for _, s := range f[4:] {
		mark, arg, found := strings.Cut(s, ":")
		switch {
		case !found:
			o.Level, err = quorum.ParseLevel(s)
		case mark == "seen":
			o.Seen, err = parseContext(arg)
		case mark == "id":
			o.IdempotencyKey = arg
		case mark == "part":
			o.Partition = arg
		case mark == "tenant":
			o.Tenant = arg
		case mark == "fades":
			first, last, _ := strings.Cut(arg, "-")
			o.Fades = &Fading{}
			if o.Fades.From, err = parseTime(first); err == nil {
				o.Fades.To, err = parseTime(last)
			}
		default:
			err = fmt.Errorf("unknown mark %q", s)
		}
		if err != nil {
			return o, err
		}
	}
	if to == "" {
		return o, nil
	}
	f = strings.Fields(answer)
	a := Answer{Outcome: Outcome(f[0])}
	if a.At, err = parseTime(to); err != nil {
		return o, err
	}
	for _, s := range f[1:] {
		value, dot, sibling := strings.Cut(s, "@")
		switch {
		case s == "dup":
			a.Duplicate = true
		case strings.HasPrefix(s, "settled:"):
			a.Settled, err = parseContext(strings.TrimPrefix(s, "settled:"))
		case s[0] == '{':
			a.Context, err = parseContext(strings.Trim(s, "{}"))
		case sibling:
			v := Version{Value: value, Tombstone: value == "-"}
			if v.Tombstone {
				v.Value = ""
			}
			v.Dot, err = parseDot(dot)
			a.Siblings = append(a.Siblings, v)
		default:
			a.Dot, err = parseDot(s)
		}
		if err != nil {
			return o, err
		}
	}
	o.Answer = &a
	return o, nil
}

func parseTime(s string) (time.Duration, error) {
	n, err := strconv.Atoi(s)
	return time.Duration(n) * time.Millisecond, err
}

func parseContext(s string) (causal.Context, error) {
	var c causal.Context
	for _, part := range strings.Split(s, ",") {
		d, err := parseDot(part)
		if err != nil {
			return nil, err
		}
		c = c.With(d)
	}
	return c, nil
}

func parseDot(s string) (causal.Dot, error) {
	if s == "" {
		return causal.Dot{}, fmt.Errorf("a dot is a letter and a number")
	}
	n, err := strconv.ParseUint(s[1:], 10, 64)
	return causal.Dot{Actor: uint64(s[0]), Counter: n}, err
}
