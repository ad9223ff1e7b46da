package node

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"

	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/node/events"
	"github.com/pairdb/pairdb/node/replica"
)

// marksFile is the file of a data directory that says which partitions are damaged.
const marksFile = "quarantine"

// openMarks reads which partitions are under quarantine from an earlier life.
func (n *Node) openMarks() error {
	path := filepath.Join(n.cfg.Node.DataDir, marksFile)
	marks, err := replica.OpenMarks(vfs.OS(), path)
	if errors.Is(err, engine.ErrCorrupt) && n.hasCopies() {
		// Any of them may be meant.
		n.log.Error("the list of damaged partitions is damaged itself: all are fetched again", "file", path, "err", err)
		marks = replica.NewMarks(vfs.OS(), path)
		_, err = marks.Add(n.allPartitions())
	}
	if err != nil {
		return fmt.Errorf("read which partitions are damaged: %w", err)
	}
	n.marks = marks
	if k := marks.Len(); k > 0 {
		n.happened.Add(events.Scrub, events.Error, "partitions of this node are damaged and are not served from here until they have been fetched again", "partitions", strconv.Itoa(k))
	}
	return nil
}

// hasCopies says whether what is lost here can be fetched from others: there is a
// cluster of more than this node.
func (n *Node) hasCopies() bool {
	l := n.gossip.Snapshot().Layout
	return l != nil && len(l.Nodes()) > 1
}

// alone says that the cluster is known to be this node only. Neither holds while the
// layout is not known.
func (n *Node) alone() bool {
	l := n.gossip.Snapshot().Layout
	return l != nil && len(l.Nodes()) == 1
}

func (n *Node) allPartitions() []ring.Partition {
	l := n.gossip.Snapshot().Layout
	if l == nil {
		return nil
	}
	all := make([]ring.Partition, l.Partitions())
	for i := range all {
		all[i] = ring.Partition(i)
	}
	return all
}

// openDB opens the engine in dir. Where there are other copies, damage to what it
// cannot do without makes it begin anew, with all partitions under quarantine.
func (n *Node) openDB(dir string, opts engine.Options) (*engine.DB, error) {
	var why error
	if n.gossip.Snapshot().Layout != nil {
		// The engine was made before the cluster was founded.
		if why = checkEngineThere(dir); why != nil && !(n.hasCopies() && errors.Is(why, errDataGone)) {
			return nil, why
		}
	}
	if why == nil {
		db, err := engine.Open(dir, opts)
		if err == nil || !errors.Is(err, engine.ErrCorrupt) || !n.hasCopies() {
			return db, err
		}
		why = err
	}
	aside, err := setEngineAside(vfs.OS(), dir, n.marks, n.allPartitions())
	if err != nil {
		return nil, errors.Join(why, err)
	}
	n.happened.Add(events.Scrub, events.Error, "the engine's files are damaged or gone: this node begins with an empty engine, and all its partitions are fetched again from the other owners",
		"kept_in", aside, "err", why.Error())
	return engine.Open(dir, opts)
}

// setEngineAside notes that all partitions are damaged, and then moves the engine's
// directory, if there is anything in it, to a name beside it, which it returns. After
// a power cut at any point it can be done again: what was moved is never touched.
func setEngineAside(fsys vfs.FS, dir string, marks *replica.Marks, all []ring.Partition) (aside string, err error) {
	// First, since an empty engine would deny everything.
	if _, err := marks.Add(all); err != nil {
		return "", err
	}
	names, err := fsys.List(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && len(names) == 0:
		return "", nil
	case err != nil:
		return "", err
	}
	for i := 1; ; i++ {
		aside = dir + ".damaged-" + strconv.Itoa(i)
		if _, err := fsys.Stat(aside); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return "", err
		}
	}
	if err := fsys.Rename(dir, aside); err != nil {
		return "", fmt.Errorf("move the damaged engine aside: %w", err)
	}
	if err := fsys.SyncDir(filepath.Dir(dir)); err != nil {
		return "", fmt.Errorf("move the damaged engine aside: %w", err)
	}
	return aside, nil
}
