package coord_test

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/check"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// ringScript is a cluster whose layout a test changes step by step: it says who learns of
// what, and who reaches whom.
type ringScript struct {
	*repairRun
	w *world
	// everybody are the names of all nodes.
	everybody string
	writes    int
}

// scriptKey is the key that schedules write and read.
const scriptKey = "k0"

// newRingScript starts a cluster of so many nodes, of which the first own all partitions
// of a tenant with the replication factor rf, in this order.
func newRingScript(nodes, rf int, p planted, log func(string)) *ringScript {
	names := "abcdefgh"[:nodes]
	s := &simulation{plan: plan{kind: kindRing, seed: 1}, rec: check.NewRecorder(nil), done: map[string]int{}, shown: map[string]int{}}
	s.w = newRingWorld(1, ringStart{nodes: nodes, most: nodes, rf: [2]int{rf, rf}, owners: names[:rf]}, bench{newDisk: newStoreDisk, planted: p})
	r := &ringScript{repairRun: &repairRun{simulation: s}, w: s.w, everybody: names}
	s.w.chosen.told, s.w.chosen.planned, s.w.log = true, false, log
	s.w.advance(time.Second)
	return r
}

// propose opens a change after which these nodes own every partition, and the others of
// the layout come behind them. Nobody but the first node has learnt of it then.
func (r *ringScript) propose(owners string) {
	l := r.w.chosen
	old := l.last().Layout()
	layout := ownedBy(l.last().Version()+1, old, owners)
	l.choose(nil, &ring.Entry{Kind: ring.KindPropose, Propose: &ring.Propose{Parent: old.Version(), Layout: layout}})
}

// refactor opens a change after which the tenant has another replication factor, and those
// before it have others, too. Nobody
// but the first node has learnt of it then.
func (r *ringScript) refactor(rf uint8, others ...ring.Factor) {
	l := r.w.chosen
	old := l.last().Layout()
	layout := withRows(l.last().Version()+1, old, func(ring.Partition, []uint16) {})
	l.choose(nil, &ring.Entry{Kind: ring.KindPropose, Propose: &ring.Propose{
		Parent: old.Version(), Layout: layout, Factors: append(others, ring.Factor{Tenant: r.w.tenant(simTenant).Number, RF: rf, AskedAtMs: 1}),
	}})
}

// straggler has a copy of the key come late to a node, as from a coordinator that has
// waited long, and knows the ring by now.
func (r *ringScript) straggler(name rune, object []byte) {
	n := r.node(name)
	at := r.w.address(scriptKey)
	m := coord.Message{
		Op: coord.OpMerge, Partition: at.Partition, PV: n.pv(at.Partition), Tenant: at.Tenant, TenantVersion: r.w.tenant(simTenant).Version,
		Token: at.Token, Key: at.Key, Body: object, Deadline: n.Now().Add(5 * time.Second),
	}
	answered := false
	n.coord.HandlePeer(r.node('b').id, []coord.Message{m}, func(_ int, rep coord.Reply) {
		answered = true
		why := ""
		if rep.Status == coord.StatusError {
			if e, err := coord.DecodeError(rep.Body); err == nil {
				why = e.Error()
			}
		}
		r.w.note("%s answers the straggler with %d %s", n.name, rep.Status, why)
	})
	for range 500 {
		if answered {
			return
		}
		r.w.advance(10 * time.Millisecond)
	}
	r.fail("the straggler is not answered")
}

// beside puts a value under another key of the same partition, with all owners.
func (r *ringScript) beside(name rune) {
	p, key := r.w.address(scriptKey).Partition, ""
	for i := 0; key == "" || r.w.address(key).Partition != p; i++ {
		key = "beside" + strconv.Itoa(i)
	}
	done := false
	r.node(name).coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: []byte(key), Value: []byte("x"), Level: quorum.All}, func(_ coord.WriteResponse, err error) { done = err == nil })
	r.w.advance(200 * time.Millisecond)
	if !done {
		r.fail("a write beside is not acknowledged")
	}
}

// ownedBy is a layout whose rows all begin with these nodes.
func ownedBy(v ring.Version, l *ring.Layout, owners string) *ring.Layout {
	return withRows(v, l, func(_ ring.Partition, row []uint16) {
		var all []uint16
		for _, name := range owners {
			all = append(all, uint16(slices.IndexFunc(l.Nodes(), func(n ring.LayoutNode) bool { return n.Name == string(name) })))
		}
		for i := range l.Nodes() {
			if !slices.Contains(all, uint16(i)) {
				all = append(all, uint16(i))
			}
		}
		copy(row, all)
	})
}

