package client

import "context"

// Future is the answer to a request of a Pipeline, once it is there. It is safe
// for concurrent use.
type Future[R any] struct {
	done chan struct{}
	r    R
	err  error
}

// Done is closed when the answer is there.
func (f *Future[R]) Done() <-chan struct{} { return f.done }

// Wait returns the answer or an *Error, or ctx's error if ctx ends first: the
// request then goes on.
func (f *Future[R]) Wait(ctx context.Context) (R, error) {
	select {
	case <-f.done:
		return f.r, f.err
	default:
	}
	select {
	case <-f.done:
		return f.r, f.err
	case <-ctx.Done():
		var none R
		return none, ctx.Err()
	}
}

func newFuture[R any]() *Future[R] { return &Future[R]{done: make(chan struct{})} }

func (f *Future[R]) settle(r R, err error) {
	f.r, f.err = r, err
	close(f.done)
}

// failed is a Future that has failed already.
func failed[R any](err error) *Future[R] {
	f := newFuture[R]()
	var none R
	f.settle(none, err)
	return f
}
