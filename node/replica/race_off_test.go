//go:build !race

package replica

// raceEnabled says that pools lose what they hold, on purpose.
const raceEnabled = false
