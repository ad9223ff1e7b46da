package main

import (
	"bytes"
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client/clienttest"
)

// TestTenantUpdateWaitsOn: that the first node which is asked how far the change is has not
// heard of it ends the waiting no more than a later one would. If none has before the time is
// over, the change is said to wait.
func TestTenantUpdateWaitsOn(t *testing.T) {
	s, err := clienttest.Start(clienttest.NewStore())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var asked atomic.Int64
	var never atomic.Bool
	s.SetHook(func(_ context.Context, method string, _ any) error {
		if strings.HasSuffix(method, "/ChangeStatus") && (asked.Add(1) == 1 || never.Load()) {
			return clienttest.Fail(errcode.MigrationNotFound, "no node that answers knows a change", nil)
		}
		return nil
	})
	out, errOut := new(bytes.Buffer), new(bytes.Buffer)
	a := &app{stdin: strings.NewReader(""), stdout: out, stderr: errOut, getenv: func(string) string { return "" }}
	code := a.run(t.Context(), []string{"tenant", "update", "default", "--rf", "5", "--wait", "--endpoint", s.Addr()})
	if code != 0 || !strings.Contains(out.String(), "tenant default gets 5 replicas: done") || asked.Load() < 2 {
		t.Errorf("exit %d after %d questions\n%s\n%s", code, asked.Load(), out, errOut)
	}
	never.Store(true)
	out.Reset()
	code = a.run(t.Context(), []string{"tenant", "update", "default", "--rf", "4", "--wait", "--timeout", "2s", "--endpoint", s.Addr()})
	if code != errcode.ExitTimeout || !strings.Contains(errOut.String(), "state: waiting, 0 % moved") {
		t.Errorf("exit %d\n%s\n%s", code, out, errOut)
	}
}
