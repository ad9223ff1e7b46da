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
// Client together repeat at most one in ten, and ten more, and go on to another
// endpoint at most as often as calls succeed, and a hundred times more, not
// counting endpoints that could not be reached: so that a cluster in trouble does
// not get every request several times. A Batch, and what a Batcher sends, is a call;
// the stream of a Pipeline, with all that is on it, is one; Import repeats its
// items by itself: see there.
//
// Any other write that may have been applied is never sent again by this
// package: it fails with Indeterminate as its outcome, and the caller decides.
//
// # Slow, silent and failing nodes
//
// A Client watches how each node does with gets, MultiGets, writes and batches. It
// sends calls to others first if the node
//
//   - hesitates: calls wait, and no answer came for twice what 99 % of its calls take,
//     at least 50 ms. It is as good as the others again with any answer;
//   - is silent: calls wait, and no answer came for four times what 99 % of its
//     calls take, from 750 ms to 5 s. Probes ask it whether it is there, one at a time
//     and at most four a second, and then one call whether it answers;
//   - is slow: half of its calls take four times as long as at the others, and
//     20 ms longer;
//   - is failing: it said five times in a row that it cannot serve. It and a slow one
//     get one call each 500 ms.
//
// It is used again once such a call fares as elsewhere. What is avoided is asked
// last, and never left out. While this process does not run, nothing is held
// against a node. Reads, and writes with an idempotency key above LevelOne, that wait
// at a node when it is found to be silent go on to the next one; any other write
// waits for its answer until the deadline. Options.NoNodeHealth turns this off.
//
// A Get or MultiGet that takes longer than 99 % of them do at the node that would
// come next, 100 ms as long as that is not known, is sent there as well; the first
// answer wins and the other request is cancelled. One read in twenty may be, and
// fifty more. Writes, scans and what is on a Pipeline never are.
// Options.NoHedging turns this off.
//
// # Overload
//
// When a cluster refuses calls of a tenant with RATE_LIMITED, RESOURCE_EXHAUSTED or,
// at all endpoints, UNAVAILABLE, a Client sends about twice as many as are taken,
// one in ten at the least, and lets the others fail at once with ErrThrottled: see
// Google's "Site Reliability Engineering", chapter 21, "Client-Side Throttling".
// That begins with the eleventh refusal and ends about 5 s after the overload. A call
// that was refused here had no effect. Options.NoThrottling turns this off.
//
// A thousand calls may be under way on each connection, those beyond wait for their
// turn until their deadlines.
//
// Client.Stats counts all of it.
package client
