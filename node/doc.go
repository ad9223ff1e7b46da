// Package node builds one PairDB process from its parts and runs it: engine,
// replica store, gossip, coordinator and the edges, in that order, and in
// reverse on the way out. It decides nothing about data; it is the only place
// that knows all of them.
package node
