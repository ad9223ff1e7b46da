// Package bad reaches around every seam. Each line that a comment wants a
// finding on has to get it.
package bad

import (
	"context"
	crand "crypto/rand"
	"maps"
	"math/rand"
	randv2 "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	. "time"
)

type clock struct{ now func() Time }

func realTime(ctx context.Context) {
	_ = Now()                                   // want "time.Now"
	_ = clock{now: Now}                         // want "time.Now"
	_ = Since(Time{})                           // want "time.Since"
	_ = Until(Time{})                           // want "time.Until"
	Sleep(1)                                    // want "time.Sleep"
	<-After(1)                                  // want "time.After"
	AfterFunc(1, nil)                           // want "time.AfterFunc"
	_ = Tick(1)                                 // want "time.Tick"
	_ = NewTimer(1)                             // want "time.NewTimer"
	_ = NewTicker(1)                            // want "time.NewTicker"
	_, cancel := context.WithTimeout(ctx, 1)    // want "context.WithTimeout"
	_, stop := context.WithDeadline(ctx, Now()) // want "context.WithDeadline" "time.Now"
	context.AfterFunc(ctx, cancel)              // want "context.AfterFunc"
	stop()
}

func machine() {
	_, _ = os.ReadFile("x")   // want "os.ReadFile"
	_ = os.ErrNotExist        // want "os.ErrNotExist"
	var f *os.File            // want "os.File"
	_ = f.Close()             // the type above is enough
	_ = exec.Command("x")     // want "os/exec.Command"
	_ = syscall.Getpid()      // want "syscall.Getpid"
	_, _ = net.Dial("x", "y") // want "net.Dial"
	_, _ = http.Get("x")      // want "net/http.Get"
}

func randomness() {
	_ = rand.Int()         // want "math/rand.Int"
	rand.Shuffle(1, nil)   // want "math/rand.Shuffle"
	_ = randv2.N(5)        // want "math/rand/v2.N"
	_, _ = crand.Read(nil) // want "crypto/rand.Read"
	_ = crand.Reader       // want "crypto/rand.Reader"
	_ = randv2.New(randv2.NewPCG(1, 2)).Int()
}

func goroutines(wg *sync.WaitGroup) {
	go machine()   // want "starts a goroutine"
	wg.Go(machine) // want "starts a goroutine"
}

type set map[string]int

func order(m map[string]int, s set, sm *sync.Map) (out []string) {
	for k := range m { // want "ranges over a map"
		out = append(out, k)
	}
	for _, n := range s { // want "ranges over a map"
		_ = n
	}
	//seams:ordered
	for k := range m { // want "has to say why"
		_ = k
	}
	sm.Range(nil)                 // want "ranges over a map"
	for k := range maps.Keys(m) { // want "random order"
		out = append(out, k)
	}
	out = slices.Collect(maps.Keys(m)) // want "random order"
	keys := maps.Keys(m)               // want "random order"
	return slices.Sorted(keys)
}

//seams:ordered nothing is ranged over here // want "stands where no map"
func nothing() {}
