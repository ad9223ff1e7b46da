package check

import (
	"fmt"
	"slices"
	"strings"
)

// Limits of what a checker returns.
const (
	// MaxViolations bounds the violations that one checker describes. If there
	// are more, one more violation says how many.
	MaxViolations = 16
	// maxShown bounds the operations shown with a violation.
	maxShown = 12
)

// Violation is one place where a promise is broken.
type Violation struct {
	// Checker is the name of the checker that found it.
	Checker string
	// Key is the key it is about, zero if it is about none.
	Key Key
	// Text says in one sentence what is wrong.
	Text string
	// Ops are the operations that show it, in the order of their calls.
	Ops []Op
}

// String is the sentence and a line for each operation.
func (v Violation) String() string {
	var b strings.Builder
	b.WriteString(v.Checker)
	if v.Key != (Key{}) {
		fmt.Fprintf(&b, " %s", v.Key)
	}
	fmt.Fprintf(&b, ": %s", v.Text)
	for i := range v.Ops {
		fmt.Fprintf(&b, "\n\t%s", &v.Ops[i])
	}
	return b.String()
}

// report collects the violations of one checker.
type report struct {
	checker string
	found   []Violation
	more    int
}

// add notes a violation. Operations may be nil or repeated.
func (r *report) add(k Key, ops []*Op, format string, args ...any) {
	if len(r.found) == MaxViolations {
		r.more++
		return
	}
	v := Violation{Checker: r.checker, Key: k, Text: fmt.Sprintf(format, args...)}
	ops = slices.DeleteFunc(slices.Clone(ops), func(o *Op) bool { return o == nil })
	slices.SortFunc(ops, byCall)
	for _, o := range slices.Compact(ops) {
		if len(v.Ops) < maxShown {
			v.Ops = append(v.Ops, *o)
		}
	}
	r.found = append(r.found, v)
}

// done returns what was found.
func (r *report) done() []Violation {
	if r.more > 0 {
		r.found = append(r.found, Violation{Checker: r.checker, Text: fmt.Sprintf("%d more violations", r.more)})
		r.more = 0
	}
	return r.found
}
