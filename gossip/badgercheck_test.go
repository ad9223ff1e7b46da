package gossip

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/dgraph-io/badger/v4"
)

// TestUnlistedTableIsNoDamage: a process that is killed while Badger writes a table
// leaves a part of it, or an empty file, that no manifest lists. Badger takes it away.
// The same in place of a table that is listed is damage.
func TestUnlistedTableIsNoDamage(t *testing.T) {
	dir := t.TempDir()
	open := func() *badger.DB {
		t.Helper()
		db, err := badger.Open(badger.DefaultOptions(dir).WithLogger(nil))
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	db := open()
	err := db.Update(func(txn *badger.Txn) error { return txn.Set([]byte("k"), []byte("v")) })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	listed, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(listed) == 0 {
		t.Fatalf("tables %v: %v", listed, err)
	}
	for _, left := range []string{"", "a part of a table"} {
		if err := os.WriteFile(filepath.Join(dir, "000777.sst"), []byte(left), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkBadgerDir(dir); err != nil {
			t.Errorf("%q is left of a table: %v", left, err)
		}
	}
	if err := open().Close(); err != nil {
		t.Errorf("with what is left of a table: %v", err)
	}
	if err := os.Truncate(listed[0], 3); err != nil {
		t.Fatal(err)
	}
	if err := checkBadgerDir(dir); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a table that is listed was cut: %v", err)
	}
}
