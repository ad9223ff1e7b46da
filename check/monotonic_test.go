package check

import "testing"

func TestMonotonicContexts(t *testing.T) {
	judge(t, MonotonicContexts, []judged{
		{name: "a reader goes back", want: "#3 has seen less than #2", script: `
			1-9 w put k=x -> ok a1 {a1}
			2-3 r get k -> ok x@a1 {a1,b1}
			4-5 r get k -> ok x@a1 {a1}`},
		{name: "another reader goes back", want: "#3 has seen less than #2", script: `
			1-9 w put k=x -> ok a2 {a2}
			2-3 r get k -> ok x@a2 {a2}
			4-5 s get k -> ok o@a1 {a1}`},
		{name: "only one entry goes back", want: "#2 has seen less than #1", script: `
			2-3 r get k -> ok x@a2 {a2,b7,c1}
			4-5 s get k -> ok y@c2 {a2,b6,c2}`},
		{name: "a write was acknowledged", want: "#2 has seen less than #1", script: `
			1-2 w put k=x -> ok a1 {a1,b2}
			3-4 s get k -> ok x@a1 {a1,b1}`},
		{name: "one owner knew it, all were asked", want: "#2 has seen less than #1", script: `
			1-2 r get k one -> ok x@a1 {a1}
			3-4 s get k all -> ok y@b1 {b1}`},

		{name: "more than what is settled goes back", want: "#2 has seen less than #1", script: `
			1-2 r get k -> ok x@a1 {a1,b2}
			3-4 s get k -> ok x@a1 {a1} settled:b1`},

		{name: "what is settled goes back", script: `
			1-2 r get k -> ok x@a1 {a1,b2}
			3-4 s get k -> ok x@a1 {a1} settled:b2`},
		{name: "forward", script: `
			2-3 r get k -> ok x@a1 {a1}
			4-5 s get k -> ok x@a1 {a1}
			6-7 r get k -> ok x@a1 {a1,b1}`},
		{name: "at the same time", script: `
			2-5 r get k -> ok x@a1 {a1,b1}
			5-6 s get k -> ok x@a1 {a1}`},
		{name: "no context with nothing", script: `
			2-3 r get k -> ok x@a1 {a1}
			4-5 s get k -> ok`},
		{name: "at one nothing is promised", script: `
			1-2 r get k -> ok x@a1 {a1}
			3-4 s get k one -> ok y@b1 {b1}
			5-6 s get k one -> ok z@c1 {c1}`},
		{name: "another key", script: `
			2-3 r get k -> ok x@a1 {a1}
			4-5 s get j -> ok y@b1 {b1}`},
	})
}
