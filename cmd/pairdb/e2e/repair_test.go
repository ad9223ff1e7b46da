package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"
)

// repaired is what `pairdb repair --wait -o json` says.
type repaired struct {
	Spans        int     `json:"spans"`
	Confirmed    int     `json:"confirmed"`
	KeysDiffered int     `json:"keys_differed"`
	RowsSent     int     `json:"rows_sent"`
	Bytes        int     `json:"bytes"`
	Seconds      float64 `json:"seconds"`
}

func (r repaired) String() string {
	return fmt.Sprintf("%d of %d spans have equal owners, %d keys differed, %d rows of %d bytes sent, %.1f s", r.Confirmed, r.Spans, r.KeysDiffered, r.RowsSent, r.Bytes, r.Seconds)
}

// repair has all nodes compare everything, and waits until all owners are equal. A
// round that began before a node was back does not count for it, so it may take another.
func (c *cluster) repair() (r repaired) {
	c.t.Helper()
	for try := range 5 {
		if try > 0 {
			<-time.After(2 * time.Second) // one that was started just now is connected to again by then
		}
		out := runFor(c.t, 10*time.Minute, nil, "repair", "--wait", "--timeout", "30s", "--endpoint", c.agents[0].addr.GRPC, "-o", "json")
		r = repaired{}
		if err := json.Unmarshal([]byte(out.stdout), &r); err != nil {
			c.t.Fatalf("repair: exit %d, %v: %s%s", out.code, err, out.stdout, out.stderr)
		}
		if out.code == 0 {
			if r.Spans == 0 || r.Confirmed != r.Spans {
				c.t.Errorf("repair ends with exit code 0 and %s", r)
			}
			return r
		}
		c.t.Logf("repaired again, because: %s%s", r, out.stderr)
	}
	c.t.Fatalf("not everything could be repaired: %s", r)
	return r
}

// total is the sum of a metric over all nodes.
func (c *cluster) total(name string, want ...string) (sum float64) {
	c.t.Helper()
	for _, a := range c.agents {
		sum += metricOf(c.t, a, name, want...)
	}
	return sum
}

// durationFrom is what an environment variable says, or otherwise def.
func durationFrom(t *testing.T, name string, def time.Duration) time.Duration {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return def
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < def {
		t.Fatalf("%s=%s is no duration of at least %s", name, v, def)
	}
	return d
}
