package disk

// maxPause is the longest pause between two tries, in looks at the disk.
const maxPause = 64

// Retry says when a failed job is tried again: as soon as there is more free
// space than when it failed, and else after pauses that double. The zero value
// is for a job that has not failed.
type Retry struct {
	pause, left int
	free        int64
}

// Failed says that the job failed with so many bytes free.
func (r *Retry) Failed(free int64) {
	r.pause = min(max(1, 2*r.pause), maxPause)
	r.left, r.free = r.pause, free
}

// Worked says that the job was done.
func (r *Retry) Worked() { *r = Retry{} }

// Due is asked once for each look at the disk, with the bytes that are free.
func (r *Retry) Due(free int64) bool {
	r.left--
	if free > r.free {
		// A mark, so that the next rise counts from here.
		r.free = free
		return true
	}
	return r.left <= 0
}
