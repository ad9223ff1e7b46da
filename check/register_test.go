package check

import (
	"slices"
	"testing"
)

func TestRegister(t *testing.T) {
	judge(t, Register, []judged{
		{name: "old value after an acknowledged write", want: "until #3 was", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w put k=y -> ok a2 {a2}
			5-6 r get k -> ok x@a1 {a1}`},
		{name: "new, then old, by two readers during one write", want: "until #4 was", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-20 w put k=y -> ok a2 {a2}
			4-5 r get k -> ok y@a2 {a2}
			6-7 s get k -> ok x@a1 {a1}`},
		{name: "new, then old, of a write whose fate is open", want: "until #4 was", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w put k=y -> indeterminate
			5-6 r get k -> ok y@a2 {a2}
			7-8 s get k -> ok x@a1 {a1}`},
		{name: "a write that was not applied is read", want: "until #3 was", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w put k=y -> not_applied
			5-6 r get k -> ok y@a2 {a2}`},
		{name: "a read before the write", want: "until #1 was", script: `
			1-2 r get k -> ok x@a1 {a1}
			3-4 w put k=x -> ok a1 {a1}`},
		{name: "nothing after an acknowledged write", want: "until #2 was", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 r get k -> ok`},
		{name: "nothing, because of a delete that was not applied", want: "until #3 was", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w delete k -> not_applied
			5-6 r get k -> ok`},
		{name: "a delete comes undone", want: "until #4 was", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-10 w delete k -> ok a2 {a2}
			4-5 r get k -> ok
			6-7 s get k -> ok x@a1 {a1}`},
		{name: "a value nobody wrote", want: "until #2 was", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 r get k -> ok z@a1 {a1}`},
		{name: "siblings of one writer", siblings: true, want: "2 siblings", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w put k=y seen:a1 -> ok a2 {a2}
			5-6 r get k -> ok x@a1 y@a2 {a2}`},
		{name: "a write comes back though the retry was acknowledged", want: "until #5 was", script: `
			1-2 w put k=x id:i -> indeterminate
			3-4 w put k=x id:i -> ok a1 {a1}
			5-6 w put k=y id:j -> ok a2 {a2}
			7-8 r get k -> ok y@a2 {a2}
			9-10 r get k -> ok x@b1 {a2,b1}`},

		{name: "reads during a write may differ", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-20 w put k=y -> ok a2 {a2}
			4-8 r get k -> ok y@a2 {a2}
			5-7 s get k -> ok x@a1 {a1}`},
		{name: "an open write appears late", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w put k=y -> indeterminate
			5-6 r get k -> ok x@a1 {a1}
			50-60 r get k -> ok y@a2 {a2}
			70-80 s get k -> ok y@a2 {a2}`},
		{name: "an open write never appears", script: `
			1-2 w put k=x -> ok a1 {a1}
			3- w put k=y
			5-6 r get k -> ok x@a1 {a1}
			50-60 r get k -> ok x@a1 {a1}`},
		{name: "an open delete appears late", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w delete k -> indeterminate
			5-6 r get k -> ok x@a1 {a1}
			7-8 r get k -> ok`},
		{name: "a refused write, then the next", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w put k=y -> not_applied
			5-6 w put k=z -> ok a2 {a2}
			7-8 r get k -> ok z@a2 {a2}`},
		{name: "a read at one may be old", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w put k=y -> ok a2 {a2}
			5-6 r get k one -> ok x@a1 {a1}
			7-8 r get k -> ok y@a2 {a2}`},
		{name: "two writers are promised nothing", script: `
			1-9 w put k=x -> ok a1 {a1}
			1-9 v put k=y -> ok b1 {b1}
			10-11 r get k -> ok x@a1 {a1,b1}
			12-13 r get k -> ok y@b1 {a1,b1}`},
		{name: "nothing happened", script: ``},
	})
}

func TestRegisters(t *testing.T) {
	h := parse(t, `
		1-2 w put good=x -> ok a1 {a1}
		3-4 w put good=y -> ok a2 {a2}
		5-6 r get good -> ok y@a2 {a2}
		1-2 w put unread=x -> ok a1 {a1}
		5-6 r get unread one -> ok x@a1 {a1}
		1-2 w put writers=x -> ok a1 {a1}
		3-4 v put writers=y -> ok a2 {a2}
		5-6 r get writers -> ok y@a2 {a2}
		1-2 w put overlap=x -> ok a1 {a1}
		2-4 w put overlap=y -> ok a2 {a2}
		5-6 r get overlap -> ok y@a2 {a2}
		1-2 w put one=x one -> ok a1 {a1}
		5-6 r get one -> ok x@a1 {a1}
		1-2 w put open=x -> indeterminate
		3-4 w put open=y -> ok a2 {a2}
		5-6 r get open -> ok y@a2 {a2}
		1-2 w put stale=x -> ok a1 {a1}
		3-4 w put stale=y seen:a1 -> ok a2 {a2}
		5-6 w put stale=z seen:a1 -> ok a3 {a3}
		7-8 r get stale -> ok z@a3 {a3}
		1-2 w put faded=x fades:4-5 -> ok a1 {a1}
		6-7 r get faded -> ok
	`, true)
	if got, want := Registers(h), []Key{{"acme", "good"}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	// Where siblings are kept, a blind write supersedes nothing.
	h = parse(t, `
		1-2 w put blind=x -> ok a1 {a1}
		3-4 w put blind=y -> ok a2 {a2}
		5-6 r get blind -> ok x@a1 y@a2 {a2}
		1-2 w put good=x -> ok a1 {a1}
		3-4 w put good=y seen:a1 -> ok a2 {a2}
		5-6 r get good -> ok y@a2 {a2}
	`, false)
	if got, want := Registers(h), []Key{{"acme", "good"}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
