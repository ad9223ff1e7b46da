package check

import "testing"

func TestLostAck(t *testing.T) {
	judge(t, LostAck, []judged{
		{name: "a read has not seen it", want: "has not seen 62.1", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 v put k=y seen:a1 -> ok b1 {a1,b1}
			5-6 r get k -> ok x@a1 {a1}`},
		{name: "nothing is found", want: "returns neither", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 r get k -> ok`},
		{name: "its context was cut, its value is gone", siblings: true, want: "returns neither", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 v put k=y -> ok b1 {b1}
			5-6 r get k -> ok y@b1 {b1} settled:a1`},
		{name: "gone before it faded", want: "returns neither", script: `
			1-2 w put k=x fades:7-9 -> ok a1 {a1}
			3-4 r get k -> ok`},
		{name: "only a value that had not faded could be why", want: "returns neither", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-9 v put k=y fades:7-9 -> indeterminate
			5-6 r get k -> ok`},
		{name: "faded, or replaced by one that has", script: `
			1-2 w put k=x fades:3-9 -> ok a1 {a1}
			3-4 r get k -> ok
			1-2 w put j=x -> ok a3 {a3}
			3-4 w put j=y fades:5-6 -> ok a4 {a4}
			7-8 r get j -> ok`},
		{name: "its context was cut, what replaced it is there", siblings: true, script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 v put k=y seen:a1 -> ok b1 {a1,b1}
			5-6 r get k -> ok y@b1 {b1} settled:a1`},
		{name: "both contexts were cut", siblings: true, script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 v delete k seen:a1 -> ok b1 {a1,b1}
			5-6 v put k=z -> ok c1 {c1}
			7-8 r get k -> ok z@c1 {c1} settled:a1,b1`},
		{name: "a lost write, a later one failed", want: "returns neither", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w delete k -> not_applied
			5-6 r get k -> ok`},
		{name: "covered, but an older value is there, and a later write failed", want: "returns neither", script: `
			1-2 w put k=o -> ok a1 {a1}
			3-4 w put k=x -> ok b1 {a1,b1}
			5-6 w put k=y -> not_applied
			7-8 r get k -> ok o@a1 {a1,b1}`},
		{name: "covered by the dot of a blind sibling", siblings: true, want: "returns neither", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w put k=y -> indeterminate
			5-6 r get k -> ok y@a2 {a2}`},
		{name: "only a delete before it could be why", want: "returns neither", script: `
			1-2 w delete k -> ok a1 {a1}
			3-4 w put k=x -> ok a2 {a2}
			5-6 r get k -> ok`},
		{name: "a put is no reason to find nothing", want: "returns neither", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 v put k=y -> indeterminate
			5-6 r get k -> ok`},
		{name: "one owner had it, all were asked", want: "has not seen 61.1", script: `
			1-2 v put k=o -> ok b1 {b1}
			3-4 w put k=x one -> ok a1 {a1,b1}
			5-6 r get k all -> ok o@b1 {b1}`},
		{name: "the one that replaced it was not seen by the read", siblings: true, want: "returns neither", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 v put k=o -> ok b1 {b1}
			5-9 w put k=y seen:a1 -> ok c1 {a1,c1}
			6-7 r get k -> ok o@b1 {a1,b1}`},
		{name: "the superseder is lost in its turn", want: "returns neither", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 w put k=y -> ok a2 {a2}
			5-6 w put k=z -> ok a3 {a3}
			7-8 r get k -> ok`},
		{name: "what it had seen came back", want: "returns neither", script: `
			1-2 v put k=o -> ok b1 {b1}
			3-4 w put k=x seen:b1 -> ok a1 {a1,b1}
			5-6 r get k -> ok o@b1 {a1,b1}`},
		{name: "the delete came later", want: "returns neither", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 r get k -> ok
			5-6 w delete k -> ok a2 {a2}`},
		{name: "lost after it was read", want: "#3 returns neither", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 r get k -> ok x@a1 {a1}
			5-6 r get k -> ok`},
		{name: "two at once, both lost", want: "#4 returns neither", script: `
			1-4 w put k=x -> ok a1 {a1}
			2-5 v put k=y -> ok b1 {b1}
			6-7 r get k -> ok x@a1 {a1,b1}
			8-9 r get k -> ok`},

		{name: "found", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 r get k -> ok x@a1 {a1}`},
		{name: "overwritten by one whose fate is open", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 v put k=y -> indeterminate
			5-6 r get k -> ok x@a1 {a1}
			7-8 r get k -> ok y@b1 {a1,b1}`},
		{name: "deleted by one whose fate is open", script: `
			1-2 w put k=x -> ok a1 {a1}
			3- v delete k
			5-6 r get k -> ok`},
		{name: "the read began before the acknowledgement", script: `
			1-5 w put k=x -> ok a1 {a1}
			3-6 r get k -> ok`},
		{name: "at one nothing is promised", script: `
			1-2 w put k=x one -> ok a1 {a1}
			3-4 r get k -> ok
			5-6 w put k=y -> ok a2 {a2}
			7-8 r get k one -> ok`},
		{name: "the minter need not know of a write at one", script: `
			1-2 v put k=o one -> ok b1 {b1}
			3-4 w put k=x -> ok a1 {a1}
			5-6 r get k -> ok o@b1 {a1,b1}`},
		{name: "a blind delete", siblings: true, script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 v delete k -> ok b1 {a1,b1}
			5-6 r get k -> ok`},
		{name: "of two at once one wins", script: `
			1-4 w put k=x -> ok a1 {a1}
			2-5 v put k=y -> ok b1 {b1}
			6-7 r get k -> ok x@a1 {a1,b1}
			8-9 v delete k -> ok b2 {a1,b2}
			10-11 r get k -> ok`},
		{name: "a stale context loses to the higher clock", script: `
			1-2 w put k=o -> ok a1 {a1}
			3-4 v put k=y -> ok b1 {a1,b1}
			5-6 w put k=x seen:a1 -> ok a2 {a2}
			7-8 r get k -> ok y@b1 {a2,b1}`},
		{name: "read under the name of its first mint while it is minted again", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-9 v put k=y -> ok b2 {a1,b2}
			4-5 r get k -> ok y@b1 {a1,b1}
			10-11 r get k -> ok y@b2 {a1,b2}`},
		{name: "deleted by the first mint of what is minted again", script: `
			1-2 w put k=x -> ok a1 {a1}
			3-9 v delete k -> ok b2 {a1,b2}
			4-5 r get k -> ok {a1,b1}`},
		{name: "replaced by a chain", siblings: true, script: `
			1-2 w put k=x -> ok a1 {a1}
			3-4 v put k=y -> ok b1 {a1,b1}
			5-6 w put k=z seen:a1,b1 -> ok a2 {a2,b1}
			7-8 w delete k seen:a2,b1 -> ok a3 {a3,b1}
			9-10 r get k -> ok`},
	})
}
