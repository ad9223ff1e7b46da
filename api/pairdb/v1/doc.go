// Package pairdbv1 is the client's contract: the services KV, Tenants,
// Cluster and Admin, generated from the .proto files beside it. What a field means, its
// unit and its limit stand in those files; which errors there are stands in
// package errcode.
package pairdbv1
