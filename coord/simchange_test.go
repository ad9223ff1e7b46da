package coord_test

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// ringStart is how the cluster of a seed begins.
type ringStart struct {
	// nodes is how many found it, and most how many there may be in the end.
	nodes, most int
	// rf are the replication factors of its tenants.
	rf [2]int
	// loses says that disks may be lost: every write is on enough others then.
	loses bool
	// owners are those of all partitions, "" to place them.
	owners string
}

// simJoiners is how many may join in a run.
const simJoiners = 5

func drawStart(seed uint64) ringStart {
	rng := rand.New(rand.NewPCG(seed, 7))
	r := ringStart{nodes: 1 + rng.IntN(5)}
	for i := range r.rf {
		r.rf[i] = 1 + rng.IntN(5)
	}
	if rng.IntN(3) == 0 {
		r.loses, r.nodes = true, max(r.nodes, 3)
		for i := range r.rf {
			r.rf[i] = max(r.rf[i], 3)
		}
	}
	r.most = r.nodes + simJoiners
	return r
}

// newRingWorld makes a cluster with a log.
func newRingWorld(seed uint64, start ringStart, b bench) *world {
	w := makeWorld(seed, start.most, 3, b.newDisk)
	w.planted, w.writeTimeout, w.roundEach = b.planted, simWriteTimeout, 2*simRoundEach
	l := &simLog{w: w, states: []*ring.State{{}}, weights: map[ring.NodeID]uint32{}}
	w.chosen, w.gone = l, map[string]*schema.Tenant{}
	l.planned = rand.New(rand.NewPCG(seed, 8)).IntN(2) == 0
	var founders []ring.LayoutNode
	for _, n := range w.nodes[:start.nodes] {
		founders = append(founders, ring.LayoutNode{ID: n.id, Name: n.name, Zone: "z" + n.name, Capacity: 1})
	}
	layout := placedAnew(1, founders)
	if start.owners != "" {
		layout = ownedBy(1, layout, start.owners)
	}
	l.choose(nil, &ring.Entry{Kind: ring.KindFound, Found: &ring.Found{
		ClusterID: ring.ClusterID{9}, ClusterName: "simulation", Founder: founders[0].ID, Layout: layout, TokenKeyID: 1,
	}})
	for i, name := range []string{simTenant, simKeeper} {
		policy := []schema.ConflictPolicy{schema.PolicyLWW, schema.PolicySiblings}[i]
		l.choose(nil, &ring.Entry{Kind: ring.KindTenantCreate, Tenant: &ring.TenantCreate{Name: name, RF: uint8(start.rf[i]), Policy: uint8(policy)}})
	}
	w.layout = l.last().Layout()
	for _, n := range w.nodes {
		n.member, n.mends = &simMember{}, true
	}
	for _, n := range w.nodes[:start.nodes] {
		n.member.durable = l.last().Version()
	}
	for _, n := range w.nodes[:start.nodes] {
		n.boot()
	}
	return w
}

// drawChanges draws what happens to the layout, and to who has to carry it on. They have
// a source of their own and come last, so that the numbers of the others stay.
func drawChanges(rng *rand.Rand, start ringStart, until time.Duration) (all []fault) {
	joins := 0
	// Some seeds grow, some shrink, and some do what they do soon after one another.
	pace := time.Duration(500+rng.IntN(4500)) * time.Millisecond
	often := map[int]int{faultJoin: rng.IntN(5), faultLeave: rng.IntN(4), faultWeigh: rng.IntN(2), faultReorder: rng.IntN(3), faultAbort: rng.IntN(3), faultPause: rng.IntN(3), faultDeaf: rng.IntN(3)}
	if start.loses {
		often[faultLoss] = 2
	}
	var kinds []int
	for kind := faultCrash; kind <= faultDeaf; kind++ {
		for range often[kind] {
			kinds = append(kinds, kind)
		}
	}
	if len(kinds) == 0 {
		kinds = []int{faultJoin, faultLeave}
	}
	for at := time.Duration(0); at < until; {
		at += time.Duration(rng.Int64N(int64(pace)))
		f := fault{
			at: at, kind: kinds[rng.IntN(len(kinds))], node: rng.IntN(start.most), peer: rng.IntN(start.most), delay: time.Duration(1+rng.IntN(4)) * time.Second,
			length: time.Duration(2000+rng.IntN(10000)) * time.Millisecond,
		}
		switch f.kind {
		case faultJoin, faultLoss:
			if joins == simJoiners {
				continue
			}
			f.peer = start.nodes + joins // who joins
			joins++
		}
		if f.at < until {
			all = append(all, f)
		}
	}
	return all
}

// changeString says what a change is.
func (f fault) changeString() string {
	a, b := nodeName(f.node), nodeName(f.peer)
	switch f.kind {
	case faultJoin:
		return b + " joins"
	case faultLeave:
		return a + " leaves"
	case faultLoss:
		return a + " is lost, and " + b + " comes in its place"
	case faultWeigh:
		return fmt.Sprintf("%s has the weight %d", a, f.weight())
	case faultReorder:
		return "owners are put into another order"
	case faultAbort:
		return "a change is given up"
	case faultFactor, faultTenant:
		return f.tenantString()
	default:
		return a + " hears no gossip"
	}
}

func (f fault) weight() uint32 { return uint32(f.delay/time.Second) + 1 }

// strikeRing makes a fault of the ring happen.
func (s *simulation) strikeRing(f fault) {
	w, l := s.w, s.w.chosen
	if f.kind == faultFactor || f.kind == faultTenant {
		s.strikeTenants(f)
		return
	}
	n, p := w.nodes[f.node], w.nodes[f.peer]
	_, in := l.last().Layout().Node(n.id)
	switch f.kind {
	case faultJoin:
		s.join(p)
	case faultLeave:
		if least := 1 + 2*btoi(drawStart(w.seed).loses); in && len(l.last().Layout().Nodes())-len(l.leaves) > least {
			s.done["leaves"]++
			l.leaves = append(l.leaves, n.id)
		}
	case faultLoss:
		if in && n.up && s.mayLose() {
			s.done["disks lost"]++
			n.member.gone, n.member.lost = true, true
			n.crash(w.rand(n.name), wipeDisk)
			s.join(p)
		}
	case faultWeigh:
		if in {
			l.weights[n.id] = f.weight()
		}
	case faultReorder:
		l.reorder = true
	case faultAbort:
		l.aborts++
	case faultDeaf:
		s.done["deaf"]++
		n.member.deaf = w.now + f.length
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// join starts a node that is to be a member.
func (s *simulation) join(n *simNode) {
	if n.start == 0 {
		s.done["joins"]++
		n.boot()
	}
}

// mayLose says whether no acknowledged write is lost with one more disk: every partition
// has as many owners as it should, and none of them is lost already.
func (s *simulation) mayLose() bool {
	l := s.w.chosen
	layouts := []*ring.Layout{l.last().Layout()}
	if c := l.last().Change(); c != nil {
		layouts = append(layouts, c.Next)
	}
	for _, layout := range layouts {
		if len(layout.Nodes()) < 3 {
			return false
		}
		for _, n := range layout.Nodes() {
			if s.w.nodes[n.ID[0]-1].member.lost {
				return false
			}
		}
	}
	return true
}
