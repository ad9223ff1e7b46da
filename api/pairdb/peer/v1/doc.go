// Package peerv1 is what nodes say to each other: the frame streams of the data
// path (service Peer) and the metadata calls (service Meta), generated from
// peer.proto. Payloads are opaque here; package node/rpc and package gossip
// encode them.
package peerv1
