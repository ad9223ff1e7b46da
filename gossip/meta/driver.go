package meta

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// DriverOptions say how eager a Driver is.
type DriverOptions struct {
	// AutoApply: changes are proposed without being asked for.
	AutoApply bool
	// Settle is the time since the last joiner or intent after which one is. It is
	// waited for maxSettles times at most, however many more come.
	Settle time.Duration
	// Patience is how long a joiner of the open change may be gone.
	Patience time.Duration
	// Stagger is the time that a member leaves to each one before it.
	Stagger time.Duration
}

// View is what a Driver goes by.
type View struct {
	State *ring.State
	Self  ring.NodeID
	// Members are those of the snapshot, sorted by id.
	Members []schema.Member
	// Wanting are the nodes that want partitions and answer, sorted by id: joiners,
	// and members that were turned away through no fault of theirs.
	Wanting []ring.LayoutNode
	// TurnedAway are members without partitions that answer, whose change an operator
	// has aborted: they are taken in when an operator says so.
	TurnedAway []ring.LayoutNode
	// Now is the time since some moment in this process.
	Now time.Duration
}

// View gives what a Driver goes by.
func (c *Core) View(now time.Duration) View {
	v := View{State: c.state, Self: c.self, Members: c.Snapshot().Members, Now: now}
	for _, e := range c.joiners() {
		v.Wanting = append(v.Wanting, ring.LayoutNode{ID: e.ID, Name: e.Name, Zone: e.Zone, Capacity: e.Capacity})
	}
	for _, o := range c.state.Outsiders() {
		switch {
		case o.Leaving || c.live[o.ID] != schema.Alive && o.ID != c.self:
		case o.Reopened:
			v.Wanting = append(v.Wanting, o.LayoutNode)
		default:
			v.TurnedAway = append(v.TurnedAway, o.LayoutNode)
		}
	}
	slices.SortFunc(v.Wanting, func(a, b ring.LayoutNode) int { return a.ID.Compare(b.ID) })
	return v
}

func (v *View) member(id ring.NodeID) *schema.Member {
	i, ok := slices.BinarySearchFunc(v.Members, id, func(m schema.Member, id ring.NodeID) int { return m.ID.Compare(id) })
	if !ok {
		return nil
	}
	return &v.Members[i]
}

func (v *View) alive(id ring.NodeID) bool {
	if id == v.Self || v.State.IsRetired(id) {
		return id == v.Self
	}
	m := v.member(id)
	return m != nil && (m.Liveness == schema.Alive || m.Liveness == schema.Suspect)
}

func (v *View) report(id ring.NodeID) ring.Report {
	m := v.member(id)
	if m == nil {
		return ring.Report{}
	}
	return ring.Report{Acked: m.AckedVersion, Synced: m.SyncedVersion, Clean: m.CleanVersion}
}

// rank is how many members come before this one: those that answer and can do their
// part, by id, and then those that have withdrawn: if all have, because their disks are
// full, a change that brings new nodes is what helps. It is negative for one that is no
// member.
func (v *View) rank() int {
	const most = 20 // so that the last of many does not wait for ever; the slots decide
	me := v.member(v.Self)
	if me == nil {
		return -1
	}
	n := 0
	for i := range v.Members {
		m := &v.Members[i]
		before := m.ID.Compare(v.Self) < 0
		if m.Withdrawn != me.Withdrawn {
			before = me.Withdrawn
		}
		if before && v.alive(m.ID) {
			n++
		}
	}
	return min(n, most)
}

// Driver decides what a member should propose next so that changes of the layout come to
// their end. It only decides; each decision is looked at anew when it was carried out,
// or when it came to nothing. It remembers since when things are as they are, so that it
// needs no clock; a new one only waits longer. It is not safe for concurrent use.
type Driver struct {
	opts DriverOptions
	// seen is what was wanted last, newsAt when the latest of it came, and burstAt when
	// that began which has not settled since.
	seen            map[[16]byte]struct{}
	newsAt, burstAt time.Duration
	// gone is since when members do not answer.
	gone map[ring.NodeID]time.Duration
	// step is the proposal that is due, since when.
	step   string
	stepAt time.Duration
	// plan is for planFor.
	plan    *ring.Plan
	planErr error
	planFor planKey
}

