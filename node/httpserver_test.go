package node

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/node/door"
)

// pipes is a net.Listener in memory, so that its clock can be virtual.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	c, ok := <-p.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.conns) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// TestSlowHTTPClientsAreCutOff: a client that takes for ever over its header or
// its body, or over reading the answer, has its connection closed after a time.
func TestSlowHTTPClientsAreCutOff(t *testing.T) {
	for _, tc := range []struct {
		name string
		// drip is sent a byte a second, after start at once.
		start, drip string
		within      time.Duration
	}{
		{"header", "GET /small HTTP/1.1\r\nHost: a\r\n", "X-Slow: and so on, and so on, and so on, and so on", 15 * time.Second},
		{"body", "PUT /small HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n", string(make([]byte, 900)), 75 * time.Second},
		{"nothing", "", "", 15 * time.Second},
		{"answer", "GET /large HTTP/1.1\r\nHost: a\r\n\r\n", "", 75 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if _, err := io.Copy(io.Discard, r.Body); err != nil {
					return // cut off
				}
				if r.URL.Path == "/large" {
					_, _ = w.Write(make([]byte, 10<<20)) // fails when it is cut off
				}
			})
			s := newHTTPServer(handler, slog.New(slog.DiscardHandler))
			d := door.New(door.Options{Max: 10, Stall: 30 * time.Second, Rate: readRate, Budget: 1 << 30})
			base := &pipes{conns: make(chan net.Conn)}
			served := make(chan error, 1)
			l := d.Listener(base, nil)
			go func() { served <- s.Serve(l) }()
			stop := make(chan struct{})
			var sweeper sync.WaitGroup
			sweeper.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(time.Second):
						d.Sweep()
					}
				}
			})
			there, here := net.Pipe()
			base.conns <- here
			began := time.Now()
			if tc.start != "" {
				if _, err := io.WriteString(there, tc.start); err != nil {
					t.Fatal(err)
				}
			}
			if tc.name == "answer" {
				if _, err := bufio.NewReaderSize(there, 16).ReadByte(); err != nil {
					t.Fatal(err)
				}
			} else {
				go func() { _, _ = io.Copy(io.Discard, there) }() // ends with the connection
			}
			for i := range len(tc.drip) {
				if _, err := there.Write([]byte{tc.drip[i]}); err != nil {
					break
				}
				time.Sleep(time.Second)
			}
			for l.Connections() > 0 && time.Since(began) < 5*time.Minute {
				time.Sleep(time.Second)
			}
			if took := time.Since(began); took > tc.within {
				t.Errorf("%s: the connection was there for %v, want %v at most", tc.name, took, tc.within)
			}
			close(stop)
			sweeper.Wait()
			_ = there.Close()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			<-served
		})
	}
}
