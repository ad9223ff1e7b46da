package ringmodel

// profile is what a schedule is made of.
type profile struct {
	name                   string
	minNodes, maxNodes     int // there are, and at most in a layout
	minStart, maxStart     int // in the first layout
	steps, maxLog          int
	factors, one           bool // the second tenant has some RF; writes at ONE
	change, abort          int  // percent and per mille of chances to
	refactor               int  // percent of changes change replication factors
	loss, slow, slowFor    int  // percent, percent, steps
	hints, deletes, skew   int  // percent, percent, steps
	logGossip, blind, ones int  // percent, percent, of 3
	power                  int  // of 12 crashes take many nodes down
	crash, loseDisk        int  // of 10,000 steps
	cut, pause             int
	ops, gossip, drive     int // weights
	fetch, clean, round    int
	sweep, replay, persist int
	deliver                int
}

// profiles are the kinds of schedules, in the order of seeds: seed s is of kind
// s modulo their number.
func profiles() []profile {
	kind := func(name string, change func(p *profile)) profile {
		p := profile{
			name: name, minNodes: 5, maxNodes: 7, minStart: 3, maxStart: 5, steps: 1800, maxLog: 28, factors: true, one: true,
			change: 25, refactor: 30, abort: 15, loss: 4, slow: 6, slowFor: 400, hints: 50, power: 1, logGossip: 50, ones: 1, deletes: 20,
			crash: 40, loseDisk: 8, cut: 30, pause: 40,
			ops: 6, gossip: 14, drive: 8, fetch: 10, clean: 5, round: 2, sweep: 2, replay: 2, deliver: 90, persist: 8,
		}
		change(&p)
		return p
	}
	quiet := func(p *profile) { p.crash, p.loseDisk, p.cut, p.loss = 4, 1, 3, 1 }
	regain := func(p *profile) { // a few nodes lose and regain the same ranges
		quiet(p)
		p.minNodes, p.maxNodes, p.minStart, p.maxStart = 4, 6, 4, 5
		p.factors, p.maxLog, p.change, p.abort, p.steps = false, 62, 90, 10, 2600
		p.gossip, p.drive, p.fetch, p.clean, p.deliver, p.pause = 24, 20, 20, 14, 160, 6
	}
	return []profile{
		kind("mixed", func(*profile) {}),
		kind("calm", func(p *profile) { p.crash, p.loseDisk, p.cut, p.pause, p.loss = 0, 0, 0, 0, 1 }),
		kind("grow", func(p *profile) { p.minStart, p.maxStart, p.change = 1, 2, 40 }),
		kind("shrink", func(p *profile) { p.minStart, p.maxStart, p.change, p.one = 4, 6, 40, false }),
		kind("sleepers", func(p *profile) { p.pause, p.slow, p.slowFor, p.gossip = 200, 15, 700, 10 }),
		kind("votes", func(p *profile) {
			p.ops, p.drive, p.crash, p.loss, p.abort, p.change, p.cut = 2, 25, 150, 15, 80, 60, 60
		}),
		kind("collect", func(p *profile) {
			p.deletes, p.round, p.sweep, p.clean, p.pause, p.hints, p.change = 55, 24, 12, 8, 80, 80, 15
		}),
		kind("aborts", func(p *profile) { p.abort, p.change = 200, 60 }),
		kind("blind", func(p *profile) {
			p.blind = 70
			p.skew, p.ops, p.deletes, p.slow, p.loss, p.round, p.change = 400, 12, 5, 25, 10, 0, 10
		}),
		kind("cuts", func(p *profile) { p.cut, p.crash = 120, 20 }),
		kind("regain", regain),
		kind("regain and collect", func(p *profile) { // with messages that come very late
			regain(p)
			p.change, p.abort, p.clean, p.pause = 40, 60, 10, 40
			p.deletes, p.round, p.sweep, p.ops, p.slow, p.slowFor, p.hints, p.replay = 55, 20, 16, 4, 8, 1500, 70, 1
		}),
		kind("stale", func(p *profile) { // news of the log spreads badly
			quiet(p)
			p.minNodes, p.maxNodes, p.minStart, p.maxStart = 6, 7, 5, 7
			p.logGossip, p.loss, p.steps = 6, 0, 2600
			p.gossip, p.drive, p.fetch, p.persist, p.ops, p.deliver, p.change, p.pause = 16, 30, 30, 2, 20, 200, 80, 10
		}),
		kind("ones", func(p *profile) { // the only copy of a write is at a node that loses, regains, aborts
			regain(p)
			p.change, p.abort, p.ones, p.clean, p.pause = 80, 120, 3, 2, 60
			p.slow, p.slowFor, p.loss, p.hints, p.round, p.sweep, p.deletes = 10, 900, 12, 10, 8, 10, 35
		}),
		kind("factors", func(p *profile) { // replication factors go up and down all the time
			regain(p)
			p.factors, p.refactor, p.change, p.abort, p.ops, p.round, p.sweep, p.ones = true, 90, 60, 60, 10, 10, 8, 2
			p.minNodes, p.maxNodes = 5, 7
			p.slow, p.slowFor, p.loss, p.deletes, p.crash, p.clean, p.pause = 8, 900, 6, 35, 20, 6, 30
		}),
		kind("factors and collect", func(p *profile) { // few changes of them, with rounds between
			quiet(p)
			p.refactor, p.change, p.abort, p.clean, p.pause, p.steps = 85, 20, 40, 12, 40, 3000
			p.minStart, p.deletes, p.round, p.sweep, p.slow, p.slowFor, p.hints, p.replay, p.loss = 5, 55, 26, 14, 8, 1500, 70, 1, 8
			p.gossip, p.drive, p.fetch, p.deliver = 20, 16, 20, 150
		}),
		kind("power", func(p *profile) {
			quiet(p)
			p.crash, p.power, p.persist, p.gossip, p.drive, p.fetch, p.change = 80, 6, 1, 10, 20, 20, 80
		}),
	}
}

// schedule makes the schedule of a seed.
func schedule(seed uint64, off ruleSet) *world {
	all := profiles()
	return newWorld(newChance(seed), off, &all[seed%uint64(len(all))])
}
