package coord_test

import (
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

func (s *ttlRun) nextRead(k *mortalKey) {
	s.w.after(s.think(k.base), func() {
		if s.ended {
			return
		}
		level := quorum.Quorum
		if s.w.rand(k.base).IntN(4) == 0 {
			level = quorum.All
		}
		s.get(k, level, func(error) { s.nextRead(k) })
	})
}

// get reads a key and judges the answer.
func (s *ttlRun) get(k *mortalKey, level quorum.Level, then func(error)) {
	n := s.pick(k.base)
	if n == nil {
		s.w.after(s.think(k.base), func() { then(nil) })
		return
	}
	began, name, version, busy, now, answered := s.w.now, k.name, k.version, k.busy, k.now, false
	finish := func(r coord.GetResponse, err error) {
		if answered {
			return
		}
		answered = true
		var shown []causal.Sibling
		if err == nil {
			shown = r.Siblings
		}
		if err == nil || err.(*coord.Error).Code == errcode.KeyNotFound {
			s.done["looked"]++
			for i := range shown {
				s.sawMortal(&shown[i], now.index, began)
			}
			if !busy && version == k.version && name == k.name {
				s.sawAlone(k, now, shown, began)
			}
			err = nil
		}
		then(err)
	}
	s.w.after(clientPatience, func() { finish(coord.GetResponse{}, &coord.Error{Code: errcode.Timeout}) })
	n.coord.StartGet(coord.GetRequest{Tenant: simTenant, Key: []byte(name), Level: level}, finish)
}

// sawMortal judges a value that a read begun then has returned; atLeast is the
// index of the last write that was acknowledged before it.
func (s *ttlRun) sawMortal(v *causal.Sibling, atLeast int, began time.Duration) {
	m := s.written[string(v.Value)]
	if m == nil || m.value == "" {
		s.fail("read %q, which was never made", v.Value)
		return
	}
	if m.index < atLeast {
		s.fail("read %q after write %d was acknowledged", v.Value, atLeast)
	}
	at, mortal := v.Expiry()
	if mortal && at.Sub(simEpoch) <= began+s.slowest {
		s.fail("read %q at %v, which ended at %v", v.Value, began, at.Sub(simEpoch))
	}
	if old, ok := s.expires[m.value]; ok && old != v.ExpiresAt {
		s.fail("%q expires at %d and at %d", v.Value, old, v.ExpiresAt)
	}
	s.expires[m.value] = v.ExpiresAt
	if !m.acked {
		return
	}
	if d := simInstant(v.ExpiresAt); mortal != m.ends || mortal && (d < m.from || d > m.to) {
		s.fail("%q expires at %v, not from %v to %v", v.Value, d, m.from, m.to)
	} else if mortal {
		m.from, m.to = d, d
	}
}

// sawAlone judges what a read has returned while nobody wrote.
func (s *ttlRun) sawAlone(k *mortalKey, now *mortal, shown []causal.Sibling, began time.Duration) {
	switch {
	case len(shown) == 0 && s.surelyLive(now, s.w.now):
		s.fail("%s: %q is hidden at %v, it ends from %v to %v", k.name, now.value, s.w.now, now.from, now.to)
	case len(shown) == 0 && now.ends:
		s.done["expired"]++
	case len(shown) > 0 && (len(shown) > 1 || shown[0].Dot != now.dot || s.surelyGone(now, began)):
		s.fail("%s: read %q at %v, not %+v", k.name, shown[0].Value, began, *now)
	}
}
