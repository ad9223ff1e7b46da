//go:build race

package gossip

// damageFlips is how many bytes of each file TestDamagedStore flips. Under the race
// detector fewer do: the goroutines are those of Badger, the same each time.
const damageFlips = 2
