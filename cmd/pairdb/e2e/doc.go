// Package e2e holds the tests that run the real binary: real processes on
// loopback or in network namespaces of their own, real files, real kill -9. It
// has no code of its own beside them.
//
// Much of what they do is waiting, so those that hold no time against a bound of
// a few seconds, and compare no cost, run two at a time, by t.Parallel.
//
// Whatever they wait for has a limit, and so has each test: see limits_test.go.
package e2e
