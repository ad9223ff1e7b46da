package node

import (
	"net/http"
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

// TestTenantThatNobodyCouldBeAskedAbout: a node that reaches too few others to know of
// every tenant says so at each door, and not that there is none of a name.
func TestTenantThatNobodyCouldBeAskedAbout(t *testing.T) {
	nodes := startNodes(t, 0, 0, 0)
	n := nodes[0]
	c := n.client()
	want := func(code errcode.Code, status int) {
		t.Helper()
		_, shown := c.GetTenant(t.Context(), "nobodys")
		_, placed := c.Locate(t.Context(), "k", client.WithTenant("nobodys"))
		_, read := c.Get(t.Context(), "k", client.WithTenant("nobodys"))
		for what, err := range map[string]error{"show": shown, "locate": placed, "read": read} {
			if client.CodeOf(err) != code {
				t.Errorf("%s: %v, want %s", what, err, code)
			}
		}
		resp, err := http.Get("http://" + n.addrs.HTTP + "/v1/tenants/nobodys")
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if resp.StatusCode != status {
			t.Errorf("HTTP: %d, want %d", resp.StatusCode, status)
		}
	}
	want(errcode.TenantNotFound, http.StatusNotFound)
	nodes[1].stop()
	nodes[2].stop()
	want(errcode.Unavailable, http.StatusServiceUnavailable)
}
