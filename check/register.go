package check

import (
	"cmp"
	"slices"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/pairdb/pairdb/coord/quorum"
)

// registerTimeout bounds the search for an order of one key's operations. It is
// real time; only a search that takes that long depends on it.
const registerTimeout = time.Minute

// Register finds keys that are no atomic register: there is no order of their
// operations, each at one instant between its call and its answer, in which
// every read returns the write before it. It looks at the keys of Registers;
// reads at ONE are left out. A write whose fate is open may take effect at any
// time or never, one that was not applied never does.
func Register(h History) []Violation {
	rep := report{checker: "register"}
	for _, k := range h.keys() {
		if k.isRegister() {
			k.register(&rep)
		}
	}
	return rep.done()
}

// Registers returns the keys for which PairDB promises an atomic register, and
// which were read: one client writes, at QUORUM or ALL, each write after the
// one before was answered; each supersedes the one before, because it is blind
// where the last writer wins or supplies a context that covers it; and after a
// write whose fate is open there is none but further attempts at it.
func Registers(h History) []Key {
	var out []Key
	for _, k := range h.keys() {
		if k.isRegister() {
			out = append(out, k.Key)
		}
	}
	return out
}

func (k *keyed) isRegister() bool {
	if !slices.ContainsFunc(k.reads, readsRegister) {
		return false
	}
	var last *write // that was acknowledged
	for i, w := range k.writes {
		for _, o := range w.ops {
			if o.Client != k.writes[0].first().Client || o.Level < quorum.Quorum || o.Fades != nil {
				return false
			}
		}
		if i > 0 && !k.writes[i-1].decidedBy(w.first().At) {
			return false
		}
		if last != nil && !w.never && !k.mintedTwice(w) && !w.seen().Covers(last.acked.Answer.Dot) {
			return false
		}
		if w.acked != nil {
			last = w
		}
	}
	return true
}

// decidedBy reports whether the client knew before t what became of w.
func (w *write) decidedBy(t time.Duration) bool {
	if w.acked != nil {
		return w.end < t
	}
	return w.never && !slices.ContainsFunc(w.ops, func(o *Op) bool { return o.Answer.At >= t })
}

func readsRegister(r *Op) bool { return r.Level >= quorum.Quorum }

// content is what a register holds: a value or nothing.
type content struct {
	present bool
	value   string
}

// access is one operation on a register; what it reads is its output.
type access struct {
	write   bool
	content content
	op      *Op
}

func (k *keyed) register(rep *report) {
	var accesses []porcupine.Operation
	for _, w := range k.writes {
		if w.never {
			continue
		}
		c := content{!w.isDelete(), w.first().Value}
		op := w.acked
		if op == nil {
			op = w.first()
		}
		accesses = append(accesses, porcupine.Operation{
			Input: access{true, c, op}, Call: int64(w.start), Output: content{}, Return: int64(w.end),
		})
	}
	for _, r := range k.reads {
		if !readsRegister(r) {
			continue
		}
		live := slices.DeleteFunc(slices.Clone(r.Answer.Siblings), func(v Version) bool { return v.Tombstone })
		if len(live) > 1 {
			rep.add(k.Key, []*Op{r}, "#%d returns %d siblings of a key with a single writer", r.ID, len(live))
			return
		}
		c := content{}
		if len(live) == 1 {
			c = content{true, live[0].Value}
		}
		accesses = append(accesses, porcupine.Operation{
			Input: access{false, c, r}, Call: int64(r.At), Output: c, Return: int64(r.Answer.At),
		})
	}
	switch linearizable(accesses) {
	case porcupine.Unknown:
		rep.add(k.Key, nil, "no order of its %d operations was found within %v", len(accesses), registerTimeout)
	case porcupine.Illegal:
		known := firstIllegal(accesses)
		culprit := known[len(known)-1]
		rep.add(k.Key, k.shows(known), "no order of the operations answered until #%d was, and of those then open, explains all reads", culprit.ID)
	}
}

func linearizable(accesses []porcupine.Operation) porcupine.CheckResult {
	if len(accesses) == 0 {
		return porcupine.Ok
	}
	return porcupine.CheckOperationsTimeout(porcupine.Model{
		Init: func() any { return content{} },
		Step: func(state, input, output any) (bool, any) {
			if a := input.(access); a.write {
				return true, a.content
			}
			return state == output, state
		},
		Equal: func(a, b any) bool { return a == b },
	}, accesses, registerTimeout)
}

// firstIllegal returns the operations in the order of their answers up to the
// first that no order explains. What has no order stays without one however it
// goes on.
func firstIllegal(accesses []porcupine.Operation) []*Op {
	byReturn := slices.Clone(accesses)
	slices.SortStableFunc(byReturn, func(a, b porcupine.Operation) int { return cmp.Compare(a.Return, b.Return) })
	// n is the number of answers with which it is illegal for the first time.
	n := 1 + sort.Search(len(byReturn)-1, func(n int) bool {
		return linearizable(until(byReturn, n+1)) != porcupine.Ok
	})
	known := make([]*Op, n)
	for i, a := range byReturn[:n] {
		known[i] = a.Input.(access).op
	}
	return known
}

// until returns the history as it was when the first n of byReturn were
// answered: others that had been called are open, and an open read says nothing.
func until(byReturn []porcupine.Operation, n int) []porcupine.Operation {
	out := slices.Clone(byReturn[:n])
	for _, a := range byReturn[n:] {
		if a.Input.(access).write && a.Call <= byReturn[n-1].Return {
			out = append(out, a)
		}
	}
	return out
}

// shows picks what shows best why the last of the known cannot be explained: it
// and those answered just before, and who wrote what they returned.
func (k *keyed) shows(known []*Op) []*Op {
	const last = maxShown / 3
	ops := slices.Clone(known[max(0, len(known)-last):])
	for _, o := range slices.Clone(ops) {
		if o.Answer == nil {
			continue
		}
		for _, v := range o.Answer.Siblings {
			if w := k.byValue[v.Value]; w != nil {
				ops = append(ops, w.first())
			}
		}
	}
	return ops
}
