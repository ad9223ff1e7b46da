//go:build !race

package ringmodel

const defaultSeeds = 300
