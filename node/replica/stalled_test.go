package replica

import (
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
)

// TestStalledDiskAnswersAtOnce: whoever waits for a disk that does not answer is
// told so, exactly once; nobody begins to wait; what is on disk is read on; and
// when the disk is back everything goes on.
func TestStalledDiskAnswersAtOnce(t *testing.T) {
	b := newBench(t)
	b.put(t, "old", "v")
	b.jobs.run()
	_, synced := b.put(t, "k", "v")
	got := b.merge(t, item("m", foreign(9, 1, 1, "v")))
	var reads []error
	read := func(key string) {
		b.Read(at(key), func(o []byte, err error) {
			if err != nil && o != nil {
				t.Error("a read got what may not be on disk")
			}
			reads = append(reads, err)
		})
	}
	read("k")
	if len(*synced)+got[0].calls+len(reads) != 0 {
		t.Fatal("answered before the sync")
	}
	b.db.hangs = true
	b.FailWaiting()
	if len(*synced) != 1 || got[0].calls != 1 || len(reads) != 1 {
		t.Fatalf("answers: %v, %+v, %v", *synced, got, reads)
	}
	for _, err := range []error{(*synced)[0], got[0].err, reads[0]} {
		wantCode(t, err, errcode.Unavailable, errcode.Indeterminate)
	}
	applies := b.db.applies
	_, err := b.Update(at("k2"), blind("v"), func(error) { t.Error("called back") })
	wantCode(t, err, errcode.Unavailable, errcode.NotApplied)
	wantCode(t, b.merge(t, item("m2", foreign(9, 2, 1, "v")))[0].err, errcode.Unavailable, errcode.NotApplied)
	wantCode(t, b.claim("k", "id", vote(9, 0), noon).err, errcode.Unavailable, errcode.NotApplied)
	if b.db.applies != applies {
		t.Error("something was written")
	}
	read("old")
	read("k")
	if len(reads) != 3 || reads[1] != nil {
		t.Fatalf("reads of what is on disk and what is not: %v", reads[1:])
	}
	wantCode(t, reads[2], errcode.Unavailable, errcode.Indeterminate)
	if c := b.lookup("old", "id", noon); c.calls != 1 || c.err != nil {
		t.Errorf("lookup: %+v", c)
	}

	// Reads hang, too.
	b.db.reads = true
	read("old")
	wantCode(t, reads[3], errcode.Unavailable, errcode.NotApplied)
	b.ReadDigest(at("old"), func(_ [16]byte, err error) { wantCode(t, err, errcode.Unavailable, errcode.NotApplied) })
	wantCode(t, b.lookup("old", "id", noon).err, errcode.Unavailable, errcode.NotApplied)
	b.Scan(&coord.ScanRange{Partition: 3, Tenant: 7, MaxKeys: 1, MaxBytes: 1 << 20, Budget: 100}, func(_ coord.ScanPiece, err error) {
		wantCode(t, err, errcode.Unavailable, errcode.NotApplied)
	})
	last := len(b.jobs.jobs) - 1
	scan := b.jobs.jobs[last]
	b.jobs.jobs = b.jobs.jobs[:last]
	scan()

	// The sync that hung ends.
	b.db.hangs, b.db.reads = false, false
	b.jobs.run()
	if len(*synced) != 1 || got[0].calls != 1 {
		t.Errorf("answered again: %v, %+v", *synced, got)
	}
	read("k")
	_, synced = b.put(t, "k3", "v")
	b.jobs.run()
	if len(reads) != 5 || reads[4] != nil || len(*synced) != 1 || (*synced)[0] != nil {
		t.Errorf("afterwards: %v, %v", reads[4:], *synced)
	}
}

// TestFailWaitingDuringASync: those whose sync is under way are told, and those
// who came while it was.
func TestFailWaitingDuringASync(t *testing.T) {
	b := newBench(t)
	_, first := b.put(t, "a", "v")
	var second *[]error
	b.db.duringWait = func() {
		b.db.duringWait = nil
		_, second = b.put(t, "b", "v")
		b.db.hangs = true
		b.FailWaiting()
		if len(*first) != 1 || len(*second) != 1 {
			t.Errorf("told while the sync is under way: %v, %v", *first, *second)
		}
		b.db.hangs = false
	}
	b.jobs.run()
	if len(*first) != 1 || len(*second) != 1 {
		t.Fatalf("told: %v, %v", *first, *second)
	}
	wantCode(t, (*first)[0], errcode.Unavailable, errcode.Indeterminate)
	wantCode(t, (*second)[0], errcode.Unavailable, errcode.Indeterminate)
}
