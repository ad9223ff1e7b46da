package cache

// sketch estimates how often a key was used lately: a count-min sketch of
// 4-bit counters, halved every so often so that old fame fades. The four
// counters of a key lie in one cache line.
type sketch struct {
	words     []uint64 // a power of two, >= 8
	additions int      // since the last halving
}

const (
	// sampleFactor times the number of counted entries is the length of
	// memory, in uses.
	sampleFactor = 10
	countMax     = 15
	halfMask     = 0x7777777777777777
)

func newSketch(entries int) sketch {
	n := 64
	for n < entries {
		n *= 2
	}
	return sketch{words: make([]uint64, n)}
}

// rehash decouples the sketch from the table and the shards, which use the
// hash as it is.
func rehash(h uint64) uint64 {
	h *= 0x9e3779b97f4a7c15
	return h ^ h>>31
}

// add counts a use.
func (s *sketch) add(h uint64) {
	h = rehash(h)
	line := (h >> 32) & uint64(len(s.words)-1) &^ 7
	added := false
	for i := range uint64(4) {
		b := h >> (8 * i)
		w := &s.words[line+2*i+b&1]
		shift := (b >> 1 & 15) * 4
		if *w>>shift&countMax != countMax {
			*w += 1 << shift
			added = true
		}
	}
	if !added {
		return
	}
	if s.additions++; s.additions >= sampleFactor*len(s.words) {
		for i := range s.words {
			s.words[i] = s.words[i] >> 1 & halfMask
		}
		s.additions /= 2
	}
}

// count estimates the uses, 0 to 15.
func (s *sketch) count(h uint64) uint64 {
	h = rehash(h)
	line := (h >> 32) & uint64(len(s.words)-1) &^ 7
	least := uint64(countMax)
	for i := range uint64(4) {
		b := h >> (8 * i)
		least = min(least, s.words[line+2*i+b&1]>>((b>>1&15)*4)&countMax)
	}
	return least
}
