package ringmodel

// play runs a schedule: faults, and then peace, in which all has to come right.
func (w *world) play() {
	for w.step = 1; w.step <= w.prof.steps && len(w.found) == 0; w.step++ {
		w.oneStep()
	}
	if len(w.found) == 0 {
		w.heal()
	}
}

func (w *world) oneStep() {
	p := w.prof
	if f := w.n(10000); f < p.crash+p.loseDisk+p.cut+p.pause {
		w.fault(f)
		return
	}
	for _, n := range w.nodes {
		if !n.up && w.n(120) == 0 {
			w.restart(n)
		}
	}
	if w.cutUntil > 0 && w.step > w.cutUntil {
		w.cut, w.cutUntil = [maxIDs]mask{}, 0
	}
	n := w.someone()
	if n == nil {
		return
	}
	x := w.n(p.ops + p.gossip + p.drive + p.fetch + p.clean + p.round + p.sweep + p.replay + p.persist + p.deliver)
	take := func(weight int) bool { x -= weight; return x < 0 }
	switch {
	case take(p.ops):
		w.someOperation(n)
	case take(p.gossip):
		if m := w.someone(); m != n && w.linked(n.id, m.id) {
			w.gossip(n, m, false)
		}
	case take(p.drive):
		w.drive(n)
	case take(p.fetch):
		w.fetch(n)
	case take(p.clean):
		w.cleanUp(n)
	case take(p.round):
		w.beginRound(n)
	case take(p.sweep):
		w.sweep(n)
	case take(p.replay):
		w.replayHints(n)
	case take(p.persist):
		w.persist(n)
	default:
		w.deliverOne()
	}
}

// someOperation begins one, or has one of too many give up.
func (w *world) someOperation(n *node) {
	open := w.ops[:0]
	for _, op := range w.ops {
		if !op.done {
			open = append(open, op)
		}
	}
	w.ops = open
	if len(open) < 6 {
		w.startOperation(n)
	} else if op := open[w.n(len(open))]; w.alive(op.at) {
		w.giveUp(op)
	}
}

// heal ends all faults. The ring has to come to rest, and then all that must be known
// has to be there.
func (w *world) heal() {
	w.trace("--- faults end")
	w.healing = true
	w.cut = [maxIDs]mask{}
	for _, n := range w.nodes {
		n.asleepUntil = 0
		w.restart(n)
	}
	for _, op := range w.ops {
		w.giveUp(op)
	}
	for _, m := range w.msgs {
		m.hold = 0
	}
	quiet := 0
	for turn := 0; turn < 260 && quiet <= 3 && len(w.found) == 0; turn++ {
		w.step++
		w.healTurn()
		if quiet++; !w.calm() {
			quiet = 0
		}
	}
	switch {
	case len(w.found) > 0:
	case quiet <= 3:
		w.stuck()
	default:
		w.checkEnd()
	}
}

func (w *world) healTurn() {
	live := w.allAlive()
	for range 2 {
		for _, a := range live.list() {
			w.gossip(w.nodes[a], w.nodes[w.pick(live)], true)
		}
	}
	for _, a := range live.list() {
		n := w.nodes[a]
		w.persist(n)
		for range units * 3 {
			w.fetch(n)
		}
		w.cleanUp(n)
		w.replayHints(n)
		if w.n(live.n()) == 0 {
			w.drive(n)
		}
		if w.n(live.n()) == 0 {
			w.beginRound(n)
		}
		w.sweep(n)
	}
	for k := 0; k < 2000 && len(w.msgs) > 0; k++ {
		w.deliverOne()
	}
}

// calm says whether nothing is left to be done.
func (w *world) calm() bool {
	v := w.last()
	if v.state.Change() != nil || len(w.msgs) > 0 || v.nodes&w.lostDisks() != 0 && v.nodes.n() > 1 {
		return false
	}
	for _, n := range w.nodes {
		if n.lost || v.retired.has(n.id) {
			continue
		}
		if n.durable < len(w.views)-1 || len(n.hints) > 0 {
			return false
		}
		for t := range tenants {
			if v.deleted(t) && !n.forgot[t] {
				return false
			}
		}
		for u := range n.holds {
			if n.holds[u] && !v.at[u].deleted && !v.at[u].w1.has(n.id) {
				return false
			}
		}
	}
	return true
}

func (w *world) stuck() {
	why, v := "it does not come to rest", w.last()
	switch c := v.state.Change(); {
	case c != nil:
		why = "a change stays " + c.Stage.String()
	case v.nodes&w.lostDisks() != 0:
		why = "a lost node cannot be replaced"
	}
	w.fail("stuck: "+why, "v%d, voters %v", v.state.Version(), maskOf(v.state.Voters()).list())
}
