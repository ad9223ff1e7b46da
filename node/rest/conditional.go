package rest

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/pairdb/pairdb/coord/causal"
)

// expiryHeader says in answers of the raw-bytes route when the value expires.
const expiryHeader = "X-PairDB-Expires-At"

// jsonExpiry are the fields of the JSON route that say when a value expires.
type jsonExpiry struct {
	TTLSeconds *json.Number `json:"ttl_seconds"`
	ExpiresAt  *string      `json:"expires_at"`
}

// expiry reads them.
func (e *jsonExpiry) expiry() (causal.Expiry, error) {
	switch {
	case e.TTLSeconds != nil && e.ExpiresAt != nil:
		return causal.Expiry{}, invalidf("fields ttl_seconds and expires_at: give one of them")
	case e.TTLSeconds != nil:
		return seconds("field ttl_seconds", e.TTLSeconds.String())
	case e.ExpiresAt != nil:
		at, err := time.Parse(time.RFC3339Nano, *e.ExpiresAt)
		if err != nil {
			return causal.Expiry{}, invalidf("field expires_at is %q; write an instant as in 2027-01-31T12:00:00Z", *e.ExpiresAt)
		}
		return causal.ExpiresAt(at), nil
	}
	return causal.Expiry{}, nil
}

// seconds reads a time to live from a number of seconds.
func seconds(name, text string) (causal.Expiry, error) {
	s, err := strconv.ParseFloat(text, 64)
	// 1.001 times 1000 is a little less than 1001.
	if ms := math.Floor(s*1000 + 0.0005); err == nil && ms >= 1 && ms <= float64(causal.MaxTTL.Milliseconds()) {
		return causal.Expiry{Kind: causal.ExpiryAfter, Millis: int64(ms)}, nil
	}
	return causal.Expiry{}, invalidf("%s is %q; it is a number of seconds, from 0.001 to %d", name, text, int64(causal.MaxTTL.Seconds()))
}

// ttlOf reads the query parameter ttl: a duration, or a number of seconds.
func ttlOf(values []string) (causal.Expiry, error) {
	if len(values) == 0 {
		return causal.Expiry{}, nil
	}
	d, err := time.ParseDuration(values[0])
	if err != nil {
		return seconds("ttl", values[0])
	}
	if e := causal.ExpiresAfter(d); e.Valid() {
		return e, nil
	}
	return causal.Expiry{}, invalidf("ttl is %q; a value lives for 1ms to 100 years", values[0])
}

// expiryText shows when a sibling expires, "" for never.
func expiryText(s *causal.Sibling) string {
	if at, ok := s.Expiry(); ok {
		return at.Format(time.RFC3339Nano)
	}
	return ""
}

// preconditions are what the headers of a write ask of what there is.
type preconditions struct {
	absent bool
	dot    causal.Dot
}

// preconditionsOf reads If-None-Match and If-Match of a write. A condition that is
// not looked at would be a write against it, so what is not known is refused.
func preconditionsOf(r *http.Request) (preconditions, error) {
	var p preconditions
	for _, name := range []string{"If-Modified-Since", "If-Unmodified-Since", "Content-Range"} {
		if r.Header.Get(name) != "" {
			return p, invalidf("%s is not supported for %s; use If-Match with the ETag of an answer", name, r.Method)
		}
	}
	none, match := r.Header.Values("If-None-Match"), r.Header.Values("If-Match")
	switch {
	case len(none) > 0 && len(match) > 0:
		return p, invalidf("If-None-Match and If-Match exclude one another")
	case len(none) > 0 && (len(none) > 1 || none[0] != "*" || r.Method != http.MethodPut):
		return p, invalidf("If-None-Match is %q; for a write it is * with PUT, which writes only if there is no value", strings.Join(none, ", "))
	case len(none) > 0:
		p.absent = true
	case len(match) > 0:
		dot, ok := taggedDot(match)
		if !ok {
			return p, invalidf("If-Match is %q; it is the one ETag that a 200 had, in its quotes; to replace several values send their %s", strings.Join(match, ", "), contextHeader)
		}
		p.dot = dot
	}
	return p, nil
}

// taggedDot reads the entity tag of one value.
func taggedDot(values []string) (d causal.Dot, ok bool) {
	if len(values) != 1 {
		return d, false
	}
	text, quoted := strings.CutPrefix(values[0], `"`)
	text, ended := strings.CutSuffix(text, `"`)
	actor, counter, found := strings.Cut(text, "-")
	if !quoted || !ended || !found || len(actor) != 16 {
		return d, false
	}
	var err error
	if d.Actor, err = strconv.ParseUint(actor, 16, 64); err != nil {
		return d, false
	}
	if d.Counter, err = strconv.ParseUint(counter, 10, 64); err != nil {
		return d, false
	}
	// Every other spelling is the tag of nothing.
	return d, d.Counter > 0 && dotName(d) == text
}
