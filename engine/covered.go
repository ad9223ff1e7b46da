package engine

import (
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/compaction"
	"github.com/pairdb/pairdb/engine/manifest"
)

// dropCovered drops tables of a level that range deletes above hide whole from
// everybody, if the disk is nearly full: it takes no room, and a compaction that
// carried the range deletes down would need room for all that lies under them.
// What it drops stays hidden until then, so it does not matter what other jobs
// do meanwhile: no tombstone goes as long as something is below that it hides.
func (db *DB) dropCovered() (dropped bool, err error) {
	db.mu.Lock()
	since := db.sinceLocked()
	if !db.coverDueLocked() {
		db.mu.Unlock()
		return false, nil
	}
	rs := db.acquireState()
	snapshots := db.snapshots.list()
	db.mu.Unlock()
	defer rs.release()
	job, err := rs.v.findCovered(since, snapshots)
	if err != nil {
		return false, err
	}
	db.mu.Lock()
	if job == nil {
		db.freeing.uncovered = rs.v
		db.mu.Unlock()
		return false, nil
	}
	for _, f := range job.Inputs {
		if _, ok := findFile(db.version.Version, job.Level, f.Num); !ok {
			job = nil
			break
		}
	}
	if job == nil || db.usableLocked() != nil || db.busy.Conflicts(job) {
		db.mu.Unlock()
		return false, nil
	}
	claimed := db.claimLocked(job)
	db.mu.Unlock()
	return true, db.doCompaction(claimed, job, nil)
}

// coverDueLocked reports whether dropCovered may find something.
func (db *DB) coverDueLocked() bool {
	return db.sinceLocked() != 0 && db.freeing.uncovered != db.version && db.usableLocked() == nil
}

// findCovered returns a job that drops tables of one level, the lowest that has
// any, nil if there is none.
func (v *version) findCovered(since base.SeqNum, snapshots []base.SeqNum) (*compaction.Job, error) {
	var dels []base.RangeDel
	var job *compaction.Job
	for level, tables := range v.levels {
		var files []*manifest.FileMeta
		for _, t := range tables {
			if compaction.Covered(t.FileMeta, dels, snapshots) {
				files = append(files, t.FileMeta)
			}
		}
		if level > 0 && len(files) > 0 {
			job = &compaction.Job{Level: level, Output: level, Inputs: files, Drop: true, Reason: compaction.ReasonCovered}
			job.Start, job.End, job.Excl = compaction.Bounds(files)
		}
		for _, t := range tables {
			if t.RangeDels == 0 || t.LargestSeq < since {
				continue
			}
			o, err := t.acquire()
			if err != nil {
				return nil, err
			}
			dels = append(dels, o.RangeDels()...)
			o.release()
		}
	}
	return job, nil
}
