package ring

// At is the same layout as entry v would put in force: a proposal that comes too late
// for its slot goes into the next one.
func (l *Layout) At(v Version) *Layout {
	n := *l
	n.version = v
	return &n
}
