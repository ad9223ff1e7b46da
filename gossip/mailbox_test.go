package gossip

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// A packet is not signed: one that claims to come from a later life of this node
// must be refused, and must not end this one.
func TestForgedLaterLifeIsRefused(t *testing.T) {
	f := newFabric()
	var log bytes.Buffer // slog's lock guards it until the node has stopped
	n := launch(t, f, nodeOptions(t, f, "n", func(o *Options) {
		o.Bootstrap, o.Logger = true, slog.New(slog.NewTextHandler(&log, nil))
	}))
	n.awaitReady(t)
	forged := sighting{card: n.face.Load().card, incarnation: n.inc + 1, gossip: "192.0.2.1:7", alive: true}
	for range 3 {
		if err := n.admit(forged); err == nil {
			t.Error("a later life of this node is admitted")
		}
	}
	select {
	case err := <-n.Fatal():
		t.Errorf("a forged packet ended the node: %v", err)
	default:
	}
	n.stop()
	if got := strings.Count(log.String(), "192.0.2.1:7"); got != 1 {
		t.Errorf("said %d times, want once:\n%s", got, log.String())
	}
}
