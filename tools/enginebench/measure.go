package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Result is what one phase cost. Times of operations are in microseconds, CPU is
// that of the whole process until background work had settled.
type Result struct {
	Engine  string
	Phase   string
	Threads int
	Keys    uint64
	Value   int // bytes

	Ops                 uint64
	OpsPerSec           float64
	P50, P99, P999, Max float64
	CPU                 float64 // an operation

	WriteAmp float64 // bytes written to the disk for each of keys and values
	SpaceAmp float64 // bytes of files for each of keys and values in the data set
	DiskMB   float64
	Settle   float64 // seconds until flushes and compactions were over: the debt
	RSSMB    float64
	Absent   uint64 // reads that found nothing
}

func (r *Result) String() string {
	return fmt.Sprintf("%-9s %-6s v=%d %10.0f op/s p50 %.1f p99 %.1f p999 %.1f max %.0f us cpu %.2f us/op wa %.2f sa %.2f disk %.0f MB settle %.1f s rss %.0f MB absent %d",
		r.Engine, r.Phase, r.Value, r.OpsPerSec, r.P50, r.P99, r.P999, r.Max, r.CPU, r.WriteAmp, r.SpaceAmp, r.DiskMB, r.Settle, r.RSSMB, r.Absent)
}

// cpuTime returns the microseconds of processor time this process has used.
func cpuTime() (float64, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e3, nil
}

// procField returns the number behind key in a file of /proc.
func procField(file, key string) (float64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			return strconv.ParseFloat(strings.Fields(rest)[0], 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", file, key)
}

// diskUse returns the bytes of the blocks that the files below dir take.
func diskUse(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if os.IsNotExist(err) {
			return nil // a compaction removed it
		}
		if err != nil {
			return err
		}
		sum += info.Sys().(*syscall.Stat_t).Blocks * 512
		return nil
	})
	return sum, err
}

// usage is what the process has used so far.
type usage struct{ cpu, written float64 }

func readUsage() (usage, error) {
	c, err := cpuTime()
	if err != nil {
		return usage{}, err
	}
	w, err := procField("/proc/self/io", "write_bytes:")
	return usage{c, w}, err
}
