package meta

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/zeebo/xxh3"

	"github.com/pairdb/pairdb/gossip/ring"
)

// WitnessStore keeps the witness of a store, apart from it, so that one fault does
// not reach both. It is not safe for concurrent use.
type WitnessStore interface {
	// Read gives what was written last, nil if nothing ever was.
	Read() ([]byte, error)
	// Write replaces it and returns nil once it is durable. After an error either
	// may be there.
	Write(witness []byte) error
}

// Witness is what a node's store must have, at least: it is written after each
// write of the store and before anybody hears of that. Everything in it only grows,
// so a store that is sound has as much, or more by one write. It has nothing secret
// and restores nothing; it tells a store that has forgotten from one that has not,
// and whose it was.
type Witness struct {
	Node        ring.NodeID
	Name        string // of the node
	ClusterName string
	Cluster     ring.ClusterID // zero before the node has one, or waits to join it
	Founder     ring.NodeID    // the pledge, zero if there is none
	Incarnation uint64
	// Version is the last log entry that was durable, Log the hash of the log up
	// to it.
	Version ring.Version
	Log     uint64
	// Vote is the register without the entry that was accepted.
	Vote ring.Register
	// Abstain is the last slot in which this node must not vote, since it may have
	// forgotten what it promised there; 0 for none.
	Abstain ring.Version
}

const (
	witnessFormat   = 1
	maxWitnessBytes = 4 << 10
)

// witnessFile is a Witness as JSON, for people whose store is gone.
type witnessFile struct {
	Format      int    `json:"format"`
	Node        string `json:"node_id"`
	Name        string `json:"name"`
	ClusterName string `json:"cluster"`
	Cluster     string `json:"cluster_id"`
	Founder     string `json:"founder"`
	Incarnation uint64 `json:"incarnation"`
	Version     uint64 `json:"version"`
	Log         string `json:"log"`
	Slot        uint64 `json:"slot"`
	Promised    string `json:"promised"`
	Accepted    string `json:"accepted"`
	Abstain     uint64 `json:"abstain"`
	// Sum is the hash of the rest.
	Sum string `json:"sum"`
}

func (f witnessFile) sum() (string, error) {
	f.Sum = ""
	b, err := json.Marshal(f)
	return strconv.FormatUint(xxh3.Hash(b), 16), err
}

// AppendWitness appends the encoded witness to b.
func AppendWitness(b []byte, w *Witness) ([]byte, error) {
	f := witnessFile{
		Format: witnessFormat, Node: w.Node.String(), Name: w.Name, ClusterName: w.ClusterName,
		Cluster: w.Cluster.String(), Founder: w.Founder.String(), Incarnation: w.Incarnation,
		Version: uint64(w.Version), Log: strconv.FormatUint(w.Log, 16), Slot: uint64(w.Vote.Slot),
		Promised: hex.EncodeToString(ring.AppendBallot(nil, w.Vote.Promised)),
		Accepted: hex.EncodeToString(ring.AppendBallot(nil, w.Vote.Accepted)), Abstain: uint64(w.Abstain),
	}
	var err error
	if f.Sum, err = f.sum(); err != nil {
		return b, fmt.Errorf("encode witness: %w", err)
	}
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return b, fmt.Errorf("encode witness: %w", err)
	}
	return append(append(b, text...), '\n'), nil
}

// DecodeWitness decodes a witness. Errors: ErrCorrupt, ErrNewerFormat.
func DecodeWitness(b []byte) (*Witness, error) {
	if len(b) > maxWitnessBytes {
		return nil, fmt.Errorf("%w: witness of %d bytes", ErrCorrupt, len(b))
	}
	var f witnessFile
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&f); err != nil {
		return nil, fmt.Errorf("%w: witness: %w", ErrCorrupt, err)
	}
	if f.Format > witnessFormat {
		return nil, fmt.Errorf("%w: the witness has format %d, this version knows up to %d", ErrNewerFormat, f.Format, witnessFormat)
	}
	sum, err := f.sum()
	if err != nil || sum != f.Sum {
		return nil, fmt.Errorf("%w: the witness does not have its own sum", ErrCorrupt)
	}
	w := &Witness{
		Name: f.Name, ClusterName: f.ClusterName, Incarnation: f.Incarnation, Version: ring.Version(f.Version),
		Vote: ring.Register{Slot: ring.Version(f.Slot)}, Abstain: ring.Version(f.Abstain),
	}
	bad := func(what string) error { return fmt.Errorf("%w: %s of the witness", ErrCorrupt, what) }
	for _, id := range []struct {
		text string
		to   []byte
	}{{f.Node, w.Node[:]}, {f.Cluster, w.Cluster[:]}, {f.Founder, w.Founder[:]}} {
		raw, err := hex.DecodeString(id.text)
		if err != nil || copy(id.to, raw) != len(id.to) {
			return nil, bad("id")
		}
	}
	if w.Log, err = strconv.ParseUint(f.Log, 16, 64); err != nil {
		return nil, bad("log")
	}
	for _, ballot := range []struct {
		text string
		to   *ring.Ballot
	}{{f.Promised, &w.Vote.Promised}, {f.Accepted, &w.Vote.Accepted}} {
		raw, err := hex.DecodeString(ballot.text)
		if err != nil || len(raw) != ring.BallotBytes {
			return nil, bad("ballot")
		}
		if *ballot.to, err = ring.DecodeBallot(raw); err != nil {
			return nil, bad("ballot")
		}
	}
	return w, nil
}

// logHash goes on with the hash of a log: entry follows what sum is of, 0 for the
// first.
func logHash(sum uint64, entry []byte) uint64 { return xxh3.HashSeed(entry, sum) }

// witnessed makes the witness durable that goes with records just written.
func (c *Core) witnessed(records []Record) error {
	if c.witnesses == nil {
		return nil
	}
	w := c.witness
	w.Node, w.Name, w.ClusterName, w.Incarnation = c.self, c.info.Name, c.name, c.inc
	for _, r := range records {
		switch {
		case r.Value == nil:
		case r.Key == keyVote:
			reg, err := ring.DecodeRegister(r.Value[1:])
			if err != nil {
				return fmt.Errorf("witness a vote: %w", err)
			}
			reg.AcceptedBytes = nil
			w.Vote = reg
		case r.Key == keyJoining:
			copy(w.Cluster[:], r.Value[1:])
		case r.Key == keyPledge:
			copy(w.Founder[:], r.Value[1:])
		case r.Key == keyBase:
			h, err := decodeHead(r.Value)
			if err != nil {
				return fmt.Errorf("witness a snapshot: %w", err)
			}
			if h.version > w.Version { // of a peer
				w.Cluster, w.Version, w.Log = h.cluster, h.version, h.log
			}
		case strings.HasPrefix(r.Key, prefixLog):
			e, err := ring.DecodeEntry(r.Value)
			if err != nil {
				return fmt.Errorf("witness a log entry: %w", err)
			}
			if e.Version <= w.Version {
				break // fetched again: it was witnessed before
			}
			if e.Found != nil {
				w.Cluster = e.Found.ClusterID
			}
			w.Version, w.Log = e.Version, logHash(w.Log, r.Value)
		}
	}
	b, err := AppendWitness(nil, &w)
	if err == nil && !bytes.Equal(b, c.lastWitness) {
		err = c.witnesses.Write(b)
	}
	if err != nil {
		return err
	}
	c.witness, c.lastWitness = w, slices.Clone(b)
	return nil
}
