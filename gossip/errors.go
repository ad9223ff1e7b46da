package gossip

import (
	"errors"
	"fmt"
	"strings"

	"github.com/pairdb/pairdb/gossip/meta"
)

// Errors that callers tell apart. Those of package meta are passed on.
var (
	// ErrNoBootstrap: the data directory is empty and nothing says what to do.
	ErrNoBootstrap = errors.New("this node belongs to no cluster yet: found one with --bootstrap (alone) or " +
		"--bootstrap-expect N with --join (together with others), or join one with --join")
	// ErrOptions: options that contradict each other or are out of range.
	ErrOptions = errors.New("invalid gossip options")
	// ErrLocked: another process uses the data directory.
	ErrLocked = errors.New("data directory is in use by another process")
	// ErrClosed: Close was called.
	ErrClosed = errors.New("gossip is closed")
	// ErrNotApplied: the time was over before anything could change, and nothing
	// will change later. The error has the cause, too.
	ErrNotApplied = errors.New("nothing was changed")
	// ErrIndeterminate: the change may or may not come to pass; the log will show.
	ErrIndeterminate = errors.New("outcome is not known")
	// ErrDuplicateName: several nodes that would found a cluster have one name.
	ErrDuplicateName = errors.New("node name is not unique")
	// ErrUnavailable: a peer could not bring this node up to date.
	ErrUnavailable = errors.New("peer cannot help to catch up")

	// ErrTenantExists: the tenant's name is taken.
	ErrTenantExists = meta.ErrTenantExists
	// ErrTenantLimit: no room for another tenant.
	ErrTenantLimit = meta.ErrTenantLimit
	// ErrNotReady: no cluster yet, or not all founders know of it.
	ErrNotReady = meta.ErrNotReady
	// ErrPlaceTaken: a member has the name or an address of this node, which is none.
	ErrPlaceTaken = meta.ErrPlaceTaken
	// ErrRetired: the node left the cluster, or was removed, and is no member for ever.
	ErrRetired = meta.ErrRetired
	// ErrJoining: the node has bound itself to a cluster that it is to join.
	ErrJoining = meta.ErrJoining
	// ErrVoid: what was asked for changes nothing, since something else came before it.
	ErrVoid = meta.ErrVoid
	// ErrOtherCluster: data directory or peer belong to another cluster.
	ErrOtherCluster = meta.ErrOtherCluster
	// ErrNewerFormat: the metadata was written by a newer version.
	ErrNewerFormat = meta.ErrNewerFormat
	// ErrCorrupt: the metadata on disk is damaged.
	ErrCorrupt = meta.ErrCorrupt
	// ErrNoRoom: the disk has no room for metadata; nothing was changed.
	ErrNoRoom = meta.ErrNoRoom
	// ErrFailed: the metadata store failed; a restart finds out what is durable.
	ErrFailed = meta.ErrFailed
	// ErrPledged: the node has promised itself to another founder.
	ErrPledged = meta.ErrPledged
	// ErrIdentity: another process lives with this node's identity.
	ErrIdentity = meta.ErrIdentity
)

// VotersUnreachableError says which voters did not answer; nothing was changed.
type VotersUnreachableError = meta.UnreachableError

// PlaceTakenError names the member whose place a node wants; it matches ErrPlaceTaken.
type PlaceTakenError = meta.PlaceTakenError

// RetiredError names a node that is a member no more; it matches ErrRetired.
type RetiredError = meta.RetiredError

// LostNode is the member whose name or address a refused node has.
type LostNode = meta.LostNode

// ErrJoinNobody is matched by JoinError.
var ErrJoinNobody = errors.New("no seed belongs to a cluster this node can join")

// JoinError says what became of each seed. It matches ErrJoinNobody.
type JoinError struct {
	Seeds []SeedError
}

// SeedError is one seed and what went wrong with it.
type SeedError struct{ Seed, Cause string }

// Error names the seeds and causes.
func (e *JoinError) Error() string {
	var parts []string
	for _, s := range e.Seeds {
		parts = append(parts, fmt.Sprintf("%s: %s", s.Seed, s.Cause))
	}
	return fmt.Sprintf("%v (%s)", ErrJoinNobody, strings.Join(parts, "; "))
}

// Is matches ErrJoinNobody.
func (e *JoinError) Is(target error) bool { return target == ErrJoinNobody }
