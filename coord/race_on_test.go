//go:build race

package coord

// raceEnabled says that pools lose what they hold, on purpose.
const raceEnabled = true
