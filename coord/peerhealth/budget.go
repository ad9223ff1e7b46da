package peerhealth

import "sync/atomic"

// Budget lets something extra be done for a part of what is done anyway: each
// operation puts Share thousandths of a token in, each extra takes one out. So a
// cluster that is slow as a whole is not given much more to do. It holds at most
// Burst tokens, with which it begins. It is safe for concurrent use.
type Budget struct {
	share, burst int64
	thousandths  atomic.Int64
}

// NewBudget returns a full one.
func NewBudget(share, burst int) *Budget {
	b := &Budget{share: int64(share), burst: 1000 * int64(burst)}
	b.thousandths.Store(b.burst)
	return b
}

// Earn notes an operation. The bound on tokens may be missed by as many
// operations as earn at one moment.
func (b *Budget) Earn() {
	if b.thousandths.Load() < b.burst {
		b.thousandths.Add(b.share)
	}
}

// Take takes a token, or returns false if there is none.
func (b *Budget) Take() bool {
	for {
		have := b.thousandths.Load()
		if have < 1000 {
			return false
		}
		if b.thousandths.CompareAndSwap(have, have-1000) {
			return true
		}
	}
}
