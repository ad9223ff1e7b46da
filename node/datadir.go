package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/pairdb/pairdb/gossip"
)

// dataFormat is the version of the data directory as a whole: which folders it
// has and what they hold. The parts carry formats of their own.
const dataFormat = 1

// formatFile is the first file made in a data directory and the first looked at.
const formatFile = "FORMAT"

// metaFolder is the folder of a data directory that has identity, votes and log.
const metaFolder = "meta"

// EngineDir is the folder of a data directory that the engine has to itself.
const EngineDir = "data"

// maxFormatBytes bounds what is read of it.
const maxFormatBytes = 4 << 10

// openDataDir makes the directory or checks that this program may use it.
func openDataDir(dir string) (err error) {
	if err := makeDir(dir); err != nil {
		return fmt.Errorf("make data directory %s: %w; choose another with --data-dir", dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open data directory %s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	b, err := readSmall(root, formatFile)
	if errors.Is(err, fs.ErrNotExist) {
		return newDataDir(dir, root)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", filepath.Join(dir, formatFile), err)
	}
	var have struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(b, &have); err != nil || have.Format < 1 {
		return fmt.Errorf("%s is damaged: it holds %q; the directory was left as it is", filepath.Join(dir, formatFile), b)
	}
	if have.Format > dataFormat {
		return fmt.Errorf("data directory %s has format %d, written by a newer version of pairdb; this one knows formats up to %d: run the newer version", dir, have.Format, dataFormat)
	}
	_, metaErr := root.Stat(metaFolder)
	_, dataErr := root.Stat(EngineDir)
	switch {
	case errors.Is(metaErr, fs.ErrNotExist) && errors.Is(dataErr, fs.ErrNotExist):
		return nil
	case errors.Is(metaErr, fs.ErrNotExist):
		return gossip.LostMetadata(dir, fmt.Sprintf("there is data but no %s folder, which has the node's identity", metaFolder), nil)
	default:
		return metaErr
	}
}

// newDataDir claims an empty directory. Anything in it may be somebody's.
func newDataDir(dir string, root *os.Root) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read data directory %s: %w", dir, err)
	}
	for _, e := range entries {
		if e.Name() == metaFolder || e.Name() == gossip.WitnessFile {
			return fmt.Errorf("data directory %s is damaged: it holds %s, as those of pairdb do, and no %s; it was left as it is. "+
				"If nothing else is missing, write {\"format\":%d} to that file", dir, e.Name(), formatFile, dataFormat)
		}
		if e.Name() != "lost+found" && e.Name() != formatFile+".tmp" {
			return fmt.Errorf("directory %s holds %s and is no data directory of pairdb; choose an empty one with --data-dir", dir, e.Name())
		}
	}
	f, err := root.OpenFile(formatFile+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write to data directory %s: %w", dir, err)
	}
	_, err = fmt.Fprintf(f, "{\"format\":%d}\n", dataFormat)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = root.Rename(formatFile+".tmp", formatFile)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("write to data directory %s: %w", dir, err)
	}
	return nil
}

// makeDir makes dir and what is missing above it, each durably in its parent.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

// hasEngine says whether an engine was ever opened in dir.
func hasEngine(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return len(entries) > 0, err
}

var errDataGone = errors.New("this node belongs to a cluster, but its data")

// checkEngineThere refuses a founded node whose data is gone: as an empty
// replica it would answer for writes that it has forgotten.
func checkEngineThere(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "CURRENT")); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w in %s is gone: if it is a mount, mount it; if it is lost, this node must not serve again, since it would deny what it acknowledged", errDataGone, dir)
	} else if err != nil {
		return fmt.Errorf("look for data in %s: %w", dir, err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func readSmall(root *os.Root, name string) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	b := make([]byte, maxFormatBytes)
	n, err := f.ReadAt(b, 0)
	switch {
	case errors.Is(err, io.EOF):
		err = nil
	case err == nil:
		err = fmt.Errorf("it has more than %d bytes", maxFormatBytes)
	}
	return b[:n], errors.Join(err, f.Close())
}

// UsageError marks an error of how the agent was called.
type UsageError struct{ Err error }

// Error returns the text of the cause.
func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *UsageError) Unwrap() error { return e.Err }
