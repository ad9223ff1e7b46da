package node

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/node/config"
)

// soloConfig is the configuration of a node that is a cluster by itself.
func soloConfig(t testing.TB) config.Config {
	t.Helper()
	cfg := config.Defaults()
	cfg.Node.DataDir, cfg.Cluster.Bootstrap = t.TempDir(), true
	cfg.Listen.GRPCPort, cfg.Listen.PeerPort, cfg.Listen.HTTPPort, cfg.Listen.GossipPort = 0, 0, 0, 0
	bearStandstill(&cfg)
	return cfg
}

// bearStandstill has no operation end because the machine, or its disk, stands still for
// some seconds.
func bearStandstill(cfg *config.Config) {
	cfg.Timeouts.Read, cfg.Timeouts.Write = 30*time.Second, 30*time.Second
}

// TestPulseBeatsFromReadyToStop: what tells the watchdog, and when.
func TestPulseBeatsFromReadyToStop(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var ready, stopped atomic.Bool
	beats := 0
	err := Run(ctx, soloConfig(t), Options{
		Logger:     slog.New(slog.DiscardHandler),
		PulseEvery: 5 * time.Millisecond,
		Ready:      func(Addresses) { ready.Store(true) },
		Stopping: func(limit time.Duration) {
			if limit != 15*time.Second || stopped.Swap(true) {
				t.Errorf("told to stop within %s, or twice", limit)
			}
		},
		Pulse: func() {
			if !ready.Load() || stopped.Load() {
				t.Error("a beat before ready or after the stop began")
			}
			if beats++; beats == 5 {
				cancel()
			}
		},
	})
	if err != nil || beats < 5 || !stopped.Load() {
		t.Errorf("%v, %d beats, stopped %v", err, beats, stopped.Load())
	}
}

// TestHangingNodeIsNotAlive: a loop that does not answer, and a disk that does
// not end a sync.
func TestHangingNodeIsNotAlive(t *testing.T) {
	hang, hangs := make(chan struct{}), make(chan struct{}, 1)
	var armed atomic.Bool
	db, err := engine.Open("db", engine.Options{FS: vfs.Inject(vfs.NewMem(), func(op vfs.Op) error {
		if op.Kind == vfs.OpSync && armed.CompareAndSwap(true, false) {
			hangs <- struct{}{}
			<-hang
		}
		return nil
	})})
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{db: db, asked: make(chan struct{})}
	if err := n.alive(t.Context(), 10*time.Millisecond); err == nil || !strings.Contains(err.Error(), "loop") {
		t.Errorf("nobody answers, and it is alive: %v", err)
	}
	end := make(chan struct{})
	answers := make(chan struct{})
	go func() {
		defer close(answers)
		for {
			select {
			case <-n.asked:
			case <-end:
				return
			}
		}
	}()
	const limit = 50 * time.Millisecond
	if err := n.alive(t.Context(), time.Minute); err != nil {
		t.Errorf("a sound node: %v", err)
	}
	armed.Store(true)
	written := make(chan error, 1)
	go func() {
		b := engine.NewBatch()
		b.Set([]byte("k"), []byte("v"))
		_, err := db.Apply(b, engine.WriteOptions{Sync: true})
		written <- err
	}()
	<-hangs
	if err := n.alive(t.Context(), time.Minute); err != nil {
		t.Errorf("a sync that has just begun: %v", err)
	}
	late := time.NewTimer(2 * limit)
	<-late.C
	err = n.alive(t.Context(), limit)
	for err != nil && strings.Contains(err.Error(), "loop") {
		// The loop answers, but on a busy machine not within so short a limit.
		err = n.alive(t.Context(), limit)
	}
	if err == nil || !strings.Contains(err.Error(), "sync") {
		t.Errorf("a sync hangs, and it is alive: %v", err)
	}
	close(hang)
	if err := <-written; err != nil {
		t.Error(err)
	}
	if err := n.alive(t.Context(), time.Minute); err != nil || db.Metrics().WALBusy > 0 {
		t.Errorf("the disk is back: %v, the log is busy for %s", err, db.Metrics().WALBusy)
	}
	close(end)
	<-answers
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}
