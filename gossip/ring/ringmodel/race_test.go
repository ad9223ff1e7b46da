//go:build race

package ringmodel

// A schedule is one goroutine: under the race detector a few seeds do.
const defaultSeeds = 20
