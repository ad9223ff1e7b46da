package check

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

func TestAvailability(t *testing.T) {
	healthy := func(o *Op) time.Duration {
		if o.Client == "h" {
			return 5 * time.Millisecond
		}
		return 0
	}
	judge(t, func(h History) []Violation {
		got := Availability(h, healthy)
		for _, v := range got {
			if strings.HasPrefix(v.Text, "none of") {
				t.Errorf("%v", v)
			}
		}
		return got
	}, []judged{
		{name: "refused", want: "#1 had to succeed within 5ms", script: `
			1-2 h put k=x -> not_applied`},
		{name: "fate open", want: "#1 had to succeed", script: `
			1-2 h put k=x -> indeterminate`},
		{name: "no answer", want: "#2 had to succeed", script: `
			1-2 h put k=x -> ok a1
			3- h get k`},
		{name: "late", want: "took 6ms", script: `
			1-7 h put k=x -> ok a1`},
		{name: "in time", script: `
			1-6 h put k=x -> ok a1
			7-8 h get k -> ok x@a1 {a1}`},
		{name: "found nothing", script: `
			7-8 h get k -> ok`},
		{name: "others may fail", script: `
			7-8 h get k -> ok
			7-8 c get k -> indeterminate
			7-8 c put k=x -> not_applied
			9- c put k=y`},
	})
	expect(t, Availability(parse(t, "1-2 c put k=x -> not_applied", true), healthy), "none of 1 operations")
	expect(t, Availability(nil, healthy), "none of 0 operations")
}

func TestTenantCanary(t *testing.T) {
	if v := Canary("acme", "x"); v != "acme/x" {
		t.Errorf("canary %q", v)
	}
	judge(t, TenantCanary, []judged{
		{name: "another tenant's value", want: `#2 returns "b/x"`, script: `
			1-2 c put k=b/x tenant:b -> ok a1
			3-4 c get k tenant:a -> ok b/x@a1 {a1}`},
		{name: "another tenant's value among its own", want: `#2 returns "aa/x"`, siblings: true, script: `
			1-2 c put k=a/x tenant:a -> ok a1
			3-4 c get k tenant:a -> ok a/x@a1 aa/x@b1 {a1,b1}`},
		{name: "a value without a tenant", want: `#1 returns "x"`, script: `
			3-4 c get k tenant:a -> ok x@a1 {a1}`},
		{name: "nothing can be told from the write", want: `#1 writes "x"`, script: `
			1-2 c put k=x tenant:a -> ok a1`},
		{name: "its own", script: `
			1-2 c put k=a/x tenant:a -> ok a1
			1-2 c put k=b/x tenant:b -> indeterminate
			3-4 c get k tenant:a -> ok a/x@a1 {a1}
			5-6 c get k tenant:b -> ok b/x@b1 {b1}`},
		{name: "deleted", script: `
			1-2 c delete k tenant:a -> ok a1
			3-4 c get k tenant:a -> ok -@a1 {a1}`},
	})
}

func TestResources(t *testing.T) {
	type gauges = map[string]float64
	tolerances := map[string]Tolerance{"heap": {Factor: 1.5, Extra: 10}, "goroutines": {Extra: 2}}
	for _, c := range []struct {
		name          string
		before, after gauges
		want          string
	}{
		{"back", gauges{"heap": 100, "goroutines": 7, "fds": 3}, gauges{"heap": 160, "goroutines": 9, "fds": 3}, ""},
		{"lower", gauges{"heap": 100}, gauges{"heap": 1}, ""},
		{"above factor and amount", gauges{"heap": 100}, gauges{"heap": 160.5}, "above the limit of 160"},
		{"above the amount", gauges{"goroutines": 7}, gauges{"goroutines": 10}, "above the limit of 9"},
		{"without a tolerance", gauges{"fds": 3}, gauges{"fds": 4}, "above the limit of 3"},
		{"not read after", gauges{"fds": 3}, gauges{}, "was not read after"},
		{"not read before", gauges{"fds": 3}, gauges{"fds": 3, "heap": 1}, "was not read before"},
		{"no number", gauges{"fds": 3}, gauges{"fds": math.NaN()}, "above the limit"},
		{"nothing was read", nil, nil, "no gauge"},
	} {
		t.Run(c.name, func(t *testing.T) { expect(t, Resources(c.before, c.after, tolerances), c.want) })
	}
}

// TestViolationsAreBounded wants a bounded report of any number of violations,
// which says that it is not all.
func TestViolationsAreBounded(t *testing.T) {
	var script strings.Builder
	for i := range 100 {
		fmt.Fprintf(&script, "%d-%d r get k -> ok x%d@a%d {a%d}\n", 10*i+1, 10*i+2, i, i+1, i+1)
	}
	got := Causal(parse(t, script.String(), true))
	if len(got) != MaxViolations+1 || got[MaxViolations].Text != fmt.Sprintf("%d more violations", 100-MaxViolations) {
		t.Errorf("%d violations, the last %v", len(got), got[len(got)-1])
	}
	// One violation with many operations.
	script.Reset()
	for i := range 3 * maxShown {
		fmt.Fprintf(&script, "%d- w put k=x id:i\n", i+1)
	}
	script.WriteString("90-91 w put k=y id:i -> ok a1\n92-93 r get k -> ok x@b1 {b1}\n")
	got = Idempotency(parse(t, script.String(), true))
	if len(got) != 1 || len(got[0].Ops) > maxShown {
		t.Errorf("%v", got)
	}
}

func TestViolationSaysWhy(t *testing.T) {
	got := NoReappearance(parse(t, `
		1-2 w put k=x id:i seen:c3 -> ok a1 {a1,c3}
		3-4 w delete k all seen:a1 -> ok b1 {a1,b1} dup
		5-6 r get k -> ok x@a1 {a1}`, false))
	want := "noreappear acme/k: #3 returns 61.1=\"x\", which #2 had shown to be gone\n" +
		"\t#1 w, 1ms: put acme/k \"x\" quorum key \"i\" seen {63.3} -> 2ms: ok 61.1 {61.1 63.3}\n" +
		"\t#2 w, 3ms: delete acme/k all seen {61.1} -> 4ms: ok 62.1 duplicate {61.1 62.1}\n" +
		"\t#3 r, 5ms: get acme/k quorum -> 6ms: ok 61.1=\"x\" {61.1}"
	if len(got) != 1 || got[0].String() != want {
		t.Errorf("got\n%v\nwant\n%s", got, want)
	}
}
