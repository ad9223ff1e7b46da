package coord

import (
	"fmt"
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
)

// TestStrippedTravels: whoever gets the error of a merge that left something out knows
// it from others, here and after it has travelled.
func TestStrippedTravels(t *testing.T) {
	for _, err := range []error{ErrStripped, fmt.Errorf("merge: %w", ErrStripped)} {
		r := Reply{Status: StatusError, Body: EncodeError(asError(err))}
		if !IsStripped(err) || !r.Stripped() {
			t.Errorf("%v is not recognised", err)
		}
		if _, e, untouched := refused(&r, nil); untouched || e.Outcome != errcode.Indeterminate {
			t.Errorf("%v says that nothing was done", err)
		}
	}
	other := &Error{Code: errcode.Unavailable, Outcome: errcode.Indeterminate, Message: "the disk of this node does not answer"}
	r := Reply{Status: StatusError, Body: EncodeError(other)}
	if IsStripped(other) || r.Stripped() || IsStripped(nil) || (&Reply{Status: StatusOK}).Stripped() {
		t.Error("something else is taken for it")
	}
}
