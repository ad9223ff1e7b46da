package client

import (
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
)

const (
	// throttleTimes is K of the rule below: how many times what the cluster takes
	// it is asked for at most.
	throttleTimes = 2
	// throttleSlack is how many refusals nobody is refused for.
	throttleSlack = 10
	// throttleMost is the largest share that is refused here, so that the end of an
	// overload is noticed soon: with the memory of throttleMemory, after which a
	// call counts for 37 %, nearly all calls pass again about 5 s after it.
	throttleMost   = 0.9
	throttleMemory = 1500 * time.Millisecond
	// throttleStep is how exactly that is computed.
	throttleStep = 10 * time.Millisecond
	// maxThrottled bounds the tenants that have a throttle of their own. Others
	// share one.
	maxThrottled = 64
)

// throttle refuses calls that the cluster would refuse, so that refusing them
// costs the cluster nothing. It is the adaptive throttling of B. Beyer et al.,
// "Site Reliability Engineering", chapter 21, "Client-Side Throttling": a call is
// refused with the probability max(0, (asked - K*taken) / (asked + 1)), asked
// being the calls that the program made lately, those refused here included, and
// taken those that the cluster did not refuse. It differs in that the memory fades
// and does not end after two minutes, in the slack, and in that the probability has
// a limit: a program that comes back to a cluster that has recovered is not kept
// out.
//
// Nothing is counted before the first refusal, so that calls of a cluster that
// takes them cost one atomic load.
type throttle struct {
	on atomic.Bool // there was a refusal lately

	mu struct {
		sync.Mutex
		asked, taken float64
		at           time.Time // of these
		code         errcode.Code
	}
}

// admit says whether a call may be sent, given a random number from 0 to 1, and
// the code of the last refusal.
func (t *throttle) admit(now time.Time, random float64) (bool, errcode.Code) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fadeLocked(now)
	p := (t.mu.asked - throttleTimes*t.mu.taken - throttleSlack) / (t.mu.asked + 1)
	t.mu.asked++
	return random >= min(p, throttleMost), t.mu.code
}

// note counts a call that the cluster answered. code is that of a refusal, empty
// for any other answer.
func (t *throttle) note(now time.Time, code errcode.Code) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fadeLocked(now)
	if code == "" {
		t.mu.taken++
		return
	}
	if !t.on.Load() {
		t.mu.asked, t.mu.taken, t.mu.at = 1, 0, now
		t.on.Store(true)
	}
	t.mu.code = code
}

// fadeLocked forgets as time passes, and all once it is little.
func (t *throttle) fadeLocked(now time.Time) {
	passed := now.Sub(t.mu.at)
	if passed < throttleStep {
		return
	}
	keep := math.Exp(-float64(passed) / float64(throttleMemory))
	t.mu.asked, t.mu.taken, t.mu.at = t.mu.asked*keep, t.mu.taken*keep, now
	if t.mu.asked-t.mu.taken < 0.5 {
		t.on.Store(false)
	}
}

// throttles has the throttle of each tenant: what is refused to one may be free to
// another.
type throttles struct {
	first  throttle // of the client's own tenant
	others sync.Map // tenant to *throttle
	number atomic.Int64
	rest   throttle // of tenants beyond maxThrottled
}

// of returns a tenant's throttle.
func (t *throttles) of(tenant, own string) *throttle {
	if tenant == own {
		return &t.first
	}
	if got, ok := t.others.Load(tenant); ok {
		return got.(*throttle)
	}
	if t.number.Load() >= maxThrottled {
		return &t.rest
	}
	got, loaded := t.others.LoadOrStore(tenant, new(throttle))
	if !loaded {
		t.number.Add(1)
	}
	return got.(*throttle)
}

// refusal is the code of an error that says that there is too much to do, empty
// for other errors: a call that is made later may be taken.
func refusal(e *Error) errcode.Code {
	switch {
	case e == nil:
	case e.Code == errcode.RateLimited, e.Code == errcode.ResourceExhausted, e.Code == errcode.Unavailable && e.answered:
		return e.Code
	}
	return ""
}

// admit refuses a call of a tenant if the cluster would.
func (c *Client) admit(op string, k kind, tenant string) *Error {
	if tenant == "" || c.opts.NoThrottling {
		return nil
	}
	t := c.throttles.of(tenant, c.opts.Tenant)
	if !t.on.Load() {
		return nil
	}
	ok, code := t.admit(time.Now(), rand.Float64())
	if ok {
		return nil
	}
	c.counters.throttled.Add(1)
	e := localError(op, k, code, "the cluster lately refused most calls of the tenant %s, and this one was not sent", tenant)
	e.Err = ErrThrottled
	return e
}

// noteRefusal notes an answer to a tenant's call: the code of a refusal, empty for
// any other answer.
func (c *Client) noteRefusal(tenant string, code errcode.Code) {
	if tenant == "" || c.opts.NoThrottling {
		return
	}
	t := c.throttles.of(tenant, c.opts.Tenant)
	if code == "" && !t.on.Load() {
		return
	}
	t.note(time.Now(), code)
}

// noteItems is noteRefusal for several requests that were made in one call: it was
// refused if half of them were.
func noteItems[R any](c *Client, tenant string, results []R, errOf func(*R) error) {
	refused := 0
	var last errcode.Code
	for i := range results {
		if e, ok := errOf(&results[i]).(*Error); ok && refusal(e) != "" {
			refused++
			last = e.Code
		}
	}
	if 2*refused < len(results) {
		last = ""
	}
	c.noteRefusal(tenant, last)
}