type planKey struct {
	state   *ring.State
	wanting string
}

// NewDriver makes a Driver.
func NewDriver(o DriverOptions) *Driver {
	return &Driver{opts: o, seen: map[[16]byte]struct{}{}, gone: map[ring.NodeID]time.Duration{}}
}

// PlanError is why nothing can be planned, nil if something can.
func (d *Driver) PlanError() error { return d.planErr }

// Next gives the entry to propose now, nil for none. Version and Op are not set.
func (d *Driver) Next(v View) *ring.Entry {
	if v.State.Layout() == nil {
		return nil
	}
	d.watch(&v)
	e := d.due(&v)
	if e == nil {
		d.step = ""
		return nil
	}
	if key := stepKey(e); key != d.step {
		d.step, d.stepAt = key, v.Now
	}
	rank := v.rank()
	if rank < 0 || v.Now-d.stepAt < time.Duration(rank)*d.opts.Stagger {
		return nil
	}
	return e
}

// stepKey is the same for entries that do the same.
func stepKey(e *ring.Entry) string {
	switch e.Kind {
	case ring.KindPropose:
		return fmt.Sprint(e.Kind, e.Propose.Parent)
	case ring.KindRetire:
		return fmt.Sprint(e.Kind, e.Retire.Node)
	case ring.KindIntent:
		return fmt.Sprint(e.Kind, e.Intent.Cancels)
	default:
		return fmt.Sprint(e.Kind, e.Step.Change)
	}
}

// maxSettles bounds how often a newcomer puts a change off: a node that comes and goes
// all the time must not put it off for ever.
const maxSettles = 12

// settled says that what is wanted has been wanted for long enough.
func (d *Driver) settled(now time.Duration) bool {
	return now-d.newsAt >= d.opts.Settle || now-d.burstAt >= maxSettles*d.opts.Settle
}

// watch notes what has come and who has gone.
func (d *Driver) watch(v *View) {
	wanted := make(map[[16]byte]struct{}, len(v.Wanting)+len(v.State.Intents()))
	note := func(key [16]byte) {
		wanted[key] = struct{}{}
		if _, known := d.seen[key]; !known {
			if v.Now-d.newsAt >= d.opts.Settle {
				d.burstAt = v.Now
			}
			d.newsAt = v.Now
		}
	}
	for _, n := range v.Wanting {
		note(n.ID)
	}
	for _, i := range v.State.Intents() {
		note(i.Op)
	}
	for _, n := range v.State.Lost() {
		note(n.ID)
	}
	d.seen = wanted
	for i := range v.Members {
		id := v.Members[i].ID
		if v.alive(id) {
			delete(d.gone, id)
		} else if _, known := d.gone[id]; !known {
			d.gone[id] = v.Now
		}
	}
	for id := range d.gone { //seams:ordered independent deletions
		if v.member(id) == nil {
			delete(d.gone, id)
		}
	}
}

// lost says that a node has been gone for longer than anybody waits.
func (d *Driver) lost(v *View, id ring.NodeID) bool {
	since, gone := d.gone[id]
	return gone && v.Now-since >= d.opts.Patience
}

// due is what anybody should propose.
func (d *Driver) due(v *View) *ring.Entry {
	for _, o := range v.State.Outsiders() {
		if v.State.MayRetire(o.ID, v.report) && !inNext(v.State, o.ID) {
			return &ring.Entry{Kind: ring.KindRetire, Retire: &ring.Retire{Node: o.ID}}
		}
	}
	for _, i := range v.State.Intents() {
		// A replacement that is no member would be waited for: it may be started yet.
		if i.Verb == ring.VerbReplace && d.lost(v, i.By) {
			return cancel(i)
		}
	}
	if c := v.State.Change(); c != nil {
		return d.advance(v, c)
	}
	return d.propose(v)
}

func inNext(s *ring.State, id ring.NodeID) bool {
	if s.Change() == nil {
		return false
	}
	_, in := s.Change().Next.Node(id)
	return in
}

