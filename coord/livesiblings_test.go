package coord_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/quorum"
)

// TestLiveSiblings has clients that add to one set, whose key keeps siblings:
// each writes the union of what it read and an element of its own. No element
// that was acknowledged is ever lost, though nobody coordinates.
func TestLiveSiblings(t *testing.T) {
	for _, lossy := range []bool{false, true} {
		t.Run(fmt.Sprintf("lossy=%v", lossy), func(t *testing.T) {
			_, all := newLive(t, lossy)
			var mu sync.Mutex
			added := map[string]bool{}
			var clients sync.WaitGroup
			for client := range 8 {
				clients.Go(func() {
					for i := range 40 {
						element := fmt.Sprint(client, "/", i)
						if addToSet(t, all[(client+i)%3], element, i%10 == 9, lossy) {
							mu.Lock()
							added[element] = true
							mu.Unlock()
						}
					}
				})
			}
			clients.Wait()
			var got map[string]bool
			var err error
			for range 50 {
				if got, _, err = readSet(t, all[0]); err == nil {
					break
				}
			}
			if err != nil || len(added) == 0 {
				t.Fatalf("%d were added, %v", len(added), err)
			}
			for element := range added {
				if !got[element] {
					t.Errorf("%s is lost", element)
				}
			}
		})
	}
}

// addToSet reports whether the element was acknowledged. A blind one is put
// without having read.
func addToSet(t *testing.T, c *coord.Coordinator, element string, blind, lossy bool) bool {
	set, token := map[string]bool{}, []byte(nil)
	if !blind {
		var err error
		if set, token, err = readSet(t, c); err != nil {
			excuse(t, err, lossy)
			return false
		}
	}
	set[element] = true
	var b strings.Builder
	for e := range set {
		b.WriteString(e + " ")
	}
	_, err := c.Put(t.Context(), coord.PutRequest{Tenant: simKeeper, Key: []byte("set"), Value: []byte(b.String()), Token: token})
	if err != nil {
		excuse(t, err, lossy)
	}
	return err == nil
}

// readSet returns the union of all values of the key, and their token.
func readSet(t *testing.T, c *coord.Coordinator) (map[string]bool, []byte, error) {
	set := map[string]bool{}
	r, err := c.Get(t.Context(), coord.GetRequest{Tenant: simKeeper, Key: []byte("set"), Level: quorum.Quorum})
	var e *coord.Error
	if errors.As(err, &e) && e.Code == errcode.KeyNotFound {
		return set, nil, nil
	}
	for i := range r.Siblings {
		for _, element := range strings.Fields(string(r.Siblings[i].Value)) {
			set[element] = true
		}
	}
	return set, r.Token, err
}

func excuse(t *testing.T, err error, lossy bool) {
	var e *coord.Error
	if !lossy || !errors.As(err, &e) || e.Code != errcode.QuorumNotReached && e.Code != errcode.Timeout {
		t.Error(err)
	}
}
