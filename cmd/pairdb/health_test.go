package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/client/clienttest"
	"github.com/pairdb/pairdb/node"
)

// TestHealthByAddressFile: a check with an address file asks the node that wrote
// it, whatever the environment names, and waits for the file.
func TestHealthByAddressFile(t *testing.T) {
	s, err := clienttest.Start(clienttest.NewStore())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	t.Setenv("PAIRDB_ENDPOINT", "127.0.0.1:1")
	file := filepath.Join(t.TempDir(), "addr.json")
	health := func(args ...string) (code int, stdout, stderr string) {
		return runCLI(t, context.Background(), "", append([]string{"health", "--addr-file", file}, args...)...)
	}

	if code, _, stderr := health(); code != 6 || !strings.Contains(stderr, file) || !strings.Contains(stderr, "--wait") {
		t.Errorf("no file: exit %d, %s", code, stderr)
	}
	if code, _, stderr := health("--wait", "250ms"); code != 6 {
		t.Errorf("no file in time: exit %d, %s", code, stderr)
	}
	if code, _, stderr := health("--endpoint", s.Addr()); code != 2 {
		t.Errorf("with an endpoint: exit %d, %s", code, stderr)
	}
	for _, bad := range []string{"", "{}", "not JSON"} {
		if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, _, stderr := health("--wait", "1h"); code != 1 || !strings.Contains(stderr, "none that an agent wrote") {
			t.Errorf("file %q: exit %d, %s", bad, code, stderr)
		}
	}
	// What others are told may be a router's address.
	b, err := json.Marshal(node.Addresses{GRPC: "192.0.2.9:50051", GRPCLocal: s.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := health(); code != 0 || !strings.Contains(stdout, s.Addr()) {
		t.Errorf("serving: exit %d, %s%s", code, stdout, stderr)
	}
	s.SetServing(false)
	if code, _, stderr := health(); code != 10 {
		t.Errorf("not serving: exit %d, %s", code, stderr)
	}
}
