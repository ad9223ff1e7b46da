// Package api holds the wire contract: the .proto files, the code generated
// from them, and the table of error codes. It has no logic of its own.
//
// Generate again after a change to a .proto file:
//
//	go generate ./api
package api

//go:generate go -C .. run ./tools/gen