// tell makes nodes learn the log so far.
func (r *ringScript) tell(names string) {
	for _, name := range names {
		r.node(name).learn(r.w.chosen.last().Version())
	}
	r.w.advance(100 * time.Millisecond)
}

func (r *ringScript) node(name rune) *simNode { return r.w.node(string(name)) }

// only cuts all links but those among these nodes; who is not reached is taken for dead.
func (r *ringScript) only(names string) {
	r.w.net.cut = map[[2]int]bool{}
	for _, a := range r.w.nodes {
		a.believed = map[int]schema.Liveness{}
		for _, b := range r.w.nodes {
			if !bytes.ContainsRune([]byte(names), rune(a.name[0])) || !bytes.ContainsRune([]byte(names), rune(b.name[0])) {
				r.w.net.cut[[2]int{a.i, b.i}] = a != b
				if a != b {
					a.believed[b.i] = schema.Dead
				}
			}
		}
		a.look()
	}
}

// carry has a node take the change on if it may, going by what it hears within some
// seconds, and says whether it did.
func (r *ringScript) carry(name rune) bool {
	n := r.node(name)
	n.learn(r.w.chosen.last().Version())
	r.w.advance(100 * time.Millisecond)
	for range 10 {
		if e := r.w.chosen.next(n, r.w.rand("script")); e != nil {
			r.w.chosen.choose(n, e)
			r.w.advance(100 * time.Millisecond)
			return true
		}
		r.w.advance(500 * time.Millisecond)
	}
	return false
}

// heard makes a node hear what others report.
func (r *ringScript) heard(name rune, from string) {
	for _, other := range from {
		r.node(name).member.heard[r.node(other).i] = r.node(other).member.own
	}
}

// synced waits until the open change may be committed, going by what a node hears.
func (r *ringScript) synced(name rune) {
	for range 60 {
		if ok, _ := r.node(name).state().MayCommit(r.node(name).report); ok {
			return
		}
		r.w.advance(500 * time.Millisecond)
	}
	r.fail("the new owners do not get what they gain")
}

// finish carries the open change to its end with all nodes in reach of one another, and
// fails if it does not come to it.
func (r *ringScript) finish() {
	r.only(r.everybody)
	for range 60 {
		r.tell(r.everybody)
		r.w.advance(time.Second)
		if r.w.chosen.last().Change() == nil {
			return
		}
		r.carry('a')
	}
	r.fail("the change does not come to its end")
}

// object is what a node holds of the key, encoded.
func (r *ringScript) object(name rune) []byte {
	o := r.node(name).disk.object(r.w.address(scriptKey))
	return o.Append(nil)
}

// put writes a new value through a node, and says whether it was acknowledged.
func (r *ringScript) put(name rune, level quorum.Level) (ok bool) {
	r.writes++
	value := string(rune('0' + r.writes))
	r.do(name, check.Call{Client: "writer", Kind: check.Put, Level: level, Value: value}, func(n *simNode, finish func(check.Answer)) {
		n.coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: []byte(scriptKey), Value: []byte(value), Level: level}, func(w coord.WriteResponse, err error) {
			if ok = err == nil; !ok {
				finish(failed(err))
				return
			}
			finish(check.Answer{Outcome: check.OK, Dot: w.Dot, Context: w.Context})
		})
	})
	return ok
}

// remove deletes the key through a node.
func (r *ringScript) remove(name rune) (ok bool) {
	r.do(name, check.Call{Client: "writer", Kind: check.Delete, Level: quorum.Quorum}, func(n *simNode, finish func(check.Answer)) {
		n.coord.StartDelete(coord.DeleteRequest{Tenant: simTenant, Key: []byte(scriptKey)}, func(w coord.WriteResponse, err error) {
			if ok = err == nil; !ok {
				finish(failed(err))
				return
			}
			finish(check.Answer{Outcome: check.OK, Dot: w.Dot, Context: w.Context})
		})
	})
	return ok
}

// get reads the key through a node, and says whether it was answered.
func (r *ringScript) get(name rune, level quorum.Level) (ok bool) {
	r.do(name, check.Call{Client: "reader", Kind: check.Get, Level: level}, func(n *simNode, finish func(check.Answer)) {
		n.coord.StartGet(coord.GetRequest{Tenant: simTenant, Key: []byte(scriptKey), Level: level}, func(g coord.GetResponse, err error) {
			a := r.saw(g, err)
			ok = a.Outcome == check.OK
			finish(a)
		})
	})
	return ok
}

