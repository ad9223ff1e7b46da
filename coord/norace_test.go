//go:build !race

package coord_test

const defaultSeeds = 60
