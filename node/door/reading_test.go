package door

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// TestLargeReadsWaitForOneAnother: on a connection whose answers are large, only so
// many are being made that they fit; before the first answer there are a few, and
// small ones are bounded by their number alone.
func TestLargeReadsWaitForOneAnother(t *testing.T) {
	const budget = 1 << 30 // 64 MiB may be being read for one connection
	synctest.Test(t, func(t *testing.T) {
		d := New(Options{Max: 4, MaxPerAddress: 4, Stall: time.Second, Rate: 1, Budget: budget})
		mine, theirs := net.Pipe()
		defer theirs.Close()
		h := newHall()
		l := d.Listener(h, nil)
		go func() { h.conns <- from{mine, "10.0.0.1:1"} }()
		raw, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c := raw.(*Conn)
		defer c.Close()
		begin := func(want bool) Reading {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			r, err := c.Begin(ctx)
			if (err == nil) != want {
				t.Fatalf("a read began: %v, want %v", err, want)
			}
			return r
		}
		var under []Reading
		for range firstReads {
			under = append(under, begin(true))
		}
		begin(false)
		for _, r := range under {
			r.End(100)
		}
		for range 1000 {
			under = append(under, begin(true)) // small answers
		}
		for _, r := range under[firstReads:] {
			r.End(10 << 20)
		}
		under = nil
		for range 6 {
			under = append(under, begin(true))
		}
		begin(false)
		under[0].End(10 << 20)
		under[0] = begin(true)
		for _, r := range under {
			r.End(0) // none was found
		}
		for range 100 {
			begin(true).End(100)
		}
		for range 100 {
			begin(true) // it is forgotten that they were large
		}
	})
}
