// Package storetest has the memory form of meta.Store, for tests, and the suite
// that every form must pass.
package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/pairdb/pairdb/gossip/meta"
)

// ErrCrash is what a Mem gives from the write at which it was told to fail.
var ErrCrash = errors.New("store crashed")

// Mem is a store in memory. It keeps exactly what was durable at a crash. It is
// not safe for concurrent use. The zero value is empty and ready.
type Mem struct {
	durable map[string][]byte
	// Writes counts the writes so far.
	Writes int
	// failAt is the number of the write to fail at, 0 for none; keep says that
	// it becomes durable all the same.
	failAt int
	keep   bool
	failed bool
}

// FailAt makes the n-th write from now, from 1, fail, and all after it. With
// keep, that write becomes durable before it fails: the answer is lost, not the
// data.
func (m *Mem) FailAt(n int, keep bool) { m.failAt, m.keep = m.Writes+n, keep }

// Clone copies what is durable, as a copied data directory would.
func (m *Mem) Clone() *Mem { return &Mem{durable: maps.Clone(m.durable)} }

// Restart makes a failed store work again, with what is durable.
func (m *Mem) Restart() { m.failAt, m.failed = 0, false }

// Load implements meta.Store.
func (m *Mem) Load(visit func(key string, value []byte) error) error {
	for _, k := range slices.Sorted(maps.Keys(m.durable)) {
		if err := visit(k, bytes.Clone(m.durable[k])); err != nil {
			return err
		}
	}
	return nil
}

// Write implements meta.Store.
func (m *Mem) Write(records []meta.Record) error {
	if m.failed {
		return ErrCrash
	}
	m.Writes++
	m.failed = m.Writes == m.failAt
	if m.failed && !m.keep {
		return ErrCrash
	}
	if m.durable == nil {
		m.durable = map[string][]byte{}
	}
	for _, r := range records {
		if r.Value == nil {
			delete(m.durable, r.Key)
		} else {
			m.durable[r.Key] = bytes.Clone(r.Value)
		}
	}
	if m.failed {
		return ErrCrash
	}
	return nil
}

// Run tests one form of store. open gives an empty store and a function that
// closes it, as a crash or an end would, and opens it again.
func Run(t *testing.T, open func(t *testing.T) (s meta.Store, reopen func() meta.Store)) {
	t.Run("empty", func(t *testing.T) {
		s, _ := open(t)
		if got := contents(t, s); got != "" {
			t.Errorf("an empty store holds %q", got)
		}
	})
	t.Run("kept in order over a restart", func(t *testing.T) {
		s, reopen := open(t)
		write(t, s, meta.Record{Key: "b", Value: []byte("2")}, meta.Record{Key: "a", Value: []byte("1")})
		write(t, s, meta.Record{Key: "c", Value: []byte{}}, meta.Record{Key: "a", Value: []byte("3")})
		const want = "a=3 b=2 c= "
		if got := contents(t, s); got != want {
			t.Errorf("holds %q, want %q", got, want)
		}
		if got := contents(t, reopen()); got != want {
			t.Errorf("after a restart %q, want %q", got, want)
		}
	})
	t.Run("deletes", func(t *testing.T) {
		s, reopen := open(t)
		write(t, s, meta.Record{Key: "a", Value: []byte("1")}, meta.Record{Key: "b", Value: []byte("2")})
		write(t, s, meta.Record{Key: "a"}, meta.Record{Key: "never"})
		if got := contents(t, reopen()); got != "b=2 " {
			t.Errorf("holds %q", got)
		}
	})
	t.Run("does not keep the caller's bytes", func(t *testing.T) {
		s, _ := open(t)
		v := []byte("1")
		write(t, s, meta.Record{Key: "a", Value: v})
		v[0] = '9'
		if got := contents(t, s); got != "a=1 " {
			t.Errorf("holds %q", got)
		}
	})
	t.Run("large records", func(t *testing.T) {
		s, reopen := open(t)
		v := bytes.Repeat([]byte("x"), meta.MaxRecordBytes)
		write(t, s, meta.Record{Key: "a", Value: v}, meta.Record{Key: "b", Value: v})
		if got := len(contents(t, reopen())); got != 2*(len(v)+3) {
			t.Errorf("%d bytes came back", got)
		}
	})
	t.Run("stops when told", func(t *testing.T) {
		s, _ := open(t)
		write(t, s, meta.Record{Key: "a", Value: []byte("1")}, meta.Record{Key: "b", Value: []byte("2")})
		stop, n := errors.New("stop"), 0
		if err := s.Load(func(string, []byte) error { n++; return stop }); !errors.Is(err, stop) || n != 1 {
			t.Errorf("%d visits, %v", n, err)
		}
	})
}

func write(t *testing.T, s meta.Store, records ...meta.Record) {
	t.Helper()
	if err := s.Write(records); err != nil {
		t.Fatal(err)
	}
}

func contents(t *testing.T, s meta.Store) string {
	t.Helper()
	var b bytes.Buffer
	if err := s.Load(func(k string, v []byte) error {
		fmt.Fprintf(&b, "%s=%s ", k, v)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Keys lists what is durable, sorted.
func (m *Mem) Keys() []string { return slices.Sorted(maps.Keys(m.durable)) }

// Lose takes a record away, as damage does.
func (m *Mem) Lose(key string) { delete(m.durable, key) }

// Flip inverts the lowest bit of a byte of a record, the i-th modulo its length.
func (m *Mem) Flip(key string, i int) {
	b := bytes.Clone(m.durable[key])
	b[i%len(b)] ^= 1
	m.durable[key] = b
}

// Witness is the memory form of meta.WitnessStore. The zero value is empty.
type Witness struct{ Bytes []byte }

// Read implements meta.WitnessStore.
func (w *Witness) Read() ([]byte, error) { return bytes.Clone(w.Bytes), nil }

// Write implements meta.WitnessStore.
func (w *Witness) Write(b []byte) error {
	w.Bytes = bytes.Clone(b)
	return nil
}