func cancel(i *ring.IntentRecord) *ring.Entry {
	return &ring.Entry{Kind: ring.KindIntent, Intent: &ring.Intent{Verb: ring.VerbCancel, Cancels: i.Op}}
}

// advance takes the open change on, or gives it up.
func (d *Driver) advance(v *View, c *ring.Change) *ring.Entry {
	step := func(k ring.Kind) *ring.Entry { return &ring.Entry{Kind: k, Step: &ring.Step{Change: c.ID}} }
	if c.Stage == ring.Committed {
		if ok, _ := v.State.MayFinalize(v.report); ok {
			return step(ring.KindFinalize)
		}
		return nil
	}
	may, waiting := v.State.MayCommit(v.report)
	if why := d.hopeless(v, c, waiting); why != "" {
		e := step(ring.KindAbort)
		e.Step.Reason, e.Step.Reopens = why, true
		return e
	}
	if may {
		return step(ring.KindCommit)
	}
	return nil
}

// hopeless says why the change that is proposed will not get further, "" if it may.
func (d *Driver) hopeless(v *View, c *ring.Change, waiting []ring.NodeID) string {
	for _, n := range c.Next.Nodes() {
		if v.State.IsRetired(n.ID) {
			return fmt.Sprintf("%s (%s) is given up for lost", n.Name, n.ID.Short())
		}
		if _, had := v.State.Layout().Node(n.ID); !had && d.lost(v, n.ID) {
			return fmt.Sprintf("joiner %s (%s) does not answer for %s", n.Name, n.ID.Short(), d.opts.Patience)
		}
	}
	for _, i := range v.State.Intents() {
		if (i.Verb == ring.VerbRemove || i.Verb == ring.VerbReplace) && slices.Contains(waiting, i.Node) {
			return fmt.Sprintf("%s is given up for lost", i.Node.Short())
		}
	}
	return ""
}

// propose opens a change, once what is wanted has settled.
func (d *Driver) propose(v *View) *ring.Entry {
	if len(v.Wanting) == 0 && len(v.State.Intents()) == 0 && len(v.State.Lost()) == 0 || !d.settled(v.Now) {
		return nil
	}
	plan := d.planOf(v)
	if plan == nil {
		return nil
	}
	if len(plan.Void) > 0 {
		return cancel(plan.Void[0].Intent)
	}
	for _, id := range plan.Removed {
		// It was given up for lost, and is not.
		at := slices.IndexFunc(v.State.Intents(), func(i *ring.IntentRecord) bool {
			return i.Node == id && (i.Verb == ring.VerbRemove || i.Verb == ring.VerbReplace)
		})
		if at >= 0 && v.alive(id) {
			return cancel(v.State.Intents()[at])
		}
	}
	if !d.opts.AutoApply || plan.Layout == nil {
		return nil
	}
	for _, n := range plan.Layout.Nodes() {
		// A replacement that was turned away before may be gone.
		if _, had := v.State.Layout().Node(n.ID); !had && !v.alive(n.ID) && !slices.Contains(v.Wanting, n) {
			return nil
		}
	}
	return ProposeEntry(v.State, plan)
}

// planOf makes a plan once for each state and what is wanted.
func (d *Driver) planOf(v *View) *ring.Plan {
	var b bytes.Buffer
	for _, n := range v.Wanting {
		fmt.Fprintf(&b, "%s %s %s %d\n", n.ID, n.Name, n.Zone, n.Capacity)
	}
	if key := (planKey{v.State, b.String()}); key != d.planFor {
		d.planFor = key
		d.plan, d.planErr = v.State.Plan(v.Wanting)
	}
	return d.plan
}

// ProposeEntry is the entry that opens the change of a plan made from s.
func ProposeEntry(s *ring.State, p *ring.Plan) *ring.Entry {
	return &ring.Entry{Kind: ring.KindPropose, Propose: &ring.Propose{
		Parent: s.Layout().Version(), Layout: p.Layout, Removed: p.Removed, Closes: p.Closes, Factors: p.Factors,
	}}
}
