// Package client is the Go SDK of PairDB. Whoever imports it compiles the wire
// contract and gRPC, and no storage engine.
//
//	c, err := client.New(client.Options{Endpoints: []string{"127.0.0.1:50051"}})
//	if err != nil { ... }
//	defer c.Close()
//	_, err = c.Put(ctx, "greeting", []byte("hello"))
//	got, err := c.Get(ctx, "greeting")
//
// # Keys, values, contexts
//
// A key is a string of 1 to MaxKeySize bytes, any bytes; a value has 0 to
// MaxValueSize bytes. Every answer carries a Context, which says what it has
// seen; a write that hands it back supersedes exactly that.
//
// # Many at once
//
// Batch makes up to a thousand writes and MultiGet reads as many keys in one call,
// with a result for each. A Pipeline has a thousand single requests in flight on
// one stream. Both cost a fraction of as many calls, and none of them is a
// transaction.
//
// A Batcher makes batches of puts that goroutines make at the same time. Import
// stores any number of items from an iterator that way: in the order of each key,
// with bounds on what is in flight, and knowing where to go on when it is stopped.
//
// Scan returns a Scanner over the keys with a prefix or in a range, which goes on
// at another endpoint when one is lost.
//
// # Failures
//
// Every error of a call is an *Error. Its Code says why, its Outcome what
// happened to a write. Sentinels match it by code:
//
//	if errors.Is(err, client.ErrKeyNotFound) { ... }
//
// # Failover
//
// A call about a key begins at an owner of the key, if one is known and
// connected; which those are a Client asks after its first few calls. Every
// other call begins at the endpoint that worked last. It tries each endpoint at
// most once. It moves on when that cannot double an effect:
//
//   - always when the request never left this process;
//   - for a read, when the endpoint is unavailable, does not answer within its
//     share of the time, or cannot serve the key;
//   - for a write, only when the node said that the write was not applied, or
//     as for a read if it has an idempotency key and a level above LevelOne. A
//     Batch is such a write if all its writes are.
//
// If none of them could serve it, a call whose error is marked as worth a retry
// begins again after a pause, up to Options.Retries times, under the same rules:
// the pause is the one the node asks for, or one that doubles. All calls of a
// Client together repeat at most one in ten, and ten more, so that a cluster in
// trouble does not get every request several times. Import repeats by itself,
// instead: see there.
//
// Any other write that may have been applied is never sent again by this
// package: it fails with Indeterminate as its outcome, and the caller decides.
package client
