package main

import (
	"math"
	"testing"
)

func TestCollectorLeavesTheEngineItsMemory(t *testing.T) {
	const mib = 1 << 20
	for name, tc := range map[string]struct {
		limit           memoryLimit
		cache, memtable int64
		want            int64
	}{
		"container":     {memoryLimit{400 * mib, 400 * mib, "cgroup"}, 100 * mib, 25 * mib, 225 * mib},
		"large engine":  {memoryLimit{400 * mib, 400 * mib, "cgroup"}, 300 * mib, 64 * mib, 100 * mib},
		"user's limit":  {memoryLimit{300 * mib, 300 * mib, "GOMEMLIMIT"}, 75 * mib, 18 * mib, 300 * mib},
		"laxer user":    {memoryLimit{800 * mib, 980 * mib, "cgroup"}, 75 * mib, 18 * mib, 980 * mib},
		"nothing known": {memoryLimit{math.MaxInt64, math.MaxInt64, ""}, 256 * mib, 64 * mib, math.MaxInt64},
	} {
		if got := tc.limit.collected(tc.cache, tc.memtable); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}

func TestDecideMemory(t *testing.T) {
	const mib = 1 << 20
	for name, tc := range map[string]struct {
		cgroup, machine uint64
		set             bool
		goLimit         int64
		want            memoryLimit
	}{
		"container":            {512 * mib, 8192 * mib, false, math.MaxInt64, memoryLimit{328 * mib, 328 * mib, "cgroup"}},
		"small container":      {256 * mib, 8192 * mib, false, math.MaxInt64, memoryLimit{128 * mib, 128 * mib, "cgroup"}},
		"machine":              {0, 1000 * mib, false, math.MaxInt64, memoryLimit{800 * mib, 800 * mib, "machine"}},
		"limit beyond machine": {8000 * mib, 1000 * mib, false, math.MaxInt64, memoryLimit{800 * mib, 800 * mib, "machine"}},
		"nothing known":        {0, 0, false, math.MaxInt64, memoryLimit{math.MaxInt64, math.MaxInt64, ""}},
		"huge":                 {math.MaxUint64, 0, false, math.MaxInt64, memoryLimit{math.MaxInt64 / 100 * 80, math.MaxInt64 / 100 * 80, "cgroup"}},
		"user is stricter":     {1000 * mib, 8000 * mib, true, 300 * mib, memoryLimit{300 * mib, 300 * mib, "GOMEMLIMIT"}},
		"user is laxer":        {1000 * mib, 8000 * mib, true, 980 * mib, memoryLimit{800 * mib, 980 * mib, "cgroup"}},
		"user says off":        {1000 * mib, 8000 * mib, true, math.MaxInt64, memoryLimit{800 * mib, math.MaxInt64, "cgroup"}},
	} {
		if got := decideMemory(tc.cgroup, tc.machine, tc.set, tc.goLimit); got != tc.want {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
	}
}

func TestGCPercent(t *testing.T) {
	const mib = 1 << 20
	for name, tc := range map[string]struct {
		goLimit int64
		want    int
	}{
		"container of 512 MiB": {230 * mib, 100},
		"nearly room":          {1024*mib - 1, 100},
		"room":                 {1024 * mib, 400},
		"large machine":        {64 << 30, 400},
		// Nothing would stop it then.
		"no limit": {math.MaxInt64, 100},
	} {
		if got := gcPercent(tc.goLimit); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}
