package check

import "testing"

func TestIdempotency(t *testing.T) {
	judge(t, Idempotency, []judged{
		{name: "a retry made a second version", want: "acknowledged as 61.1 and 62.1", script: `
			1-2 w put k=x id:i -> ok a1 {a1}
			3-4 w put k=x id:i -> ok b1 {a1,b1} dup`},
		{name: "a retry made a second version, and nobody was told", want: `returns "x" as 62.1, which was 61.1`, script: `
			1-2 w put k=x id:i -> ok a1 {a1}
			3-4 w put k=x id:i -> indeterminate
			5-6 r get k -> ok x@b1 {a1,b1}`},
		{name: "a late retry came back over a later write", want: `returns "x" as 62.1, which was 61.1`, script: `
			1-2 w put k=x id:i -> ok a1 {a1}
			3-4 v put k=y -> ok a2 {a2}
			5- w put k=x id:i
			6-7 r get k -> ok y@a2 {a2}
			8-9 r get k -> ok x@b1 {a2,b1}`},
		{name: "two versions side by side", siblings: true, want: "returns 2 versions", script: `
			1-2 w put k=x id:i -> indeterminate
			3-4 w put k=x id:i -> indeterminate
			5-6 r get k -> ok x@a1 x@b1 {a1,b1}`},
		{name: "seen under another dot before it was acknowledged", siblings: true, want: `returns "x" as 61.1, which was 62.1`, script: `
			1-2 w put k=x id:i -> indeterminate
			3-4 r get k -> ok x@a1 {a1}
			5-6 w put k=x id:i -> ok b1 {a1,b1}`},
		{name: "two dots, one after the other", siblings: true, want: `returns "x" as 62.1, which was 61.1`, script: `
			1-2 w put k=x id:i -> indeterminate
			3-4 r get k -> ok x@a1 {a1}
			5-6 w put k=x id:i -> indeterminate
			7-8 r get k -> ok x@b1 {a1,b1}`},
		{name: "run again", want: "#2 is no duplicate of #1", script: `
			1-2 w put k=x id:i -> ok a1 {a1}
			3-4 w put k=x id:i -> ok a1 {a1}`},
		{name: "run again after a duplicate", want: "#3 is no duplicate of #2", script: `
			1-2 w put k=x id:i -> indeterminate
			3-4 w put k=x id:i -> ok a1 {a1} dup
			5-6 w put k=x id:i -> ok a1 {a1}`},
		{name: "both at once are the first", want: "both attempts say", script: `
			1-4 w put k=x id:i -> ok a1 {a1}
			2-5 w put k=x id:i -> ok a1 {a1}`},
		{name: "a duplicate of nothing", want: "of nothing", script: `
			1-2 w put k=x id:i -> ok a1 {a1} dup`},
		{name: "a duplicate of one that was not applied", want: "of nothing", script: `
			1-2 w put k=x id:i -> not_applied
			3-4 w put k=x id:i -> ok a1 {a1} dup`},
		{name: "a duplicate of one that came later", want: "of nothing", script: `
			1-2 w put k=x id:i -> ok a1 {a1} dup
			3-4 w put k=x id:i -> indeterminate`},
		{name: "duplicates of each other", want: "none is left", script: `
			1-4 w put k=x id:i -> ok a1 {a1} dup
			2-5 w put k=x id:i -> ok a1 {a1} dup`},
		{name: "two payloads", want: "two payloads", script: `
			1-2 w put k=x id:i -> ok a1 {a1}
			3-4 w put k=y id:i -> ok a2 {a2}`},
		{name: "a put and a delete", want: "two payloads", script: `
			1-2 w put k=x id:i -> ok a1 {a1}
			3-4 w delete k id:i -> ok a2 {a2}`},
		{name: "the other payload is seen, though nobody acknowledged it", want: "two payloads", script: `
			1-2 w put k=x id:i -> ok a1 {a1}
			3-4 w put k=y id:i -> indeterminate
			5-6 r get k -> ok y@b1 {a1,b1}`},

		{name: "a retry is a duplicate", script: `
			1-2 w put k=x id:i -> ok a1 {a1}
			3-4 w put k=x id:i -> ok a1 {a1} dup
			5-6 r get k -> ok x@a1 {a1}`},
		{name: "the first attempt's answer was lost", script: `
			1-2 w put k=x id:i -> indeterminate
			3-4 w put k=x id:i -> ok a1 {a1} dup
			5-6 w put k=x id:i -> ok a1 {a1} dup`},
		{name: "the first attempt did nothing", script: `
			1-2 w put k=x id:i -> not_applied
			3-4 w put k=x id:i -> ok a1 {a1}`},
		{name: "the first attempt did nothing and nobody knows", script: `
			1-2 w put k=x id:i -> indeterminate
			3-4 w put k=x id:i -> ok a1 {a1}
			5-6 r get k -> ok x@a1 {a1}`},
		{name: "another payload is refused", script: `
			1-2 w put k=x id:i -> ok a1 {a1}
			3-4 w put k=y id:i -> not_applied
			5-6 r get k -> ok x@a1 {a1}`},
		{name: "of two payloads only the second happened", script: `
			1-2 w put k=x id:i -> indeterminate
			3-4 w put k=y id:i -> ok a1 {a1}
			5-6 r get k -> ok y@a1 {a1}`},
		{name: "at one nothing is promised", script: `
			1-2 w put k=x one id:i -> ok a1 {a1}
			3-4 w put k=x one id:i -> ok b1 {a1,b1}`},
		{name: "minted again before it was acknowledged", script: `
			1-8 w put k=x id:i -> ok a2 {a2}
			2-3 r get k -> ok x@a1 {a1}
			9-10 r get k -> ok x@a2 {a2}`},
		{name: "one idempotency key, two keys", script: `
			1-2 w put k=x id:i -> ok a1 {a1}
			3-4 w put j=x id:i -> ok a1 {a1}`},
	})
}
