package check

import "testing"

func TestCausal(t *testing.T) {
	judge(t, Causal, []judged{
		{name: "one dot, two values", want: `names "x" of acme/k and "y"`, script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w put k=y -> indeterminate
			5-6 r get k -> ok y@a1 {a1}`},
		{name: "vanished before it faded", siblings: true, want: "no write that had seen it can have replaced it", script: `
			1-2 w put k=x fades:9-10 -> ok a1 {a1}
			3-4 v put k=y -> ok b1 {b1}
			5-6 r get k -> ok y@b1 {a1,b1}`},
		{name: "faded", siblings: true, script: `
			1-2 w put k=x fades:5-10 -> ok a1 {a1}
			3-4 v put k=y -> ok b1 {b1}
			5-6 r get k -> ok y@b1 {a1,b1}`},
		{name: "one dot, two acknowledgements", want: `names "x" of acme/k and "y"`, script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w put k=y -> ok a1 {a1}`},
		{name: "one dot, a value and a delete", siblings: true, want: `names "x" of acme/k and deleted`, script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w delete k -> ok a1 {a1}`},
		{name: "one dot, two keys of a partition", want: `names "x" of acme/j and "y" of acme/k`, script: `
			1-2 w put k=y part:3 -> ok a1 {a1}
			3-4 w put j=x part:3 -> ok a1 {a1}`},
		{name: "one dot, two keys of a partition, the same value", want: `names "x" of acme/j and "x" of acme/k`, script: `
			1-2 w put k=x part:3 -> ok a1 {a1}
			3-4 w put j=x part:3 -> ok a1 {a1}`},
		{name: "one dot, a delete and no bytes", want: `names deleted of acme/k and ""`, script: `
			1-2 w delete k -> ok a1 {a1}
			3-4 r get k -> ok @a1 {a1}`},
		{name: "one sibling had seen the other", siblings: true, want: "superseded", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 v put k=y seen:a1 -> ok b1 {a1,b1}
			5-6 r get k -> ok x@a1 y@b1 {a1,b1}`},
		{name: "one sibling had seen the other, by a higher counter", siblings: true, want: "superseded", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w put k=z -> ok a2 {a2}
			5-6 v put k=y seen:a2 -> indeterminate
			7-8 r get k -> ok x@a1 y@b1 {a2,b1}`},
		{name: "superseded by one that is not returned", siblings: true, want: "superseded", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w put k=y seen:a1 -> ok b1 {a1,b1}
			5-6 r get k -> ok x@a1 {a1,b1}`},
		{name: "superseded by one at ALL, asked alone", siblings: true, want: "superseded", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w put k=y all seen:a1 -> ok b1 {a1,b1}
			5-6 r get k one -> ok x@a1 {a1,b1}`},
		{name: "superseded before the read began, and by nothing that it returns", siblings: true, want: "superseded", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w put k=y seen:a1 -> ok b1 {a1,b1}
			5-6 w put k=z seen:b1 -> ok c1 {b1,c1}
			7-20 r get k all -> ok x@a1 z@c1 {a1,b1,c1}`},
		{name: "superseded by its sibling, asked alone", siblings: true, want: "superseded", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w put k=y seen:a1 -> ok b1 {a1,b1}
			5-6 r get k one -> ok x@a1 y@b1 {a1,b1}`},
		{name: "superseded by a blind write", want: "superseded", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w put k=y -> ok b1 {a1,b1}
			5-6 r get k -> ok x@a1 {a1,b1}`},
		{name: "the first mint beside the second", want: "superseded", script: `
			1-9 w put k=x -> ok a2 {a2}
			2-3 r get k -> ok x@a1 {a1}
			10-11 r get k -> ok x@a1 {a2}`},
		{name: "a blind sibling replaced another", siblings: true, want: `#3 has seen 61.1="x"`, script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 v put k=y -> ok b1 {a1,b1}
			5-6 r get k -> ok y@b1 {a1,b1}`},
		{name: "vanished, and the write that had seen it failed", siblings: true, want: `#4 has seen 61.1="x"`, script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 v put k=y -> ok b1 {a1,b1}
			5-6 w put k=z seen:a1 -> not_applied
			7-8 r get k -> ok y@b1 {a1,b1}`},
		{name: "the only mint loses after the write was acknowledged", want: `has seen 62.1="y"`, script: `
			1-2 w put k=x -> ok a1 {a1}
			3-5 v put k=y -> ok b1 {b1}
			6-7 s get k -> ok x@a1 {a1,b1}
			8-12 w put k=z -> ok b2 {a1,b2}`},
		{name: "a later blind write gave way to the one before", want: `has seen 62.1="y"`, script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w put k=y -> ok b1
			5-6 r get k -> ok x@a1 {a1,b1}`},
		{name: "not applied", want: "which was not applied", script: `
			1-2 w put k=x -> not_applied
			3-4 r get k one -> ok x@a1 {a1}`},
		{name: "nobody wrote it", want: "which nobody wrote", script: `
			3-4 r get k -> ok x@a1 {a1}`},
		{name: "nobody deleted it", want: "a delete that nobody made", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w delete k -> not_applied
			5-6 r get k one -> ok -@a2 {a2}`},
		{name: "read before it was written", want: "which was written later", script: `
			1-2 r get k -> ok x@a1 {a1}
			3-4 w put k=x -> ok a1 {a1}`},
		{name: "a context that lacks what comes with it", siblings: true, want: "its context does not cover", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 v put k=y -> ok b1 {b1}
			5-6 r get k -> ok x@a1 y@b1 {a1}`},
		{name: "the same twice", siblings: true, want: "twice", script: `
			1-2 w put k=x -> ok a1 {a1}
			5-6 r get k -> ok x@a1 x@a1 {a1}`},
		{name: "siblings where the last writer wins", want: "2 values where the last writer wins", script: `
			1-4 w put k=x -> ok a1 {a1}
			2-5 v put k=y -> ok b1 {b1}
			6-7 r get k -> ok x@a1 y@b1 {a1,b1}`},
		{name: "an acknowledgement that has not seen what the write had", want: "and what it had seen", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w put k=y seen:a1 -> ok b1 {b1}`},

		{name: "concurrent siblings, then a merge", siblings: true, script: `
			1-4 w put k=x -> ok a1 {a1}
			2-5 v put k=y -> ok b1 {b1}
			6-7 r get k -> ok x@a1 y@b1 {a1,b1}
			8-9 w put k=z seen:a1,b1 -> ok a2 {a2,b1}
			10-11 r get k -> ok z@a2 {a2,b1}`},
		{name: "an acknowledgement's context covers siblings beside it", siblings: true, script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 v put k=y -> ok a2 {a2}
			5-6 r get k -> ok x@a1 y@a2 {a2}`},
		{name: "replaced by one whose fate is open", siblings: true, script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 v put k=y seen:a1 -> indeterminate
			5-6 r get k -> ok x@a1 {a1}
			7-8 r get k -> ok y@b1 {a1,b1}`},
		{name: "replaced by one whose value was itself replaced", siblings: true, script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 v put k=y seen:a1 -> indeterminate
			5-6 v put k=z seen:a1 -> ok b2 {a1,b2}
			7-8 r get k -> ok z@b2 {a1,b2}`},
		{name: "of two at once one wins", script: `
			1-4 w put k=x -> ok a1 {a1}
			2-5 v put k=y -> ok b1 {b1}
			6-7 r get k -> ok y@b1 {a1,b1}`},
		{name: "the same dot in two partitions", script: `
			1-2 w put k=y part:3 -> ok a1 {a1}
			3-4 w put j=x part:4 -> ok a1 {a1}`},
		{name: "an owner that is behind, asked alone", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w put k=y -> ok b1 {a1,b1}
			5-6 r get k one -> ok x@a1 {a1}`},
		{name: "an owner that heard of a write by its token only", siblings: true, script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w put k=y seen:a1 -> ok b1 {a1,b1}
			5-6 w put k=z seen:b1 -> ok c1 {b1,c1}
			7-8 r get k one -> ok x@a1 z@c1 {a1,b1,c1}
			9-10 r get k -> ok z@c1 {a1,b1,c1}`},
		{name: "an owner that heard of a write by its token only, beside answers from before it", siblings: true, script: `
			1-2 w put k=x -> ok a1 {a1}
			3-20 r get k all -> ok x@a1 z@c1 {a1,b1,c1}
			4-5 w put k=y seen:a1 -> ok b1 {a1,b1}
			6-7 w put k=z seen:b1 -> ok c1 {b1,c1}
			21-22 r get k -> ok z@c1 {a1,b1,c1}`},
		{name: "the first of two mints loses for a moment", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-10 v put k=y -> ok b2 {a1,b2}
			4-5 r get k one -> ok y@b1 {b1}
			6-7 s get k one -> ok x@a1 {a1,b1}
			11-12 r get k -> ok y@b2 {a1,b2}`},
		{name: "the only mint loses until the write is acknowledged", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-10 v put k=y -> ok b1 {b1}
			6-7 s get k -> ok x@a1 {a1,b1}
			8-12 w put k=z -> ok b2 {a1,b2}
			13-14 r get k -> ok z@b2 {a1,b2}`},
		{name: "a token from between the mints", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-10 v put k=y -> ok b2 {a1,b2}
			4-5 r get k one -> ok y@b1 {b1}
			6-9 r put k=z seen:b1 -> ok c1 {b1,c1}
			11-12 r get k -> ok y@b2 {a1,b2,c1}`},
	})
}
