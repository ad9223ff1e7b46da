//go:build !race

package gossip

// damageFlips is how many bytes of each file TestDamagedStore flips.
const damageFlips = 8
