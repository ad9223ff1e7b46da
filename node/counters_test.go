package node

import (
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestCallsAreCountedByMethodAndCode(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := newCounters(reg)
	methods := []string{"KV.Get", "KV.Put", "KV.Delete", "Tenants.List"}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 100 {
				c.rpc(methods[i%len(methods)], "OK", time.Millisecond)
				c.rpc(methods[i%len(methods)], "TIMEOUT", time.Second)
			}
		})
	}
	wg.Wait()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := 0
	for _, f := range families {
		if f.GetName() != "pairdb_rpc_duration_seconds" {
			continue
		}
		for _, m := range f.GetMetric() {
			series++
			if got := m.GetHistogram().GetSampleCount(); got != 100 {
				t.Errorf("%s: %d calls, want 100", m, got)
			}
		}
	}
	if want := 2 * len(methods); series != want {
		t.Errorf("%d series, want %d", series, want)
	}
}

func TestCallThatWentWellAllocatesNothing(t *testing.T) {
	c := newCounters(prometheus.NewRegistry())
	method := "KV.Get"
	if n := testing.AllocsPerRun(100, func() { c.rpc(method, "OK", time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
