package engine

import "github.com/pairdb/pairdb/engine/base"

// mergeIter merges iterators with disjoint internal keys into one. The first
// error of any of them ends it.
type mergeIter struct {
	kids []mergeKid
	// heap holds the kids that stand on an entry, the next one in the
	// direction of travel first.
	heap    []*mergeKid
	reverse bool
	err     error
}

type mergeKid struct {
	it  base.InternalIterator
	key base.InternalKey
}

var _ base.InternalIterator = (*mergeIter)(nil)

func newMergeIter(its []base.InternalIterator) *mergeIter {
	m := &mergeIter{kids: make([]mergeKid, len(its)), heap: make([]*mergeKid, 0, len(its))}
	for i, it := range its {
		m.kids[i].it = it
	}
	return m
}

func (m *mergeIter) less(a, b *mergeKid) bool {
	c := base.Compare(a.key, b.key)
	if m.reverse {
		return c > 0
	}
	return c < 0
}

// rebuild makes the heap anew after move was applied to every kid.
func (m *mergeIter) rebuild(reverse bool, move func(*mergeKid) bool) bool {
	if m.err != nil {
		return false
	}
	m.reverse = reverse
	m.heap = m.heap[:0]
	for i := range m.kids {
		k := &m.kids[i]
		if move(k) {
			k.key = k.it.Key()
			m.heap = append(m.heap, k)
		} else if err := k.it.Error(); err != nil {
			m.err = err
			m.heap = m.heap[:0]
			return false
		}
	}
	for i := len(m.heap)/2 - 1; i >= 0; i-- {
		m.down(i)
	}
	return len(m.heap) > 0
}

func (m *mergeIter) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(m.heap) {
			return
		}
		if c+1 < len(m.heap) && m.less(m.heap[c+1], m.heap[c]) {
			c++
		}
		if !m.less(m.heap[c], m.heap[i]) {
			return
		}
		m.heap[i], m.heap[c] = m.heap[c], m.heap[i]
		i = c
	}
}

func (m *mergeIter) First() bool {
	return m.rebuild(false, func(k *mergeKid) bool { return k.it.First() })
}

func (m *mergeIter) Last() bool {
	return m.rebuild(true, func(k *mergeKid) bool { return k.it.Last() })
}

func (m *mergeIter) SeekGE(key base.InternalKey) bool {
	return m.rebuild(false, func(k *mergeKid) bool { return k.it.SeekGE(key) })
}

func (m *mergeIter) SeekLT(key base.InternalKey) bool {
	return m.rebuild(true, func(k *mergeKid) bool { return k.it.SeekLT(key) })
}

func (m *mergeIter) Next() bool {
	top := m.heap[0]
	if m.reverse {
		// The others stand before top's key: bring them behind it. Keys are
		// distinct, so seeking it finds something greater.
		return m.rebuild(false, func(k *mergeKid) bool {
			if k == top {
				return true
			}
			return k.it.SeekGE(top.key)
		}) && m.moved(top.it.Next())
	}
	return m.moved(top.it.Next())
}

func (m *mergeIter) Prev() bool {
	top := m.heap[0]
	if !m.reverse {
		return m.rebuild(true, func(k *mergeKid) bool {
			if k == top {
				return true
			}
			return k.it.SeekLT(top.key)
		}) && m.moved(top.it.Prev())
	}
	return m.moved(top.it.Prev())
}

// moved puts the kid on top where it belongs after it was moved, ok says onto an
// entry or not.
func (m *mergeIter) moved(ok bool) bool {
	top := m.heap[0]
	if ok {
		top.key = top.it.Key()
		if len(m.heap) == 1 {
			return true
		}
	} else {
		if err := top.it.Error(); err != nil {
			m.err = err
			m.heap = m.heap[:0]
			return false
		}
		last := len(m.heap) - 1
		m.heap[0] = m.heap[last]
		m.heap = m.heap[:last]
		if last == 0 {
			return false
		}
	}
	m.down(0)
	return true
}

func (m *mergeIter) Valid() bool           { return len(m.heap) > 0 }
func (m *mergeIter) Key() base.InternalKey { return m.heap[0].key }
func (m *mergeIter) Value() []byte         { return m.heap[0].it.Value() }
func (m *mergeIter) Error() error          { return m.err }

// Close closes all that it merges and returns the first error.
func (m *mergeIter) Close() error {
	err := m.err
	for i := range m.kids {
		if cerr := m.kids[i].it.Close(); err == nil {
			err = cerr
		}
	}
	m.kids, m.heap = nil, m.heap[:0]
	return err
}
