package check

import "testing"

func TestNoReappearance(t *testing.T) {
	judge(t, NoReappearance, []judged{
		{name: "overwritten, then back", want: "#4 returns 61.1=\"x\", which #3 had shown", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-9 w put k=y -> ok a2 {a2}
			4-5 r get k -> ok y@a2 {a2}
			6-7 s get k -> ok x@a1 {a1}`},
		{name: "back as a sibling", siblings: true, want: "which #2 had shown", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 v put k=y seen:a1 -> ok b1 {a1,b1}
			5-6 r get k -> ok y@b1 {a1,b1}
			7-8 s get k -> ok x@a1 y@b1 {a1,b1}`},
		{name: "deleted, then back", want: "#4 returns 61.1=\"x\", which #3 had shown", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-9 w delete k -> indeterminate
			4-5 r get k -> ok
			6-7 s get k -> ok x@a1 {a1}`},
		{name: "deleted, then back, though nobody acknowledged it", want: "#4 returns 61.1=\"x\", which #3 had shown", script: `
			1-2 w put k=x -> indeterminate
			3-4 r get k -> ok x@a1 {a1}
			5-6 s get k -> ok
			7-8 s get k -> ok x@a1 {a1}`},
		{name: "an acknowledged write had seen it", siblings: true, want: "which #2 had shown", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w put k=y seen:a1 -> ok b1 {a1,b1}
			5-6 r get k -> ok x@a1 {a1}`},
		{name: "a blind delete was acknowledged", want: "which #2 had shown", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 v delete k -> ok b1 {a1,b1}
			5-6 r get k -> ok x@a1 {a1}`},
		{name: "one owner showed it, all were asked", want: "which #2 had shown", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 r get k one -> ok {a1,b1}
			5-6 r get k all -> ok x@a1 {a1}`},
		{name: "a value of an unknown writer", want: "which #2 had shown", script: `
			1-2 r get k -> ok x@a1 {a1}
			3-4 r get k -> ok
			5-6 r get k -> ok x@a1 {a1}`},

		{name: "expired for every clock", want: "#2 returns 61.1=\"x\", which had expired at 6ms", script: `
			1-2 w put k=x fades:5-6 -> ok a1 {a1}
			7-8 r get k one -> ok x@a1 {a1}`},
		{name: "deleted before it faded", want: "#3 returns 61.1=\"x\", which #2 had shown", script: `
			1-2 w put k=x fades:50-90 -> ok a1 {a1}
			3-4 w delete k -> ok a2 {a1,a2}
			60-61 r get k -> ok x@a1 {a1}`},
		{name: "hidden before it faded, then back", want: "#3 returns 61.1=\"x\", which #2 had shown", script: `
			1-2 w put k=x fades:50-90 -> ok a1 {a1}
			3-4 r get k -> ok
			60-61 r get k -> ok x@a1 {a1}`},
		{name: "back after its delete was collected and the key was made again", want: "#6 returns 61.1=\"x\", which #2 had shown", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w delete k -> ok b1 {a1,b1}
			5-6 r get k -> ok
			7-8 w put k=y -> ok c1 {c1}
			9-10 r get k -> ok y@c1 {c1} settled:a1,b1
			11-12 r get k -> ok x@a1 {a1,c1}`},

		{name: "hidden by one clock, shown by another", script: `
			1-2 w put k=x fades:5-9 -> ok a1 {a1}
			6-7 r get k -> ok
			8-9 s get k -> ok x@a1 {a1}
			10-11 r get k -> ok`},
		{name: "a delete was collected and the key made again", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w delete k -> ok b1 {a1,b1}
			5-6 r get k -> ok
			7-8 w put k=y -> ok c1 {c1}
			9-10 r get k -> ok y@c1 {c1} settled:a1,b1`},
		{name: "a tombstone is no value", script: `
			1-2 w delete k -> ok a1 {a1}
			3-4 r get k -> ok
			5-6 r get k -> ok -@a1 {a1}`},
		{name: "overwritten for good", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w put k=y -> ok a2 {a2}
			5-6 r get k -> ok y@a2 {a2}
			7-8 s get k -> ok y@a2 {a2}`},
		{name: "reads at the same time", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-9 w put k=y -> ok a2 {a2}
			4-6 r get k -> ok y@a2 {a2}
			5-7 s get k -> ok x@a1 {a1}`},
		{name: "written again", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w delete k -> ok a2 {a2}
			5-6 r get k -> ok
			7-8 w put k=y -> ok a3 {a3}
			9-10 r get k -> ok y@a3 {a3}`},
		{name: "appears after nothing was found", script: `
			1-2 w put k=x -> indeterminate
			3-4 r get k -> ok
			5-6 r get k -> ok x@a1 {a1}`},
		{name: "an owner that is behind, asked alone", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w delete k -> ok a2 {a2}
			5-6 r get k -> ok
			7-8 r get k one -> ok x@a1 {a1}`},
		{name: "one owner had it, and others found nothing", script: `
			1-2 w put k=x one -> ok a1 {a1}
			3-4 r get k -> ok
			5-6 r get k -> ok x@a1 {a1}`},
		{name: "an acknowledgement's context covers a sibling beside it", siblings: true, script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 v put k=y -> ok b1 {a1,b1}
			5-6 r get k -> ok x@a1 y@b1 {a1,b1}`},
		{name: "the answer to a duplicate may know more", script: `
			1-2 w put k=x id:i -> indeterminate
			3-4 v put k=y -> ok b1 {a1,b1}
			5-6 w put k=x id:i -> ok a1 {a1,b1} dup
			7-8 r get k -> ok y@b1 {a1,b1}`},
	})
}
