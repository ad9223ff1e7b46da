package config

// The shares of the memory that this process may use which the engine's two
// large consumers get unless they are told otherwise. One memtable takes writes
// while two more may wait for their flush, so that memtables and cache together
// stay below half; the rest is for requests under way, what the garbage collector
// has not come to yet, indexes and filters. From 1 GiB on the defaults fit.
const (
	memtableShare = 16
	cacheShare    = 4
	// minMemtable is what a memtable has at the least, in bytes: a smaller one
	// holds no value of the largest size together with others.
	minMemtable = 16 * mib
)

// fitMemory returns the sizes of memtable and cache for a process that may use
// memory bytes, or that nobody limits if it is 0: those given, or less.
func fitMemory(memory int64, memtable, cache Size) (Size, Size) {
	if memory <= 0 {
		return memtable, cache
	}
	share := func(parts int64) Size { return Size(memory / parts / mib * mib) }
	return min(memtable, max(share(memtableShare), minMemtable)), min(cache, share(cacheShare))
}

// fit bounds what nobody has set by the memory there is.
func (l *loader) fit(memory int64) {
	st := &l.config.Storage
	memtable, cache := fitMemory(memory, st.MemtableSize, st.CacheSize)
	for _, s := range []struct {
		path  string
		field *Size
		fits  Size
	}{
		{"storage.memtable_size", &st.MemtableSize, memtable},
		{"storage.cache_size", &st.CacheSize, cache},
	} {
		if *s.field != s.fits && l.sources[s.path].Kind == "default" {
			*s.field = s.fits
			l.sources[s.path] = Source{Kind: "memory", Where: "default, bounded by " + (Size(memory) / mib * mib).String() + " of memory"}
		}
	}
}
