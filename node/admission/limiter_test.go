package admission

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func bounds() Bounds { return Bounds{Floor: 8, Ceiling: 64, Queue: 4, Wait: time.Second} }

// fill lets operations in until the limit is reached.
func fill(t *testing.T, l *Limiter) []Token {
	t.Helper()
	var all []Token
	for {
		tok, ok := l.TryAcquire(1)
		if !ok {
			return all
		}
		all = append(all, tok)
	}
}

// TestQueueIsBounded: as many wait as may, in the order in which they came, and
// one more is refused at once.
func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(bounds())
		in := fill(t, l)
		if len(in) != 8 {
			t.Fatalf("%d are under way, want the floor, 8", len(in))
		}
		got, keep := make(chan int, 8), make(chan struct{})
		for i := range 4 {
			go func() {
				tok, reason, ok := l.Acquire(t.Context(), 1, 0)
				if !ok {
					t.Errorf("the %d-th that waits was refused: %v", i, reason)
				}
				got <- i
				<-keep
				tok.Release()
			}()
			synctest.Wait()
		}
		if s := l.Stats(); s.Waiting != 4 || s.UnderWay != 8 {
			t.Fatalf("%d wait, %d are under way; want 4 and 8", s.Waiting, s.UnderWay)
		}
		began := time.Now()
		if _, reason, ok := l.Acquire(t.Context(), 1, 0); ok || reason != QueueFull {
			t.Errorf("with a full queue: %v, %v", reason, ok)
		}
		if reason, yes := l.Refuses(0); !yes || reason != QueueFull {
			t.Errorf("asked before: %v, %v", reason, yes)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("a refusal took %v", took)
		}
		for i, tok := range in {
			tok.Release()
			synctest.Wait()
			if i < 4 {
				if first := <-got; first != i {
					t.Errorf("the %d-th to come was the %d-th to be let in", first, i)
				}
			}
		}
		close(keep)
		synctest.Wait()
		if s := l.Stats(); s.Waiting != 0 || s.UnderWay != 0 || s.Refused[QueueFull] != 2 {
			t.Errorf("afterwards: %+v", s)
		}
	})
}

// TestWaitIsBounded: by the setting, by who asked, and by a deadline, which is
// looked at first.
func TestWaitIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(bounds())
		in := fill(t, l)
		for _, tc := range []struct {
			name   string
			cancel time.Duration
			left   time.Duration
			want   Reason
			after  time.Duration
		}{
			{"by the setting", time.Hour, 0, Waited, time.Second},
			{"by who asked", 300 * time.Millisecond, 0, Gone, 300 * time.Millisecond},
			{"by the deadline", time.Hour, 200 * time.Millisecond, Waited, 200 * time.Millisecond},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), tc.cancel)
			began := time.Now()
			_, reason, ok := l.Acquire(ctx, 1, tc.left)
			if took := time.Since(began); ok || reason != tc.want || took != tc.after {
				t.Errorf("%s: %v %v after %v, want %v after %v", tc.name, ok, reason, took, tc.want, tc.after)
			}
			cancel()
		}
		// Once it is known how long an operation takes, a deadline that cannot be met
		// is refused at once, with a queue and without one.
		l.mu.law.now = float64(100 * time.Millisecond)
		l.service.Store(int64(100 * time.Millisecond))
		began := time.Now()
		if _, reason, ok := l.Acquire(t.Context(), 1, 90*time.Millisecond); ok || reason != Deadline {
			t.Errorf("too late to wait: %v %v", ok, reason)
		}
		in[0].Release()
		if _, reason, ok := l.Acquire(t.Context(), 1, 40*time.Millisecond); ok || reason != Deadline {
			t.Errorf("too late at all: %v %v", ok, reason)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("refusing took %v", took)
		}
		if tok, reason, ok := l.Acquire(t.Context(), 1, 90*time.Millisecond); !ok {
			t.Errorf("in time: %v", reason)
		} else {
			tok.Release()
		}
	})
}

// TestHeavyOnesGetTheirTurn: one that counts more than there is room for waits at
// the head of the queue, and those behind it do not overtake; one that counts more
// than the limit goes alone.
func TestHeavyOnesGetTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bounds()
		b.Queue = 100
		l := NewLimiter(b)
		in := fill(t, l)
		var order []string
		var wg sync.WaitGroup
		for _, w := range []struct {
			name   string
			weight int
		}{{"heavy", 1000}, {"light", 1}} {
			wg.Go(func() {
				tok, reason, ok := l.Acquire(t.Context(), w.weight, 0)
				if !ok {
					t.Errorf("%s: %v", w.name, reason)
				}
				order = append(order, w.name) // one at a time: the first fills the limit
				time.Sleep(time.Millisecond)
				tok.Release()
			})
			synctest.Wait()
		}
		for _, tok := range in {
			tok.Release()
			synctest.Wait()
		}
		wg.Wait()
		if len(order) != 2 || order[0] != "heavy" {
			t.Errorf("let in: %v", order)
		}
		if s := l.Stats(); s.UnderWay != 0 || s.Waiting != 0 {
			t.Errorf("afterwards: %+v", s)
		}
	})
}

