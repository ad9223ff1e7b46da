// Package ring says who owns what: node, cluster and partition identities, the
// token of a key, the immutable layout that maps partitions to owners, and the
// voted log whose entries change it. Everything in it is pure: no clocks, no
// files, no sockets, no goroutines, so that the same inputs give the same
// answers on every node and in every replay.
//
// See DESIGN.md beside this file for the invariants.
package ring
