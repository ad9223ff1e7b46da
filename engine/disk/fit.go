package disk

// Sizes are those of the parts of a DB, in bytes.
type Sizes struct {
	Segment  int64 // of the log
	MemTable int64
	Base     int64 // the target of the base level
	Table    int64
	Manifest int64
}

// Fit returns the sizes for a file system of total bytes: those wanted, or on a
// small disk such a part of it that what the breaker keeps is enough for the
// reserve and for any one compaction. The parts begin to count below 6 GiB
// (log), 4 GiB (manifest), 16 GiB (memtables), 32 GiB (tables) and 64 GiB (base
// level) with the default sizes.
func Fit(want Sizes, total int64) Sizes {
	part := func(size *int64, n, least int64) { *size = min(*size, max(total/n, least)) }
	part(&want.Segment, 100, 256<<10)
	part(&want.MemTable, 256, 64<<10)
	part(&want.Base, 256, 128<<10)
	part(&want.Table, 1024, 32<<10)
	part(&want.Manifest, 1024, 32<<10)
	return want
}

// Reserve returns what Limits.Reserve has to be for a DB of such sizes that
// keeps up to immutable full memtables beside the one in use.
func Reserve(s Sizes, immutable int) int64 {
	return s.MemTable*int64(1+immutable) + s.Segment + 2*s.Manifest
}
