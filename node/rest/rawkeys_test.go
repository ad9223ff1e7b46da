package rest

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// TestRawKeysOverTheWire: a key of any bytes goes through real HTTP as it is,
// however much of it is escaped: only what the request line cannot have is.
func TestRawKeysOverTheWire(t *testing.T) {
	f := newFixture(t)
	srv := httptest.NewServer(f.handler)
	defer srv.Close()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() // the test is over
	wire := &rawWire{t: t, conn: conn, r: bufio.NewReader(conn)}

	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	keys := []string{
		".", "..", "../..", "a/../b", "a/./b", "//", "a//b", "/", "/a", "a/", "%", "%2F", "%25", "%zz", "a%00b", "?", "a?b=c", "#x", "a+b c",
		"..%2f..", "\x00", "é😀", strings.Repeat("k", 1024), "metrics", "../../v1/key-value", ";", "a;b=c", "&=", "\\..\\", "\r\nX-Evil: 1",
	}
	for b := range 256 {
		keys = append(keys, string([]byte{byte(b)}), string([]byte{'a', byte(b), '/', byte(b)}))
	}
	for range 200 {
		k := make([]byte, 1+rng.IntN(64))
		for i := range k {
			k[i] = byte(rng.UintN(256))
		}
		keys = append(keys, string(k))
	}
	for i, key := range keys {
		value := fmt.Sprintf("value %d", i)
		for _, escaped := range []string{escapeAll(key), escapeLittle(key), url.PathEscape(key)} {
			clear(f.kv.values)
			if status, _ := wire.ask("PUT", escaped, value); status != 204 {
				t.Fatalf("put %q as %q: %d", key, escaped, status)
			}
			if s, ok := f.kv.values["t/"+key]; !ok || string(s.Value) != value || len(f.kv.values) != 1 {
				t.Fatalf("put %q as %q: the store has %v", key, escaped, f.kv.values)
			}
			if status, body := wire.ask("GET", escaped, ""); status != 200 || body != value {
				t.Fatalf("get %q as %q: %d %q", key, escaped, status, body)
			}
			if status, _ := wire.ask("DELETE", escaped, ""); status != 204 || len(f.kv.values) != 0 {
				t.Fatalf("delete %q as %q: %d, left %v", key, escaped, status, f.kv.values)
			}
		}
	}
}

// rawWire speaks HTTP without a client that would clean a path.
type rawWire struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func (w *rawWire) ask(method, escapedKey, body string) (int, string) {
	w.t.Helper()
	if _, err := fmt.Fprintf(w.conn, "%s /v1/kv/t/%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", method, escapedKey, len(body), body); err != nil {
		w.t.Fatal(err)
	}
	resp, err := http.ReadResponse(w.r, &http.Request{Method: method})
	if err != nil {
		w.t.Fatal(err)
	}
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, string(got)
}

func escapeAll(key string) string {
	var b strings.Builder
	for i := range len(key) {
		fmt.Fprintf(&b, "%%%02X", key[i])
	}
	return b.String()
}

// escapeLittle escapes what would end the path or the line, and nothing else.
func escapeLittle(key string) string {
	var b strings.Builder
	for i := range len(key) {
		if c := key[i]; c <= ' ' || c >= 0x7f || c == '%' || c == '?' || c == '#' {
			fmt.Fprintf(&b, "%%%02x", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
