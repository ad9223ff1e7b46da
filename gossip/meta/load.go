package meta

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/pairdb/pairdb/gossip/crdt"
	"github.com/pairdb/pairdb/gossip/ring"
)

// load reads the store and finds out what it lacks.
func (c *Core) load(hasData bool) error {
	cluster, lost := "", damage{}
	note := func(key string, err error) error {
		switch {
		case errors.Is(err, ring.ErrNewerFormat), errors.Is(err, ring.ErrUnknownKind):
			return fmt.Errorf("%w: %w", ErrNewerFormat, err)
		case errors.Is(err, ErrNewerFormat):
			return err
		case broken(err):
			lost.note(key, err)
			return nil
		}
		return err
	}
	err := c.store.Load(func(key string, value []byte) error {
		if !strings.HasPrefix(key, keyBase) { // it comes first
			if err := note(keyBase, c.loadBase()); err != nil {
				return err
			}
		}
		return note(key, c.loadRecord(key, value, &cluster))
	})
	var unread *DamageError
	if errors.As(err, &unread) {
		for _, key := range unread.Keys {
			lost.note(key, unread.Err)
		}
		err = nil
	}
	if err != nil {
		return err
	}
	if err := c.examine(lost, hasData); err != nil {
		return err
	}
	if cluster != "" && cluster != c.name && c.bound() {
		return fmt.Errorf("data directory %w: it is of %q, not of %q", ErrOtherCluster, cluster, c.name)
	}
	for _, id := range []string{c.state.ClusterName(), c.witness.ClusterName} {
		if id != "" && id != c.name && c.bound() {
			return fmt.Errorf("data directory %w: it is of %q, not of %q", ErrOtherCluster, id, c.name)
		}
	}
	return nil
}

// bound says that the node has a cluster, or has promised itself to one.
func (c *Core) bound() bool {
	return c.state.Version() > 0 || c.floor > 0 || !c.founder.IsZero() || !c.joining.IsZero()
}

func (c *Core) loadRecord(key string, value []byte, cluster *string) error {
	switch {
	case len(value) > MaxRecordBytes:
		return fmt.Errorf("%w: %s has %d bytes", ErrCorrupt, key, len(value))
	case key == keyCluster:
		b, err := unformat(key, value, -1)
		*cluster = string(b)
		return err
	case key == keyFormat:
		_, err := unformat(key, value, 0)
		return err
	case key == keyIdentity:
		b, err := unformat(key, value, ed25519.SeedSize)
		if err != nil {
			return err
		}
		c.setKey(ed25519.NewKeyFromSeed(b))
		return nil
	case key == keyBoot:
		b, err := unformat(key, value, 16)
		if err == nil {
			c.inc = binary.BigEndian.Uint64(b)
		}
		return err
	case key == keyPledge:
		b, err := unformat(key, value, 16)
		copy(c.founder[:], b)
		return err
	case key == keyJoining:
		b, err := unformat(key, value, 16)
		copy(c.joining[:], b)
		return err
	case key == keyRetired:
		c.retired = true
		return nil
	case key == keyReport:
		b, err := unformat(key, value, 16)
		if err == nil {
			c.synced, c.clean = ring.Version(binary.BigEndian.Uint64(b)), ring.Version(binary.BigEndian.Uint64(b[8:]))
		}
		return err
	case key == keyReady:
		_, err := unformat(key, value, 0)
		c.ready = err == nil
		return err
	case key == keyVote:
		b, err := unformat(key, value, -1)
		if err != nil {
			return err
		}
		c.reg, err = ring.DecodeRegister(append([]byte(nil), b...))
		c.round = max(c.round, c.reg.Promised.Round)
		return err
	case key == keyBase, strings.HasPrefix(key, prefixBase):
		return c.loadPiece(key, value)
	case strings.HasPrefix(key, prefixLog):
		return c.loadEntry(key, value)
	case strings.HasPrefix(key, prefixNode):
		e, err := crdt.DecodeNode(value)
		if err == nil {
			c.nodes.Merge(e)
		}
		return err
	default:
		return fmt.Errorf("%w: unknown record %q", ErrCorrupt, key)
	}
}

func (c *Core) loadEntry(key string, value []byte) error {
	var v ring.Version
	if n, _ := fmt.Sscanf(key, prefixLog+"%016x", &v); n == 1 && v <= c.tail.base.version() {
		c.stale.add(v, v) // the process ended before it was deleted
		return nil
	}
	e, err := ring.DecodeEntry(value)
	if err != nil {
		return err
	}
	if key != logKey(e.Version) {
		return fmt.Errorf("%w: %s holds entry %d", ErrCorrupt, key, e.Version)
	}
	next, err := c.state.Next(e)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	c.state = next
	c.tail.add(append([]byte(nil), value...), next)
	return nil
}
