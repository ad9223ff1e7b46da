package gossip

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/pairdb/pairdb/gossip/meta"
)

// TestSpaceOfDeletedMetadataComesBack: a store that keeps 20 entries of 57 KiB and has
// deleted a thousand before them does not have their size.
func TestSpaceOfDeletedMetadataComesBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "meta")
	open := func() *badgerStore {
		t.Helper()
		s, err := openBadger(dir, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	key := func(n int) string { return fmt.Sprintf("log/%016x", n) }
	const kept, lives, each = 20, 6, 200
	n := 0
	for range lives {
		s := open()
		for range each {
			n++
			records := []meta.Record{{Key: key(n), Value: bytes.Repeat([]byte{byte(n)}, 57<<10)}, {Key: key(n - kept)}}
			if err := s.Write(records); err != nil {
				t.Fatal(err)
			}
		}
		if !s.collectable() || s.collectable() {
			t.Error("deletions are not noticed, or noticed twice")
		}
		s.collect()
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
	}
	var size int64
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if written := int64(lives * each * 57 << 10); size > written/2 {
		t.Errorf("%d KiB on the disk of %d KiB written", size>>10, written>>10)
	}
	s := open()
	defer s.close()
	err = s.Load(func(k string, v []byte) error {
		if k != key(n-kept+1) || len(v) != 57<<10 || v[0] != byte(n-kept+1) {
			return fmt.Errorf("%s with %d bytes", k, len(v))
		}
		n++
		return nil
	})
	if err != nil || n != lives*each+kept {
		t.Errorf("%d records after %s: %v", n-lives*each, key(n), err)
	}
}
