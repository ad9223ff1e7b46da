package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/y"
	"google.golang.org/protobuf/proto"
)

// checkBadgerDir refuses a folder that Badger would take for something else than it
// is, or would end the process over: without its manifest it deletes all tables there
// are, and of a table it reads the index before it looks at its checksum.
func checkBadgerDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	listed, manifest, err := listedTables(dir)
	if err != nil {
		return err
	}
	var of string // a file that says that there was one
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch filepath.Ext(e.Name()) {
		case ".sst":
			of = e.Name()
			if listed[e.Name()] {
				err = checkTable(path)
			} // else its making was cut short, and what was to be in it is in a log still
		case ".mem", ".vlog":
			of = e.Name()
		}
		if err != nil {
			return fmt.Errorf("%w: table %s: %w", ErrCorrupt, path, err)
		}
	}
	if !manifest && of != "" {
		return fmt.Errorf("%w: there is %s and no %s", ErrCorrupt, of, badger.ManifestFilename)
	}
	return nil
}

// listedTables returns the file names of the tables that Badger's manifest lists; there
// is false if there is no manifest.
func listedTables(dir string) (listed map[string]bool, there bool, err error) {
	path := filepath.Join(dir, badger.ManifestFilename)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer f.Close() // only read
	m, _, err := badger.ReplayManifestFile(f, 0, badger.DefaultOptions(dir))
	if err != nil {
		return nil, true, fmt.Errorf("%w: manifest %s: %w", ErrCorrupt, path, err)
	}
	listed = make(map[string]bool, len(m.Tables))
	for id := range m.Tables {
		listed[fmt.Sprintf("%06d.sst", id)] = true
	}
	return listed, true, nil
}

// maxTable bounds the size of a table, in bytes. Badger makes them of 2 MiB.
const maxTable = 64 << 20

// checkTable holds the index of a table against its checksum. A table ends with the
// index, its length, its checksum and that one's length.
func checkTable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxTable+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if len(b) > maxTable {
		return fmt.Errorf("it has more than %d bytes", maxTable)
	}
	// last takes a part that is followed by its length off the end.
	last := func() ([]byte, error) {
		if len(b) < 4 {
			return nil, io.ErrUnexpectedEOF
		}
		n := int64(binary.BigEndian.Uint32(b[len(b)-4:]))
		b = b[:len(b)-4]
		if n > int64(len(b)) {
			return nil, io.ErrUnexpectedEOF
		}
		part := b[int64(len(b))-n:]
		b = b[:int64(len(b))-n]
		return part, nil
	}
	text, err := last()
	if err != nil {
		return fmt.Errorf("its checksum: %w", err)
	}
	var sum pb.Checksum
	if err := proto.Unmarshal(text, &sum); err != nil {
		return fmt.Errorf("its checksum: %w", err)
	}
	if sum.Algo != pb.Checksum_CRC32C {
		return fmt.Errorf("its checksum is of kind %d", sum.Algo)
	}
	index, err := last()
	if err != nil {
		return fmt.Errorf("its index: %w", err)
	}
	if len(index) == 0 {
		return fmt.Errorf("its index is empty")
	}
	return y.VerifyChecksum(index, &sum)
}
