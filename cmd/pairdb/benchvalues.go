package main

import "math/rand/v2"

// valuePool is in how many places a value's random half can begin.
const valuePool = 1 << 20

// valueMaker makes values of one size, the first half random and the second a
// repeated byte, so that they compress to about half. Making one costs a copy,
// not the drawing of its bytes.
type valueMaker struct {
	random *rand.Rand
	pool   []byte
	value  []byte
}

// newValueMaker cuts from pool, which is shared and has to be larger than half a
// value.
func newValueMaker(pool []byte, seed, stream uint64, size int) *valueMaker {
	// Another sequence than the one that chooses keys.
	m := &valueMaker{random: rand.New(rand.NewPCG(^seed, stream)), pool: pool, value: make([]byte, size)}
	for i := size / 2; i < size; i++ {
		m.value[i] = 'x'
	}
	return m
}

// randomBytes are always the same for a seed.
func randomBytes(seed uint64, n int) []byte {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	b := make([]byte, n)
	// A ChaCha8 source never fails.
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

// next returns a value that is good until the following call.
func (m *valueMaker) next() []byte {
	half := len(m.value) / 2
	at := m.random.IntN(len(m.pool) - half)
	copy(m.value[:half], m.pool[at:])
	return m.value
}
