package main

// clientBugs are those of the SDK.
var clientBugs = []bug{
	{
		"in the SDK, never use a node again that was silent", "client/health.go",
		"	case answered:\n		v.turn(fine)\n", "	case answered && false:\n		v.turn(fine)\n", "client", "^TestBackWithinSeconds$",
	},
	{
		"in the SDK, blame the nodes for a pause of its own", "client/watch.go",
		"return min(now.Sub(last), 2*lookEach)", "return now.Sub(last)", "client", "^TestOwnPause$",
	},
	{
		"in the SDK, hedge writes that have an idempotency key", "client/hedge.go",
		"k == reads && (cl == getClass || cl == multiGetClass)", "true", "client", "^TestWritesAreNotHedged$",
	},
	{
		"in the SDK, hedge whatever was hedged before", "client/hedge.go",
		"if !c.hedges.spend() {", "if false {", "client", "^TestHedgesHaveABudget$",
	},
	{
		"in the SDK, refuse nearly all once all was refused", "client/throttle.go",
		"random >= min(p, throttleMost)", "random >= p", "client", "^TestThrottle$",
	},
}
