package config

import (
	"fmt"
	"strings"
)

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	// Setting is the path of the setting, or the name that is not known.
	Setting string
	// Where says where it was given: a file and line, a variable, a flag. Empty
	// for a default and for what Validate finds.
	Where string
	// What is wrong, Why that matters, and what to do Next. Why may be empty
	// where it goes without saying.
	What, Why, Next string
}

// String writes the problem in one line.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.Setting)
	if p.Where != "" {
		fmt.Fprintf(&b, " (%s)", p.Where)
	}
	fmt.Fprintf(&b, ": %s", p.What)
	if p.Why != "" {
		fmt.Fprintf(&b, ": %s", p.Why)
	}
	if p.Next != "" {
		fmt.Fprintf(&b, "; %s", p.Next)
	}
	return b.String()
}

// Error is everything that is wrong with a configuration, never nothing.
type Error struct {
	Problems []Problem
}

// Error lists the problems, one a line.
func (e *Error) Error() string {
	if len(e.Problems) == 1 {
		return "configuration: " + e.Problems[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "configuration: %d problems:", len(e.Problems))
	for _, p := range e.Problems {
		b.WriteString("\n  " + p.String())
	}
	return b.String()
}
