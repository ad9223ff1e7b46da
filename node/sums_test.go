package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/node/config"
)

// runOnce runs a node until f returns.
func runOnce(t *testing.T, cfg config.Config, f func(n *Node, c *client.Client)) {
	t.Helper()
	n, err := Open(cfg, Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready := make(chan Addresses, 1)
	n.opts.Ready = func(a Addresses) { ready <- a }
	served := make(chan error, 1)
	go func() { served <- n.Serve(ctx) }()
	select {
	case at := <-ready:
		c, err := newClient(at.GRPC)
		if err != nil {
			t.Error(err)
			break
		}
		f(n, c)
		c.Close()
	case err := <-served:
		t.Error(err)
	}
	cancel()
	<-served
	if err := n.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestSumsOutliveANode: after an orderly stop nothing is read again; with a file of
// other data, which goes, everything is.
func TestSumsOutliveANode(t *testing.T) {
	cfg := soloConfig(t)
	file := filepath.Join(cfg.Node.DataDir, sumsFile)
	runOnce(t, cfg, func(n *Node, c *client.Client) {
		for i := range 20 {
			if _, err := c.Put(t.Context(), fmt.Sprint("k", i), []byte("v")); err != nil {
				t.Error(err)
			}
		}
		for more := true; more; {
			var err error
			if more, err = n.store.StepSums(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	kept := filepath.Join(t.TempDir(), "kept")
	if err := os.CopyFS(kept, os.DirFS(filepath.Join(cfg.Node.DataDir, EngineDir))); err != nil {
		t.Fatal(err)
	}
	runOnce(t, cfg, func(n *Node, c *client.Client) {
		n.store.Tenants(0)
		if st := n.sums.Stats(); st.Leaves == 0 || st.Dirty+st.Unknown > 0 {
			t.Errorf("after an orderly stop: %+v", st)
		}
		if _, err := c.Put(t.Context(), "k", []byte("v")); err != nil {
			t.Error(err)
		}
	})
	// The engine is set back, the file knows of more.
	if err := os.RemoveAll(filepath.Join(cfg.Node.DataDir, EngineDir)); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(cfg.Node.DataDir, EngineDir), os.DirFS(kept)); err != nil {
		t.Fatal(err)
	}
	runOnce(t, cfg, func(n *Node, _ *client.Client) {
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the file of other data is still there: %v", err)
		}
		if st := n.sums.Stats(); st.Unknown == 0 {
			t.Errorf("with a file of other data: %+v", st)
		}
	})
}
