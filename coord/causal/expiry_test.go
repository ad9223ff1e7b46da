package causal

import (
	"math"
	"testing"
	"time"
)

func TestExpiry(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_123)
	for name, c := range map[string]struct {
		e     Expiry
		valid bool
		want  int64
	}{
		"never":            {Expiry{}, true, 0},
		"never, and a day": {Expiry{ExpiryNever, 5}, false, 0},
		"a millisecond":    {ExpiresAfter(time.Millisecond), true, 1_700_000_000_124},
		"what is cut off":  {ExpiresAfter(2*time.Millisecond - 1), true, 1_700_000_000_124},
		"too short":        {ExpiresAfter(time.Millisecond - 1), false, 1_700_000_000_123},
		"nothing":          {ExpiresAfter(0), false, 1_700_000_000_123},
		"backwards":        {ExpiresAfter(-time.Hour), false, 1_699_996_400_123},
		"the longest":      {ExpiresAfter(MaxTTL), true, 1_700_000_000_123 + MaxTTL.Milliseconds()},
		"too long":         {ExpiresAfter(MaxTTL + time.Millisecond), false, 1_700_000_000_124 + MaxTTL.Milliseconds()},
		"at an instant":    {ExpiresAt(now.Add(time.Hour)), true, 1_700_003_600_123},
		"in the past":      {ExpiresAt(time.UnixMilli(7)), true, 7},
		"before 1970":      {ExpiresAt(time.UnixMilli(-1)), false, -1},
		"the last instant": {ExpiresAt(time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC)), true, maxInstant},
		"after all":        {ExpiresAt(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)), false, maxInstant + 1},
		"of the future":    {Expiry{9, 5}, false, 0},
		"unclear":          {Expiry{ExpiryUnclear, 5}, false, 0},
	} {
		got, ok := c.e.Instant(now)
		if c.e.Valid() != c.valid || got != c.want || ok != (c.e.Kind == ExpiryAfter || c.e.Kind == ExpiryAt) {
			t.Errorf("%s: valid %v, at %d %v", name, c.e.Valid(), got, ok)
		}
	}
	if ms, _ := ExpiresAfter(MaxTTL).Instant(time.UnixMilli(maxInstant)); ms < maxInstant || ms == math.MaxInt64 {
		t.Error("the longest life overflows")
	}
}

// TestLiveIsAboutOneInstant: a value is there until its instant, and no digest or
// join depends on what time it is.
func TestLiveIsAboutOneInstant(t *testing.T) {
	s := Sibling{Dot: Dot{1, 1}, Flags: FlagExpiry, ExpiresAt: 1000, Value: []byte("v")}
	if !s.Live(time.UnixMilli(999)) || s.Live(time.UnixMilli(1000)) {
		t.Error("the instant itself is not past")
	}
	if at, ok := s.Expiry(); !ok || at.UnixMilli() != 1000 || at.Location() != time.UTC {
		t.Errorf("expires at %v, %v", at, ok)
	}
	s.Flags = 0
	if at, ok := s.Expiry(); ok || !at.IsZero() || !s.Live(time.UnixMilli(1000)) {
		t.Errorf("a value for ever expires at %v", at)
	}
	gone := Sibling{Dot: Dot{1, 1}, Flags: FlagTombstone}
	if gone.Live(time.UnixMilli(0)) {
		t.Error("a tombstone lives")
	}
}

func TestObjectExpires(t *testing.T) {
	never, ever := Sibling{Dot: Dot{1, 1}, ExpiresAt: 7}, Sibling{Dot: Dot{2, 1}, Flags: FlagExpiry}
	for name, tc := range map[string]struct {
		siblings []Sibling
		want     bool
	}{
		"nothing":  {nil, false},
		"never":    {[]Sibling{never}, false},
		"the last": {[]Sibling{never, ever}, true},
	} {
		if o := (Object{Siblings: tc.siblings}); o.Expires() != tc.want {
			t.Errorf("%s: %v, want %v", name, !tc.want, tc.want)
		}
	}
}
