package causal

import "time"

// MaxTTL is the longest time that a value may be asked to live: 100 years. It
// keeps every instant that comes of one within what the formats can say.
const MaxTTL = 100 * 365 * 24 * time.Hour

// maxInstant is the last millisecond of the year 9999, in Unix milliseconds.
const maxInstant = 253402300799999

// ExpiryKind says how a client says when a value expires.
type ExpiryKind uint8

// The kinds of expiry. They travel between nodes.
const (
	ExpiryNever ExpiryKind = 0
	ExpiryAfter ExpiryKind = 1
	ExpiryAt    ExpiryKind = 2
	// ExpiryUnclear is what was said in two ways, or in none that can be read. It
	// is never valid.
	ExpiryUnclear ExpiryKind = 255
)

// Expiry is when a value is to expire, as its client said it. The zero Expiry is
// never. Only its minter makes an instant of it, once; the instant is stored.
type Expiry struct {
	Kind ExpiryKind
	// Millis is a span for ExpiryAfter and an instant in Unix milliseconds for
	// ExpiryAt.
	Millis int64
}

// ExpiresAfter says that a value lives for ttl from when it is minted. What is
// less than a millisecond is cut off.
func ExpiresAfter(ttl time.Duration) Expiry { return Expiry{ExpiryAfter, ttl.Milliseconds()} }

// ExpiresAt says that a value lives until t. What is less than a millisecond is
// cut off.
func ExpiresAt(t time.Time) Expiry { return Expiry{ExpiryAt, t.UnixMilli()} }

// Valid reports whether the expiry can be kept: a span of 1 ms to MaxTTL, or an
// instant from 1970 to the end of the year 9999, past ones included.
func (e Expiry) Valid() bool {
	switch e.Kind {
	case ExpiryNever:
		return e.Millis == 0
	case ExpiryAfter:
		return e.Millis >= 1 && e.Millis <= MaxTTL.Milliseconds()
	case ExpiryAt:
		return e.Millis >= 0 && e.Millis <= maxInstant
	default:
		return false
	}
}

// Instant returns when a value expires that is minted at now, in Unix
// milliseconds, and whether it ever does.
func (e Expiry) Instant(now time.Time) (ms int64, ok bool) {
	switch e.Kind {
	case ExpiryAfter:
		return now.UnixMilli() + e.Millis, true
	case ExpiryAt:
		return e.Millis, true
	default:
		return 0, false
	}
}
