package repair

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/coord"
)

// bubble is the clock and the scheduler of fibers in a bubble.
type bubble struct{}

func (bubble) Now() time.Time                                  { return time.Now() }
func (bubble) AfterFunc(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }
func (bubble) Go(_ string, f func())                           { go f() }

var _ coord.Clock = bubble{}

// TestEachIsOverWhenItReturns: what is run for each has ended when each returns, also if
// the fibers are closed meanwhile: its caller looks at what that has changed.
func TestEachIsOverWhenItReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := &fibers{clock: bubble{}, sched: bubble{}}
		const n = 8
		var ended [n]bool // written by each without a lock, read after it
		ok, over := true, 0
		fs.spawn("parent", func(fb *fiber) {
			ok = fb.each(n, n, func(child *fiber, i int) {
				child.sleep(time.Minute)
				ended[i] = true
			})
			for _, e := range ended {
				if e {
					over++
				}
			}
		})
		time.Sleep(time.Second)
		<-fs.close()
		if ok || over != n {
			t.Errorf("each returned %v when %d of %d had ended", ok, over, n)
		}
	})
}
