package coord

import (
	"context"
	"testing"
)

// TestLateHoldDoesNotPanic: a hold taken after Close has returned is a mistake,
// which must not take the process down.
func TestLateHoldDoesNotPanic(t *testing.T) {
	c := &Coordinator{}
	c.drained = make(chan struct{})
	if err := c.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	c.hold(1)
	c.leave()
	if err := c.Close(context.Background()); err != nil {
		t.Error(err)
	}
}
