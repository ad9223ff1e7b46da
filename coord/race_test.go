//go:build race

package coord_test

// The simulation is one goroutine: under the race detector a few seeds do.
const defaultSeeds = 4
