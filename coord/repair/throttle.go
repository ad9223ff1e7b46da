package repair

import (
	"sync"
	"time"
)

// bucket bounds bytes a second. It may be overdrawn by whatever is taken at once:
// whoever comes next waits for that.
type bucket struct {
	rate, burst int64 // bytes a second, bytes

	mu struct {
		sync.Mutex
		left int64
		at   time.Time
	}
}

func newBucket(rate int64, now time.Time) *bucket {
	b := &bucket{rate: rate, burst: max(rate/4, 64<<10)}
	b.mu.left, b.mu.at = b.burst, now
	return b
}

// take takes n bytes and returns how long to wait before they may be used.
func (b *bucket) take(n int64, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if d := now.Sub(b.mu.at); d > 0 {
		// More than fills it counts no further, and must not overflow.
		d = min(d, time.Minute)
		b.mu.left = min(b.burst, b.mu.left+int64(d.Seconds()*float64(b.rate)))
		b.mu.at = now
	}
	b.mu.left -= n
	if b.mu.left >= 0 {
		return 0
	}
	return time.Duration(float64(-b.mu.left) / float64(b.rate) * float64(time.Second))
}

// room bounds the bytes of objects that are held at once. One that is larger than
// all of it is let in alone.
type room struct {
	size int64

	mu struct {
		sync.Mutex
		used  int64
		queue []waiting // in the order in which they came
	}
}

type waiting struct {
	n  int64
	in func()
}

// enter calls in once there is room for n bytes, which leave gives back.
func (r *room) enter(n int64, in func()) {
	r.mu.Lock()
	if len(r.mu.queue) > 0 || r.mu.used > 0 && r.mu.used+n > r.size {
		r.mu.queue = append(r.mu.queue, waiting{n, in})
		r.mu.Unlock()
		return
	}
	r.mu.used += n
	r.mu.Unlock()
	in()
}

func (r *room) leave(n int64) {
	r.mu.Lock()
	r.mu.used -= n
	var let []func()
	for len(r.mu.queue) > 0 && (r.mu.used == 0 || r.mu.used+r.mu.queue[0].n <= r.size) {
		r.mu.used += r.mu.queue[0].n
		let = append(let, r.mu.queue[0].in)
		r.mu.queue = r.mu.queue[1:]
	}
	r.mu.Unlock()
	for _, in := range let {
		in()
	}
}
