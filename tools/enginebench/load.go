package main

import (
	"math"
	"math/rand/v2"
)

// putKey writes key x: 16 decimal digits. The data set has the even ones, so
// that x+1 lies between two keys and is never there.
func putKey(b []byte, x uint64) {
	for i := 15; i >= 0; i-- {
		b[i] = byte('0' + x%10)
		x /= 10
	}
}

// perm is a bijection on [0, n), a Feistel network of four rounds: each key is
// filled once, in random order.
type perm struct{ n, half uint64 }

func newPerm(n uint64) perm {
	half := uint64(1)
	for uint64(1)<<(2*half) < n {
		half++
	}
	return perm{n, half}
}

func (p perm) at(i uint64) uint64 {
	mask := uint64(1)<<p.half - 1
	for {
		l, r := i>>p.half, i&mask
		for k := uint64(1); k <= 4; k++ {
			x := (r + k*0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9
			x ^= x >> 29
			x *= 0x94d049bb133111eb
			x ^= x >> 32
			l, r = r, (l^x)&mask
		}
		i = l<<p.half | r
		if i < p.n {
			return i
		}
	}
}

// values is 1 MiB of which half can be compressed, as with db_bench's
// compression_ratio 0.5; values are slices of it.
var values = func() []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 0, 1<<20)
	for len(b) < 1<<20 {
		var h [48]byte
		for i := range h {
			h[i] = byte(' ' + r.UintN(95))
		}
		b = append(append(b, h[:]...), h[:]...)
	}
	return b[:1<<20]
}()

func value(r *rand.Rand, n int) []byte {
	at := r.IntN(len(values) - n)
	return values[at : at+n]
}

// zipf draws from [0, n), small numbers more often, as YCSB does (Gray et al.,
// "Quickly generating billion-record synthetic databases").
type zipf struct {
	n                        uint64
	theta, alpha, zetan, eta float64
}

func newZipf(n uint64, theta float64) *zipf {
	z := &zipf{n: n, theta: theta, alpha: 1 / (1 - theta)}
	for i := uint64(1); i <= n; i++ {
		z.zetan += 1 / math.Pow(float64(i), theta)
	}
	z.eta = (1 - math.Pow(2/float64(n), 1-theta)) / (1 - (1+math.Pow(0.5, theta))/z.zetan)
	return z
}

func (z *zipf) next(r *rand.Rand) uint64 {
	u := r.Float64()
	uz := u * z.zetan
	switch {
	case uz < 1:
		return 0
	case uz < 1+math.Pow(0.5, z.theta):
		return 1
	default:
		return uint64(float64(z.n) * math.Pow(z.eta*u-z.eta+1, z.alpha))
	}
}