// do makes an operation and waits for its answer.
func (r *ringScript) do(name rune, c check.Call, start func(n *simNode, finish func(check.Answer))) {
	c.Key = scriptKey
	n := r.node(name)
	answer, answered := r.call(n, simTenant, c), false
	start(n, func(a check.Answer) { answered = true; answer(a) })
	for range int(clientPatience / (10 * time.Millisecond)) {
		if answered {
			return
		}
		r.w.advance(10 * time.Millisecond)
	}
	r.fail("an operation through %c is not answered", name)
}

// judge returns what is wrong.
func (r *ringScript) judge() []failure {
	h := r.history()
	for _, checker := range []func(check.History) []check.Violation{
		check.LostAck, check.Causal, check.MonotonicContexts, check.NoReappearance,
	} {
		for _, v := range checker(h) {
			r.found = append(r.found, failure{v.Checker, 0, v.String()})
		}
	}
	for _, text := range r.w.confirmed.wrong {
		r.fail("%s", text)
	}
	return r.found
}

// ringSchedules are courses of events that random ones hardly meet. Each is kept to, and
// is not if the mistake beside it is made.
var ringSchedules = []struct {
	name      string
	nodes, rf int
	planted   planted
	run       func(r *ringScript)
}{
	{"committed before the new owners have the data", 6, 3, planted{syncEarly: true}, func(r *ringScript) {
		r.put('a', quorum.Quorum)
		r.propose("def")
		r.tell("abcdef")
		r.only("def")
		if r.carry('d') {
			r.only(r.everybody)
			r.tell("abcdef")
			r.carry('d')
			r.tell("abcdef")
		}
		r.only("def")
		r.get('d', quorum.Quorum)
	}},
	{"fewer owners, of which most missed the last write", 5, 5, planted{syncEarly: true}, func(r *ringScript) {
		r.only("cde")
		r.put('c', quorum.Quorum)
		r.only("ab")
		r.w.chosen.leaves = []ring.NodeID{r.node('d').id, r.node('e').id}
		r.carry('a')
		r.tell("abcde")
		for range 2 {
			r.carry('a')
			r.tell("abcde")
			r.heard('a', "abcde")
		}
		r.get('a', quorum.Quorum)
	}},
	{"written to old owners alone while new ones are to be", 6, 3, planted{unminded: true}, func(r *ringScript) {
		r.propose("def")
		r.tell("abcdef")
		r.synced('d')
		r.only("abc")
		r.put('a', quorum.Quorum)
		r.get('a', quorum.Quorum)
		r.only("def")
		for range 2 {
			r.carry('d')
			r.tell("abcdef")
			r.heard('d', "abcdef")
		}
		r.get('d', quorum.Quorum)
	}},
	{"a write that one node has, which owns it no more", 4, 3, planted{noPush: true}, func(r *ringScript) {
		r.only("a")
		r.put('a', quorum.One)
		r.only("bcd")
		r.propose("bcd")
		r.tell("bcd")
		r.synced('b')
		r.carry('b')
		r.tell("bcd")
		r.carry('b')
		r.finish()
		r.w.advance(20 * time.Second)
		r.get('b', quorum.All)
	}},
	{"collected while one that sleeps still has it", 4, 3, planted{noCleanGate: true}, func(r *ringScript) {
		r.put('a', quorum.Quorum)
		r.only("bcd")
		r.propose("bcd")
		r.tell("bcd")
		r.synced('b')
		r.carry('b')
		r.tell("bcd")
		r.carry('b')
		r.tell("bcd")
		r.remove('b')
		r.w.advance(20 * time.Second)
		r.finish()
		r.w.advance(20 * time.Second)
		r.get('b', quorum.All)
	}},
	{"fewer copies, most of which missed the last write", 5, 5, planted{noShrinkSync: true}, func(r *ringScript) {
		r.only("cde")
		r.put('c', quorum.Quorum)
		r.only("ab")
		r.refactor(3)
		for range 2 {
			r.tell("abcde")
			r.heard('a', "abcde")
			r.carry('a')
		}
		r.tell("abcde")
		r.get('a', quorum.Quorum)
		r.finish()
		r.get('a', quorum.All)
	}},
	{"written to the one owner while there are to be three", 3, 1, planted{unminded: true}, func(r *ringScript) {
		r.put('a', quorum.Quorum)
		r.refactor(3)
		r.tell("abc")
		r.synced('b')
		r.only("a")
		r.put('a', quorum.Quorum)
		r.only("bc")
		for range 2 {
			r.carry('b')
			r.tell("abc")
			r.heard('b', "abc")
		}
		r.get('b', quorum.Quorum)
		r.finish()
		r.get('b', quorum.All)
	}},
	{"written at two of three while five are to be, and read at the others", 5, 3, planted{unminded: true}, func(r *ringScript) {
		r.put('a', quorum.Quorum)
		r.refactor(5)
		r.tell("abcde")
		r.synced('d')
		r.only("ab")
		r.put('a', quorum.Quorum)
		r.only("cde")
		for range 2 {
			r.carry('d')
			r.tell("abcde")
			r.heard('d', "abcde")
		}
		r.get('d', quorum.Quorum)
		r.finish()
		r.get('d', quorum.All)
	}},
	{"fetched from one old owner, which missed the last write", 5, 2, planted{oneSource: true}, func(r *ringScript) {
		r.refactor(3, ring.Factor{Tenant: ring.DefaultTenant, RF: 2, AskedAtMs: 1})
		r.tell("abcde")
		r.finish()
		r.w.advance(5 * time.Second)
		r.only("bc")
		r.put('b', quorum.Quorum)
		r.only("ade")
		r.propose("ade")
		for range 5 {
			r.tell("abcde")
			r.w.advance(12 * time.Second)
			r.heard('d', "abcde")
			r.carry('d')
		}
		r.tell("abcde")
		r.get('d', quorum.Quorum)
		r.finish()
		r.w.advance(10 * time.Second)
		r.get('e', quorum.All)
	}},
	{"a straggler of what was collected before the tenant had a class for itself", 5, 3, planted{classLost: true}, func(r *ringScript) {
		r.put('a', quorum.All)
		old := r.object('a')
		r.remove('a')
		r.w.advance(20 * time.Second)
		if o := r.node('a').disk.object(r.w.address(scriptKey)); !o.IsZero() {
			r.fail("the delete is not collected")
		}
		r.refactor(5)
		r.tell("abcde")
		r.synced('a')
		r.straggler('a', old)
		r.straggler('d', old)
		r.get('a', quorum.Quorum)
		r.finish()
		r.w.advance(20 * time.Second)
		r.straggler('e', old)
		r.get('e', quorum.Quorum)
		r.get('a', quorum.All)
	}},
	{"confirmed of others after the tenant has left their class", 3, 1, planted{classShared: true}, func(r *ringScript) {
		r.refactor(3)
		r.tell("abc")
		r.finish()
		r.w.advance(10 * time.Second)
		r.only("bc")
		r.put('b', quorum.Quorum)
		r.only("abc")
		r.beside('b')
		r.only("bc")
		r.w.advance(time.Minute) // a has rounds of its own then, of those with one copy
		r.only("abc")
		r.get('a', quorum.Quorum)
		r.w.advance(20 * time.Second)
		r.get('c', quorum.All)
	}},
}

