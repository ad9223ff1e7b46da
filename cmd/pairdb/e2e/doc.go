// Package e2e holds the tests that run the real binary: real processes on
// loopback or in network namespaces of their own, real files, real kill -9. It
// has no code of its own beside them.
package e2e
