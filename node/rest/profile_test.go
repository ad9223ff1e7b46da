package rest

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestProfilesAreLocal: the runtime's profiles are for callers on this machine
// that did not come by a domain's name.
func TestProfilesAreLocal(t *testing.T) {
	f := newFixture(t)
	for _, c := range []struct {
		remote, host string
		want         int
		local        net.Addr
	}{
		{"127.0.0.1:1", "127.0.0.1:8080", 200, nil},
		{"127.0.0.1:1", "127.0.0.1", 200, nil},
		{"127.0.0.1:1", "localhost:8080", 200, nil},
		{"127.0.0.1:1", "LocalHost", 200, nil},
		{"[::1]:1", "[::1]:8080", 200, nil},
		{"[::1]:1", "[::1]", 200, nil},
		{"192.0.2.7:1", "127.0.0.1:8080", 403, nil},
		{"192.0.2.7:1", "192.0.2.7:8080", 200, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 8080}},
		{"192.0.2.8:1", "192.0.2.7:8080", 403, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 8080}},
		{"nonsense", "127.0.0.1:8080", 403, nil},
		{"127.0.0.1:1", "pages.example:8080", 403, nil},
		{"127.0.0.1:1", "pages.example", 403, nil},
		{"127.0.0.1:1", "localhost.pages.example:8080", 403, nil},
		{"127.0.0.1:1", "", 403, nil},
	} {
		r := httptest.NewRequest("GET", "/debug/pprof/goroutine?debug=1", nil)
		r.RemoteAddr, r.Host = c.remote, c.host
		if c.local != nil {
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, c.local))
		}
		w := httptest.NewRecorder()
		f.handler.ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("from %s to %q: %d, want %d", c.remote, c.host, w.Code, c.want)
		}
	}
}

// TestProfileOutlivesDeadlines: a profile takes the time that was asked for,
// though the server's deadlines are shorter.
func TestProfileOutlivesDeadlines(t *testing.T) {
	s := httptest.NewUnstartedServer(newFixture(t).handler)
	s.Config.ReadTimeout, s.Config.WriteTimeout = 200*time.Millisecond, 200*time.Millisecond
	s.Start()
	defer s.Close()
	for _, path := range []string{"trace?seconds=0.6", "profile?seconds=1"} {
		start := time.Now()
		resp, err := http.Get(s.URL + "/debug/pprof/" + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.Body.Close() != nil || resp.StatusCode != 200 || len(body) == 0 {
			t.Errorf("%s: %s, %d bytes, %v", path, resp.Status, len(body), err)
		}
		if took := time.Since(start); took < 600*time.Millisecond {
			t.Errorf("%s took %v", path, took)
		}
	}
}

func TestProfileTimeIsBounded(t *testing.T) {
	f := newFixture(t)
	for _, sec := range []string{"301", "1e9", "0", "-1", "NaN", "Inf", "x"} {
		for _, name := range []string{"profile", "trace", "heap"} {
			r := httptest.NewRequest("GET", "http://localhost/debug/pprof/"+name+"?seconds="+sec, nil)
			r.RemoteAddr = "127.0.0.1:1"
			w := httptest.NewRecorder()
			f.handler.ServeHTTP(w, r)
			if w.Code != 400 {
				t.Errorf("%s for %s s: %d", name, sec, w.Code)
			}
		}
	}
}