// TestHeavyOnesBelowTheFloor: while the limit is below the floor, one that counts
// more than the limit goes alone instead of keeping all others out, and if there are
// only such the limit comes back all the same.
func TestHeavyOnesBelowTheFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bounds()
		b.Wait = time.Minute
		l := NewLimiter(b)
		l.mu.law.limit, l.mu.law.now, l.mu.law.rest = 2, float64(2*time.Second), float64(time.Millisecond)
		l.limit.Store(2)
		var wg sync.WaitGroup
		light, ok := l.TryAcquire(1)
		if !ok {
			t.Fatal("a light one was refused")
		}
		for _, w := range []int{3, 1} {
			wg.Go(func() {
				tok, reason, ok := l.Acquire(t.Context(), w, 0)
				if !ok {
					t.Errorf("one of weight %d was refused: %v", w, reason)
				}
				tok.Release()
			})
			synctest.Wait()
		}
		if s := l.Stats(); s.Waiting != 4 || s.UnderWay != 1 {
			t.Errorf("beside another: %+v", s)
		}
		light.Release()
		wg.Wait()
		for range 1000 {
			tok, reason, ok := l.Acquire(t.Context(), 1000, 0)
			if !ok {
				t.Fatalf("refused: %v", reason)
			}
			time.Sleep(10 * time.Millisecond)
			tok.Release()
		}
		if s := l.Stats(); s.Limit < 8 || s.UnderWay != 0 || s.Waiting != 0 {
			t.Errorf("after 10 s of heavy ones that take 10 ms each: %+v, want the floor, 8", s)
		}
	})
}

// TestInvariants: whatever comes, those under way and those that wait stay within
// their bounds, nobody is forgotten, and in the end nobody is left.
func TestInvariants(t *testing.T) {
	b := Bounds{Floor: 8, Ceiling: 16, Queue: 16, Wait: 2 * time.Millisecond}
	l := NewLimiter(b)
	var most, let, refused atomic.Int64
	var wg sync.WaitGroup
	for worker := range 32 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(worker)))
			for range 400 {
				w := 1 + r.IntN(4)
				tok, reason, ok := l.Acquire(context.Background(), w, 0)
				if s := l.Stats(); s.Waiting > int64(b.Queue) {
					t.Errorf("%d wait, at most %d may", s.Waiting, b.Queue)
				}
				if !ok {
					if reason != QueueFull && reason != Waited {
						t.Errorf("refused: %v", reason)
					}
					refused.Add(1)
					continue
				}
				let.Add(1)
				n := most.Add(int64(w))
				if limit := int64(b.Ceiling); n > limit {
					t.Errorf("%d are under way, at most %d may", n, limit)
				}
				most.Add(-int64(w))
				tok.Release()
			}
		})
	}
	wg.Wait()
	s := l.Stats()
	if s.UnderWay != 0 || s.Waiting != 0 || len(l.mu.queue) != 0 {
		t.Errorf("afterwards: %+v and %d in the queue", s, len(l.mu.queue))
	}
	if sum := let.Load() + refused.Load(); sum != 32*400 || let.Load() == 0 {
		t.Errorf("%d let in and %d refused of %d", let.Load(), refused.Load(), 32*400)
	}
}

// TestAdmissionAllocatesNothing while there is room.
func TestAdmissionAllocatesNothing(t *testing.T) {
	l := NewLimiter(bounds())
	if n := testing.AllocsPerRun(1000, func() {
		tok, _ := l.TryAcquire(1)
		tok.Release()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkAdmission is what an operation pays that is let in at once.
func BenchmarkAdmission(b *testing.B) {
	for _, parallel := range []bool{false, true} {
		name := "alone"
		if parallel {
			name = "parallel"
		}
		b.Run(name, func(b *testing.B) {
			l := NewLimiter(Bounds{Floor: 512, Ceiling: 8192, Queue: 512, Wait: time.Second})
			b.ReportAllocs()
			if !parallel {
				for b.Loop() {
					tok, _ := l.TryAcquire(1)
					tok.Release()
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					tok, _ := l.TryAcquire(1)
					tok.Release()
				}
			})
		})
	}
}
