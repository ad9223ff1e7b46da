package coord_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/quorum"
)

// scans returns what the replica was asked since it was last called.
func (r *rig) scans() []func(coord.ScanPiece, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.mu.scans
	r.mu.scans = nil
	return s
}

// TestPageEndsEarly: a page that has looked at enough entries, or has taken long
// enough, ends without a key and with a token.
func TestPageEndsEarly(t *testing.T) {
	for name, c := range map[string]struct {
		scanned int
		takes   time.Duration
		rounds  int
	}{
		"entries": {10_000, 0, 5},
		"time":    {1, 400 * time.Millisecond, 3},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, 3, coord.Metrics{})
			var got []coord.ScanResponse
			r.coord.StartScan(coord.ScanRequest{Tenant: simTenant, Level: quorum.One}, func(p coord.ScanResponse, err error) {
				if err != nil {
					t.Error(err)
				}
				got = append(got, p)
			})
			at := coord.Position{}
			rounds := 0
			for len(got) == 0 && rounds < 100 {
				rounds++
				asked := r.scans()
				if len(asked) == 0 {
					t.Fatalf("%s: nothing is asked in round %d", name, rounds)
				}
				time.Sleep(c.takes)
				at.Token++
				next := at
				for i, done := range asked {
					if i == 0 {
						done(coord.ScanPiece{Next: &next, Scanned: c.scanned}, nil)
					} else {
						done(coord.ScanPiece{}, nil)
					}
				}
				synctest.Wait()
			}
			if rounds != c.rounds || len(got) != 1 || len(got[0].Items) != 0 || len(got[0].PageToken) == 0 || got[0].Scanned != rounds*c.scanned {
				t.Errorf("%s: %d rounds, %+v", name, rounds, got)
			}
			for _, s := range r.sends() { // the hedges
				s.reply(coord.Reply{}, errSimLost)
			}
			wantClosed(t, r.close())
		})
	}
}

// TestCloseWaitsForScans: the page has timed out, an owner has not answered yet.
func TestCloseWaitsForScans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 3, coord.Metrics{})
		var code errcode.Code
		r.coord.StartScan(coord.ScanRequest{Tenant: simTenant}, func(_ coord.ScanResponse, err error) { code = err.(*coord.Error).Code })
		time.Sleep(time.Minute)
		synctest.Wait()
		if code != errcode.Timeout {
			t.Errorf("got %q", code)
		}
		closed := r.close()
		wantOpen(t, closed, "while the replica and two owners have a question")
		for _, done := range r.scans() {
			done(coord.ScanPiece{}, nil)
		}
		for _, s := range r.sends() {
			wantOpen(t, closed, "while an owner has a question")
			s.reply(coord.Reply{}, errSimLost)
		}
		wantClosed(t, closed)
		if n := len(r.scans()) + len(r.sends()); n != 0 {
			t.Errorf("%d questions after the end", n)
		}
	})
}

// TestTooManyPages: a node makes a bounded number of pages at once.
func TestTooManyPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 3, coord.Metrics{})
		refused, answered := 0, 0
		const most, waiting = 16, 1024
		for range most + waiting + 6 {
			r.coord.StartScan(coord.ScanRequest{Tenant: simTenant, Level: quorum.One, Prefix: []byte("{g}")}, func(_ coord.ScanResponse, err error) {
				if err == nil {
					answered++
				} else if err.(*coord.Error).Code == errcode.ResourceExhausted {
					refused++
				}
			})
		}
		for asked := r.scans(); len(asked) > 0; asked = r.scans() {
			if len(asked) > most {
				t.Fatalf("%d pages are made at once", len(asked))
			}
			for _, done := range asked {
				done(coord.ScanPiece{}, nil)
			}
			synctest.Wait()
		}
		if refused != 6 || answered != most+waiting {
			t.Errorf("%d refused, %d answered", refused, answered)
		}
		// There is room again.
		r.coord.StartScan(coord.ScanRequest{Tenant: simTenant, Prefix: []byte("{g}"), Start: []byte("{g}z")}, func(_ coord.ScanResponse, err error) {
			if err != nil {
				t.Error(err)
			}
			answered++
		})
		for _, s := range r.scans() {
			s(coord.ScanPiece{}, nil)
		}
		for _, s := range r.sends() {
			s.reply(coord.Reply{Status: coord.StatusOK, Body: []byte{1, 0, 0, 0}}, nil)
		}
		synctest.Wait()
		if answered != most+waiting+1 {
			t.Error("the next one is not answered")
		}
		wantClosed(t, r.close())
	})
}

