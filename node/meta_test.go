package node

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/gossip"
	"github.com/pairdb/pairdb/gossip/schema"
)

// TestClassify: what gossip fails with reaches clients under its code and with
// the outcome that is known.
func TestClassify(t *testing.T) {
	for _, c := range []struct {
		err     error
		code    errcode.Code
		outcome errcode.Outcome
	}{
		{gossip.ErrTenantExists, errcode.TenantExists, errcode.NotApplied},
		{gossip.ErrVoid, errcode.PreconditionFailed, errcode.NotApplied},
		{gossip.ErrTenantLimit, errcode.ResourceExhausted, errcode.NotApplied},
		{fmt.Errorf("%w: %w", gossip.ErrIndeterminate, context.DeadlineExceeded), errcode.Timeout, errcode.Indeterminate},
		{fmt.Errorf("%w: %w", gossip.ErrNotApplied, context.DeadlineExceeded), errcode.Timeout, errcode.NotApplied},
		{&gossip.VotersUnreachableError{Need: 2, Voters: 3}, errcode.QuorumNotReached, errcode.NotApplied},
		{gossip.ErrNotReady, errcode.Unavailable, errcode.NotApplied},
		{schema.ValidateTenantID("No"), errcode.InvalidTenantID, errcode.NotApplied},
		{schema.ValidateRF(8), errcode.InvalidReplicationFactor, errcode.NotApplied},
		{errors.New("anything else"), errcode.Internal, ""},
	} {
		e := classify(fmt.Errorf("create tenant: %w", c.err))
		if e.Code != c.code || e.Outcome != c.outcome || e.Message == "" {
			t.Errorf("%v: %s %q %q, want %s %q", c.err, e.Code, e.Outcome, e.Message, c.code, c.outcome)
		}
	}
}

// TestGossipKeyFile: a key that is none is refused, and never shown.
func TestGossipKeyFile(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))
	if key, err := readGossipKey(file("good", secret+"\n")); err != nil || len(key) != 32 {
		t.Errorf("a good key: %d bytes, %v", len(key), err)
	}
	if key, err := readGossipKey(""); key != nil || err != nil {
		t.Errorf("no file: %v, %v", key, err)
	}
	for name, path := range map[string]string{
		"short": file("short", secret[:20]), "not base64": file("text", "geheim!"),
		"huge": file("huge", strings.Repeat("A", maxKeyFile+1)), "missing": filepath.Join(dir, "none"),
	} {
		_, err := readGossipKey(path)
		if err == nil || strings.Contains(err.Error(), "geheim") || strings.Contains(err.Error(), secret[:20]) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
