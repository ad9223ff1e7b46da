//go:build race

package rest

import "net/http"

// documented holds no answer against the document: who checks it has nothing to do
// with goroutines, and needs a hundred packages, which would all be built once more
// for the race detector. Without it every answer is held against it.
func (*fixture) documented(*http.Request, string, *http.Response) error { return nil }