// scanAll goes through all pages, each from another node.
func scanAll(ctx context.Context, all []*coord.Coordinator, r coord.ScanRequest, page func(*coord.ScanResponse)) error {
	for i := 0; ; i++ {
		p, err := all[i%len(all)].Scan(ctx, r)
		if err != nil {
			return err
		}
		page(&p)
		if r.PageToken = p.PageToken; len(p.PageToken) == 0 {
			return nil
		}
	}
}

// TestLiveScan scans while keys are written, and with lost messages.
func TestLiveScan(t *testing.T) {
	for _, lossy := range []bool{false, true} {
		_, all := newLive(t, lossy)
		put := func(c *coord.Coordinator, key, value string) error {
			_, err := c.Put(t.Context(), coord.PutRequest{Tenant: simTenant, Key: []byte(key), Value: []byte(value)})
			return err
		}
		const steady = 300
		for i := range steady {
			for put(all[i%3], fmt.Sprintf("s%d", i), "v") != nil {
				if !lossy {
					t.Fatal("a put fails")
				}
			}
		}
		done := make(chan struct{})
		var writers sync.WaitGroup
		for w := range 4 {
			writers.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-done:
						return
					default:
						// Some fail where messages are lost.
						_ = put(all[i%3], fmt.Sprintf("s%d", (7*i+w)%steady), fmt.Sprint(i))
					}
				}
			})
		}
		for range 5 {
			seen := map[string]int{}
			err := scanAll(t.Context(), all, coord.ScanRequest{Tenant: simTenant, MaxKeys: 70}, func(p *coord.ScanResponse) {
				for i := range p.Items {
					seen[string(p.Items[i].Key)]++
				}
			})
			if err != nil && !lossy {
				t.Error(err)
			}
			if err == nil && len(seen) != steady {
				t.Errorf("lossy %v: %d keys of %d", lossy, len(seen), steady)
			}
			for k, n := range seen {
				if n != 1 {
					t.Errorf("%s is shown %d times", k, n)
				}
			}
		}
		close(done)
		writers.Wait()
	}
}

// TestPageBytes: pages have at most 4 MiB, but for one key with a larger value,
// and keys alone weigh little.
func TestPageBytes(t *testing.T) {
	_, all := newLive(t, false)
	want := 0
	for i := range 24 {
		size := 900 << 10
		if i%8 == 3 {
			size = 5 << 20
		}
		want += size
		key := fmt.Sprintf("k%d", i)
		if _, err := all[0].Put(t.Context(), coord.PutRequest{Tenant: simTenant, Key: []byte(key), Value: bytes.Repeat([]byte(key[:1]), size), Level: quorum.All}); err != nil {
			t.Fatal(err)
		}
	}
	got, keys, pages := 0, 0, 0
	err := scanAll(t.Context(), all, coord.ScanRequest{Tenant: simTenant}, func(p *coord.ScanResponse) {
		size := 0
		for i := range p.Items {
			size += len(p.Items[i].Siblings[0].Value)
		}
		if size > coord.MaxPageBytes && len(p.Items) > 1 {
			t.Errorf("%d keys of %d bytes", len(p.Items), size)
		}
		got += size
		keys += len(p.Items)
		pages++
	})
	if err != nil || got != want || keys != 24 || pages < 8 {
		t.Errorf("%d keys of %d bytes in %d pages: %v", keys, got, pages, err)
	}
	p, err := all[1].Scan(t.Context(), coord.ScanRequest{Tenant: simTenant, KeysOnly: true})
	if err != nil || len(p.Items) != 24 || len(p.PageToken) != 0 {
		t.Errorf("keys only: %d, %v", len(p.Items), err)
	}
	for i := range p.Items {
		if it := &p.Items[i]; !strings.HasPrefix(string(it.Key), "k") || len(it.Siblings) != 1 || len(it.Siblings[0].Value) != 0 || len(it.Token) == 0 {
			t.Errorf("keys only: %+v", it)
		}
	}
}
