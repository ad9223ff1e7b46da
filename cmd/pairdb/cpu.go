package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clockTick is the unit of CPU time in /proc/PID/stat. Linux shows it to user
// space as 1/100 s on every platform that Go runs on.
const clockTick = time.Second / 100

// readCPU adds up the CPU time that processes have used so far, in user space
// and in the kernel.
func readCPU(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			return 0, fmt.Errorf("read the CPU time of --pid %d: %w", pid, err)
		}
		cpu, err := parseStat(string(b))
		if err != nil {
			return 0, fmt.Errorf("read the CPU time of --pid %d: %w", pid, err)
		}
		sum += cpu
	}
	return sum, nil
}

// parseStat reads utime and stime, the 14th and 15th field. The second is the
// program's name in parentheses, which may hold anything, so that fields are
// counted from the last parenthesis.
func parseStat(stat string) (time.Duration, error) {
	end := strings.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, errors.New("stat has no program name")
	}
	fields := strings.Fields(stat[end+1:])
	const utime, stime = 14 - 3, 15 - 3
	if len(fields) <= stime {
		return 0, fmt.Errorf("stat has %d fields after the name", len(fields))
	}
	var ticks uint64
	for _, i := range []int{utime, stime} {
		n, err := strconv.ParseUint(fields[i], 10, 62)
		if err != nil {
			return 0, fmt.Errorf("stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

// ownCPU is the CPU time this process has used so far.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0 // cannot fail for RUSAGE_SELF
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
