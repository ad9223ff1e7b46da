package main

import "math/bits"

// hist is a log-linear histogram of nanoseconds with 64 steps for each power of
// two, so that a quantile is at most 1.6 % off.
type hist struct {
	n     [64 * 64]uint64
	count uint64
}

func (h *hist) add(ns int64) {
	h.n[bucket(uint64(max(0, ns)))]++
	h.count++
}

func bucket(v uint64) int {
	if v < 64 {
		return int(v)
	}
	e := bits.Len64(v) - 7
	return (e+1)*64 + int(v>>e) - 64
}

// lowest returns the smallest value of a bucket.
func lowest(b int) float64 {
	if b < 64 {
		return float64(b)
	}
	e := b/64 - 1
	return float64((uint64(b%64) + 64) << e)
}

func (h *hist) merge(o *hist) {
	for i := range o.n {
		h.n[i] += o.n[i]
	}
	h.count += o.count
}

// quantile returns the q-quantile in microseconds.
func (h *hist) quantile(q float64) float64 {
	at := min(uint64(q*float64(h.count)), max(h.count, 1)-1)
	var sum uint64
	for i, n := range h.n {
		if sum += n; sum > at {
			return lowest(i) / 1e3
		}
	}
	return 0
}
