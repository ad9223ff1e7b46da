package node

import "context"

// whenever does something at once, and again after each change until ctx ends. It gets the
// channel of the next change before it does it: what changes meanwhile, or while this
// goroutine stands still, is not missed.
func whenever(ctx context.Context, changed func() <-chan struct{}, do func()) {
	for {
		next := changed()
		do()
		select {
		case <-next:
		case <-ctx.Done():
			return
		}
	}
}