// TestRingSchedules keeps to courses of events under which a ring that changes has gone
// wrong in a model, and sees that the checkers find it if it does.
func TestRingSchedules(t *testing.T) {
	for _, sched := range ringSchedules {
		t.Run(sched.name, func(t *testing.T) {
			run := func(p planted) (found []failure, trace string) {
				var lines []string
				r := newRingScript(sched.nodes, sched.rf, p, func(line string) { lines = append(lines, line) })
				sched.run(r)
				return r.judge(), strings.Join(lines, "\n")
			}
			if found, trace := run(planted{}); len(found) > 0 {
				t.Errorf("%v\n%s", found, trace)
			}
			if found, trace := run(sched.planted); len(found) == 0 {
				t.Errorf("nothing is found wrong with %+v\n%s", sched.planted, trace)
			}
		})
	}
}

// TestRingGainWithoutSource: an owner is cut off and everybody takes it for alive. The
// others suffice for whoever is to own what it has, and that takes seconds.
func TestRingGainWithoutSource(t *testing.T) {
	var lines []string
	r := newRingScript(4, 3, planted{}, func(line string) { lines = append(lines, line) })
	r.put('b', quorum.All)
	for _, other := range "bcd" {
		r.w.net.cut[[2]int{r.node('a').i, r.node(other).i}] = true
		r.w.net.cut[[2]int{r.node(other).i, r.node('a').i}] = true
	}
	r.propose("bcd")
	at := r.w.chosen.last().Version()
	r.tell("bcd")
	for waited := time.Duration(0); r.node('d').member.own.Synced < at; waited += 500 * time.Millisecond {
		if waited > 12*time.Second {
			t.Fatalf("not synced after %v\n%s", waited, strings.Join(lines, "\n"))
		}
		r.w.advance(500 * time.Millisecond)
	}
	r.finish()
	r.get('d', quorum.All)
	if found := r.judge(); len(found) > 0 {
		t.Errorf("%v\n%s", found, strings.Join(lines, "\n"))
	}
}
