package ring

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Errors of decoding.
var (
	// ErrCorrupt marks bytes that are no valid encoding.
	ErrCorrupt = errors.New("corrupt encoding")
	// ErrNewerFormat marks bytes written by a newer version of the program.
	ErrNewerFormat = errors.New("written by a newer version")
)

const layoutFormat = 1

// MaxLayoutBytes bounds an encoded layout.
const MaxLayoutBytes = 1 << 20

// AppendLayout appends the encoding of l to dst.
//
// Layout, integers big-endian: format u8 = 1, version u64, partitions u16 (its
// binary logarithm), node count u16, nodes (id 16, capacity u32, name and zone
// as u8 length and bytes), row width u8, rows (u16 node indexes), voter count
// u8, voters (u16 node indexes, rising), run count u16, runs (length u16,
// version u64) of per-partition versions.
func AppendLayout(dst []byte, l *Layout) []byte {
	dst = append(dst, layoutFormat)
	dst = binary.BigEndian.AppendUint64(dst, uint64(l.version))
	dst = binary.BigEndian.AppendUint16(dst, uint16(64-l.shift))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(l.nodes)))
	for _, n := range l.nodes {
		dst = append(dst, n.ID[:]...)
		dst = binary.BigEndian.AppendUint32(dst, n.Capacity)
		dst = appendString8(dst, n.Name)
		dst = appendString8(dst, n.Zone)
	}
	dst = append(dst, byte(l.width))
	for _, i := range l.table {
		dst = binary.BigEndian.AppendUint16(dst, i)
	}
	dst = append(dst, byte(len(l.voters)))
	for _, v := range l.voters {
		i, _ := l.index(v)
		dst = binary.BigEndian.AppendUint16(dst, uint16(i))
	}
	return appendRuns(dst, l.pv)
}

func appendRuns(dst []byte, pv []Version) []byte {
	at := len(dst)
	dst = append(dst, 0, 0)
	runs := 0
	for i := 0; i < len(pv); {
		j := i
		for j < len(pv) && pv[j] == pv[i] {
			j++
		}
		dst = binary.BigEndian.AppendUint16(dst, uint16(j-i))
		dst = binary.BigEndian.AppendUint64(dst, uint64(pv[i]))
		runs++
		i = j
	}
	binary.BigEndian.PutUint16(dst[at:], uint16(runs))
	return dst
}

func appendString8(dst []byte, s string) []byte {
	return append(append(dst, byte(len(s))), s...)
}

// DecodeLayout reads what AppendLayout wrote. It refuses anything that no layout
// can be, so that a decoded layout is as sound as a built one.
func DecodeLayout(b []byte) (*Layout, error) { return decodeLayout(b, 0) }

// decodeLayout is DecodeLayout of a layout of which partitions may have been touched by
// entries up to newest: after an abort the layout is what it was, and they are newer.
func decodeLayout(b []byte, newest Version) (*Layout, error) {
	if len(b) > MaxLayoutBytes {
		return nil, fmt.Errorf("decode layout of %d bytes, at most %d: %w", len(b), MaxLayoutBytes, ErrCorrupt)
	}
	r := reader{b: b}
	if f := r.u8(); f != layoutFormat && !r.bad {
		return nil, fmt.Errorf("decode layout: %w", formatError(f, layoutFormat))
	}
	l := &Layout{version: Version(r.u64())}
	bits := r.u16()
	if r.bad || bits > 14 || l.version == 0 {
		return nil, fmt.Errorf("decode layout: header: %w", ErrCorrupt)
	}
	partitions := 1 << bits
	l.shift = shiftFor(partitions)
	if err := l.decodeNodes(&r); err != nil {
		return nil, fmt.Errorf("decode layout: %w", err)
	}
	if err := l.decodeTable(&r, partitions); err != nil {
		return nil, fmt.Errorf("decode layout: %w", err)
	}
	if err := l.decodeVoters(&r); err != nil {
		return nil, fmt.Errorf("decode layout: %w", err)
	}
	if err := l.decodeRuns(&r, partitions, max(newest, l.version)); err != nil {
		return nil, fmt.Errorf("decode layout: %w", err)
	}
	if len(r.b) != 0 {
		return nil, fmt.Errorf("decode layout: %d bytes left over: %w", len(r.b), ErrCorrupt)
	}
	return l, nil
}

func formatError(got, known byte) error {
	if got > known {
		return fmt.Errorf("format %d, this version knows up to %d: %w", got, known, ErrNewerFormat)
	}
	return fmt.Errorf("format %d: %w", got, ErrCorrupt)
}

func (l *Layout) decodeNodes(r *reader) error {
	n := int(r.u16())
	if n > MaxNodes || len(r.b) < n*22 {
		return fmt.Errorf("%d nodes: %w", n, ErrCorrupt)
	}
	l.nodes = make([]LayoutNode, n)
	for i := range l.nodes {
		node := &l.nodes[i]
		copy(node.ID[:], r.take(16))
		node.Capacity = r.u32()
		node.Name = r.string8()
		node.Zone = r.string8()
	}
	if r.bad {
		return fmt.Errorf("nodes: %w", ErrCorrupt)
	}
	if err := checkNodes(l.nodes); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}

func (l *Layout) decodeTable(r *reader, partitions int) error {
	l.width = int(r.u8())
	if l.width != min(MaxRF, len(l.nodes)) || len(r.b) < partitions*l.width*2 {
		return fmt.Errorf("rows of %d: %w", l.width, ErrCorrupt)
	}
	l.table = make([]uint16, partitions*l.width)
	for i := range l.table {
		l.table[i] = r.u16()
		from := i - i%l.width
		if int(l.table[i]) >= len(l.nodes) {
			return fmt.Errorf("owner %d of %d nodes: %w", l.table[i], len(l.nodes), ErrCorrupt)
		}
		for _, other := range l.table[from:i] {
			if other == l.table[i] {
				return fmt.Errorf("partition %d has one owner twice: %w", i/l.width, ErrCorrupt)
			}
		}
	}
	return nil
}

func (l *Layout) decodeVoters(r *reader) error {
	n := int(r.u8())
	if n == 0 || n > maxVoters || len(r.b) < 2*n {
		return fmt.Errorf("%d voters: %w", n, ErrCorrupt)
	}
	last := -1
	for range n {
		i := int(r.u16())
		if i <= last || i >= len(l.nodes) {
			return fmt.Errorf("voter %d: %w", i, ErrCorrupt)
		}
		last = i
		l.voters = append(l.voters, l.nodes[i].ID)
	}
	return nil
}

func (l *Layout) decodeRuns(r *reader, partitions int, newest Version) error {
	runs := int(r.u16())
	l.pv = make([]Version, 0, partitions)
	for range runs {
		n, v := int(r.u16()), Version(r.u64())
		if r.bad || n == 0 || n > partitions-len(l.pv) || v == 0 || v > newest ||
			len(l.pv) > 0 && l.pv[len(l.pv)-1] == v {
			return fmt.Errorf("partition versions: %w", ErrCorrupt)
		}
		for range n {
			l.pv = append(l.pv, v)
		}
	}
	if len(l.pv) != partitions {
		return fmt.Errorf("versions of %d of %d partitions: %w", len(l.pv), partitions, ErrCorrupt)
	}
	return nil
}

// reader takes fields off a buffer. After the first shortage it is bad and gives
// zeroes; callers look once, before they believe anything.
type reader struct {
	b   []byte
	bad bool
}

// take gives the next n bytes, aliasing the buffer, or nil.
func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || len(r.b) < n {
		r.bad = true
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u8() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) string8() string { return string(r.take(int(r.u8()))) }
