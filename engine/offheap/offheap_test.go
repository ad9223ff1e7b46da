package offheap

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"
)

func TestClasses(t *testing.T) {
	for n := 1; n <= maxSlabBlock; n++ {
		c := class(n)
		size := classSize(c)
		if size < n || c > 0 && classSize(c-1) >= n {
			t.Fatalf("%d bytes are in class %d of %d, after one of %d", n, c, size, classSize(max(0, c-1)))
		}
		if waste := size - n; waste >= minStep && waste*16 > n {
			t.Fatalf("%d bytes take %d", n, size)
		}
	}
}

// Blocks never share a byte, whatever is allocated and freed beside them, and
// all memory goes back.
func TestBlocksAreDisjoint(t *testing.T) {
	before := Mapped()
	h := NewHeap()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(g)))
			var held []Block
			mark := func(b *Block, id uint64) {
				d := b.Bytes()
				binary.LittleEndian.PutUint64(d, id)
				binary.LittleEndian.PutUint64(d[len(d)-8:], id)
			}
			var ids []uint64
			for i := range 20_000 {
				if len(held) > 0 && rnd.IntN(100) < 48+len(held)/20 {
					k := rnd.IntN(len(held))
					d := held[k].Bytes()
					if binary.LittleEndian.Uint64(d) != ids[k] && len(d) >= 16 || binary.LittleEndian.Uint64(d[len(d)-8:]) != ids[k] {
						t.Errorf("a block of %d bytes was overwritten", len(d))
						return
					}
					held[k].Free()
					held[k], ids[k] = held[len(held)-1], ids[len(ids)-1]
					held, ids = held[:len(held)-1], ids[:len(ids)-1]
					continue
				}
				n := 8 + rnd.IntN(5000)
				if rnd.IntN(50) == 0 {
					n = rnd.IntN(3*maxSlabBlock) + 8
				}
				b := h.Alloc(n)
				if len(b.Bytes()) != n {
					t.Errorf("%d bytes instead of %d", len(b.Bytes()), n)
				}
				id := uint64(g)<<32 | uint64(i)
				mark(&b, id)
				held, ids = append(held, b), append(ids, id)
			}
			for i := range held {
				held[i].Free()
			}
		})
	}
	wg.Wait()
	if n := h.Used(); n != 0 {
		t.Errorf("%d bytes in use at the end", n)
	}
	if n := Mapped() - before; n > keepEmpty*slabSize {
		t.Errorf("%d bytes are still mapped", n)
	}
}

func TestRegion(t *testing.T) {
	before := Mapped()
	r := NewRegion(3 << 20)
	b := r.Bytes()
	if len(b) != 3<<20 || b[0] != 0 || b[len(b)-1] != 0 {
		t.Fatal("not zeroed bytes of the size asked for")
	}
	b[len(b)-1] = 1
	if Mapped()-before != 3<<20 {
		t.Errorf("mapped %d", Mapped()-before)
	}
	r.Free()
	r.Free()
	if Mapped() != before {
		t.Errorf("%d bytes are still mapped", Mapped()-before)
	}
}
