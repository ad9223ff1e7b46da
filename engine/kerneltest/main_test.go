package kerneltest_test

import (
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"
)

// driverEnv makes this test binary the driver: its value says what to do.
const driverEnv = "PAIRDB_KERNELTEST_DRIVER"

// The driver's main goroutine stays on the main thread: strace counts calls by
// thread.
func init() {
	if os.Getenv(driverEnv) != "" {
		runtime.LockOSThread()
	}
}

func TestMain(m *testing.M) {
	if job := os.Getenv(driverEnv); job != "" {
		if err := drive(job); err != nil {
			say("fail %v", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// startSeed returns the seed of PAIRDB_SEED, or a new one.
func startSeed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("PAIRDB_SEED")
	if text == "" {
		return uint64(time.Now().UnixNano())
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return seed
}
