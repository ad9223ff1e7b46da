//go:build race

package engine

// raceEnabled thins out the long enumerations, which run on one goroutine and
// gain nothing from the race detector but its cost.
const raceEnabled = true
