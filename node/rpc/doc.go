// Package rpc is a node's gRPC edge, in three parts.
//
// Peers carries messages to other nodes: one link a peer, a stream a lane,
// items gathered into frames while the last frame is being sent. It implements
// coord.Transport. MetaClient makes the few unary calls between nodes.
//
// Server serves what both of them call on the peer listener, and on the client
// listener the services KV, Tenants, Cluster, health and reflection. It decodes,
// hands over, and maps errors; it decides nothing about data.
//
// DESIGN.md says why it is built as it is.
package rpc
