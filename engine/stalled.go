package engine

import (
	"sync"
	"sync/atomic"

	"github.com/pairdb/pairdb/engine/vfs"
)

// stallState is what the DB knows of a disk that does not answer.
type stallState struct {
	watch *vfs.Watch
	count atomic.Int64

	check sync.Mutex // held by checkStalls, so that events come in order
	mu    sync.Mutex
	now   vfs.Pending // the call that hangs; Age is 0 if none does
}

// checkStalls reports calls that hang, and that they no longer do. It touches no
// file.
func (db *DB) checkStalls() {
	s := &db.stalls
	s.check.Lock()
	defer s.check.Unlock()
	p, under := s.watch.Look()
	if !under || p.Age < db.opts.StallAfter {
		p = vfs.Pending{}
	}
	s.mu.Lock()
	old := s.now
	s.now = p
	s.mu.Unlock()
	switch {
	case p.Age > 0 && old.Age == 0:
		s.count.Add(1)
		db.opts.Logger.Error("disk does not answer", "dir", db.dir, "op", p.Op.String(), "file", p.File.String(), "for", p.Age)
		if f := db.opts.Events.DiskStalled; f != nil {
			f(p)
		}
	case p.Age == 0 && old.Age > 0:
		db.opts.Logger.Info("disk answers again", "dir", db.dir, "op", old.Op.String(), "file", old.File.String(), "after", old.Age)
		if f := db.opts.Events.DiskRecovered; f != nil {
			f(old)
		}
	}
}
