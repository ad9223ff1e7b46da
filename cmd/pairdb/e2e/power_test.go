package e2e

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pairdb/pairdb/engine/kerneltest"
)

// TestPowerCutsUnderANode cuts the power of the disk below a node that clients
// write to: started again on what is left, it has every write that it
// acknowledged.
func TestPowerCutsUnderANode(t *testing.T) {
	t.Parallel()
	disk := kerneltest.Mount(t, 512<<20)
	c := startClusterOn(t, []string{disk.Dir})
	a := c.agents[0]
	l := startLoad(t, c.endpoints(), 8)
	failed := func() (n int) {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, times := range l.fails {
			n += times
		}
		return n
	}
	for range 3 {
		acks := 200 + rand.Int64N(2000)
		t.Logf("cut after %d acknowledgements", acks)
		l.waitAcks(l.acks.Load() + acks)
		before := failed()
		l.power()
		if err := disk.Cut(); err != nil {
			t.Fatal(err)
		}
		if err := poll(time.Minute, func() (bool, error) { return failed() > before+8, nil }); err != nil {
			t.Errorf("writes do not fail without power: %v", err)
		}
		a.kill()
		l.power()
		disk.PowerOn(t)
		a.start()
		a.waitHealthy(time.Minute)
	}
	l.waitAcks(l.acks.Load() + 100)
	l.end()
	l.verify(c.client(0))
}

// TestPowerCutAfterAStart cuts the power as soon as the node tells which start it
// is: the next start is another, since each was on the disk before it was told.
func TestPowerCutAfterAStart(t *testing.T) {
	disk := kerneltest.Mount(t, 512<<20)
	c := startClusterOn(t, []string{disk.Dir})
	a := c.agents[0]
	last := uint64(0)
	for range 4 {
		st, err := c.client(0).Status(t.Context())
		if err != nil || len(st.GetNodes()) != 1 {
			t.Fatalf("status %v, %v", st, err)
		}
		if err := disk.Cut(); err != nil {
			t.Fatal(err)
		}
		if now := st.GetNodes()[0].GetIncarnation(); now <= last {
			t.Errorf("a start says that it is number %d, and one before was %d", now, last)
		} else {
			last = now
		}
		a.kill()
		disk.PowerOn(t)
		a.start()
		a.waitHealthy(time.Minute)
	}
}
