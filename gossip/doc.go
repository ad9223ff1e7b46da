// Package gossip keeps this node's view of the cluster converging with that of
// its peers, and publishes it as immutable snapshots: who is there (memberlist,
// for liveness and digests only), what the log says (package meta, over the
// peers' Meta service), and how a cluster is founded. See DESIGN.md.
package gossip
