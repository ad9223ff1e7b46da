package gossip

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/pairdb/pairdb/gossip/meta"
)

// WitnessFile is the file of a data directory that says whose it is and what its
// metadata must have, at least.
const WitnessFile = "NODE"

// maxWitness bounds what is read of it, in bytes.
const maxWitness = 8 << 10

// LostError says that a node's metadata is lost or damaged beyond what can be
// fetched again, whose it was, and what to do. It matches ErrCorrupt.
type LostError = meta.LostError

// witnessFile implements meta.WitnessStore with a file that is replaced whole.
type witnessFile struct{ dir string }

func (f witnessFile) path() string { return filepath.Join(f.dir, WitnessFile) }

// Read implements meta.WitnessStore.
func (f witnessFile) Read() ([]byte, error) {
	file, err := os.Open(f.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(file, maxWitness))
	return b, errors.Join(err, file.Close())
}

// Write implements meta.WitnessStore.
func (f witnessFile) Write(b []byte) error {
	temp := f.path() + ".tmp"
	err := writeSynced(temp, b)
	if err == nil {
		err = os.Rename(temp, f.path())
	}
	if err == nil {
		err = syncDir(f.dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", f.path(), err)
	}
	return nil
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// LostMetadata is the error of a data directory without metadata that can be opened;
// it names the node that the directory was of, if that can be told. err is the
// cause, may be nil.
func LostMetadata(dir, what string, err error) error {
	lost := &LostError{What: what, Err: err}
	if b, readErr := (witnessFile{dir}).Read(); readErr == nil && len(b) > 0 {
		if w, decodeErr := meta.DecodeWitness(b); decodeErr == nil {
			lost.Node = w
		}
	}
	return fmt.Errorf("data directory %s: %w", dir, lost)
}
