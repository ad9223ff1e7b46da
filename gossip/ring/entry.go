package ring

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Errors of log entries.
var (
	// ErrUnknownKind marks an entry this version cannot understand. It must not
	// be skipped: what it changes would be missing from then on.
	ErrUnknownKind = errors.New("unknown kind of log entry")
	// ErrInvalidEntry marks an entry that cannot stand in the log.
	ErrInvalidEntry = errors.New("invalid log entry")
)

// Kind says what an entry does. The values are stored. Those not listed are
// refused, so that later versions can add to them.
type Kind uint8

const (
	// KindFound creates the cluster: always and only the entry 1.
	KindFound Kind = 1
	// KindTenantCreate creates a tenant, or nothing if the name is taken.
	KindTenantCreate Kind = 2
	// KindPropose opens a change of the layout, unless one is open.
	KindPropose Kind = 3
	// KindCommit, KindAbort and KindFinalize take the open change on.
	KindCommit   Kind = 4
	KindAbort    Kind = 5
	KindFinalize Kind = 6
	// KindRetire ends the membership of a node without partitions, for good.
	KindRetire Kind = 7
	// KindIntent notes what an operator wants of the layout, or that it is not wanted
	// any more.
	KindIntent Kind = 8
	// KindTenantDelete ends a tenant, for good: its name may be given out again, its
	// number never.
	KindTenantDelete Kind = 10
	// KindRecover gives the vote to those that are left after a majority of the voters
	// was lost. It is not chosen by that majority but by all members that are left.
	KindRecover Kind = 12
)

// String names the kind.
func (k Kind) String() string {
	switch k {
	case KindFound:
		return "found"
	case KindTenantCreate:
		return "tenant-create"
	case KindPropose:
		return "propose"
	case KindCommit:
		return "commit"
	case KindAbort:
		return "abort"
	case KindFinalize:
		return "finalize"
	case KindRetire:
		return "retire"
	case KindIntent:
		return "intent"
	case KindTenantDelete:
		return "tenant-delete"
	case KindRecover:
		return "recover"
	default:
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
}

// Entry is one entry of the log. Exactly the part its Kind names is set.
type Entry struct {
	// Version is its number, from 1 without gaps.
	Version Version
	Kind    Kind
	// Op is 16 random bytes that tell this proposal from any other, so that a
	// proposer recognises its own entry among the chosen ones.
	Op      [16]byte
	Found   *Found
	Tenant  *TenantCreate
	Propose *Propose
	// Step is that of KindCommit, KindAbort and KindFinalize.
	Step    *Step
	Retire  *Retire
	Intent  *Intent
	Delete  *TenantDelete
	Recover *Recover
}

// Found is the content of KindFound.
type Found struct {
	ClusterID   ClusterID
	ClusterName string
	// Founder is the node that made the entry, a member of the layout.
	Founder    NodeID
	Layout     *Layout
	TokenKeyID uint8
	// TokenKey authenticates context tokens. It is secret: it never leaves the
	// peer channel.
	TokenKey [32]byte
	// CreatedAtMs is the founder's wall clock in Unix milliseconds.
	CreatedAtMs int64
}

// TenantCreate is the content of KindTenantCreate.
type TenantCreate struct {
	Name string
	RF   uint8
	// Policy is a schema.ConflictPolicy.
	Policy      uint8
	CreatedAtMs int64
}

// TenantDelete is the content of KindTenantDelete.
type TenantDelete struct {
	Number TenantNumber
	// DeletedAtMs is the wall clock of who deleted it, in Unix milliseconds.
	DeletedAtMs int64
}

// Step is the content of the entries that take a change on.
type Step struct {
	// Change is the Op of its PROPOSE.
	Change [16]byte
	// Reopens says of KindAbort that the intents which the change was to carry out are
	// open again: it was not they that failed.
	Reopens bool
	// Reason says why it was aborted, for people: at most MaxReasonLen bytes.
	Reason string
}

// Retire is the content of KindRetire.
type Retire struct{ Node NodeID }

// Verb says what an intent wants.
type Verb uint8

// The verbs. The values are stored.
const (
	// VerbLeave: the node hands over its partitions and leaves.
	VerbLeave Verb = 1
	// VerbRemove: the node is lost; others take its partitions.
	VerbRemove Verb = 2
	// VerbReplace: the node is lost; By takes its partitions.
	VerbReplace Verb = 3
	// VerbWeigh: the node gets another capacity.
	VerbWeigh Verb = 4
	// VerbCancel: the intent Cancels is not wanted any more.
	VerbCancel Verb = 5
	// VerbGiveUp: the node is lost, and so is what only it has. It is retired with the
	// entry, nobody waits for it any more, and the next change takes it out.
	VerbGiveUp Verb = 6
	// VerbReplicate: a tenant gets another replication factor.
	VerbReplicate Verb = 7
)

// String names the verb.
func (v Verb) String() string {
	switch v {
	case VerbLeave:
		return "leave"
	case VerbRemove:
		return "remove"
	case VerbReplace:
		return "replace"
	case VerbWeigh:
		return "weigh"
	case VerbCancel:
		return "cancel"
	case VerbReplicate:
		return "replicate"
	case VerbGiveUp:
		return "give-up"
	default:
		return fmt.Sprintf("verb(%d)", uint8(v))
	}
}

// Intent is the content of KindIntent. The entry's Op names it.
type Intent struct {
	Verb Verb
	// Node is whom it is about; zero for VerbCancel and VerbReplicate.
	Node NodeID
	// By takes Node's place (VerbReplace), else zero.
	By NodeID
	// Capacity is the new one (VerbWeigh), else 0.
	Capacity uint32
	// Cancels is the intent that ends (VerbCancel), else zero.
	Cancels [16]byte
	// Tenant gets the replication factor RF (VerbReplicate), else both are 0.
	Tenant      TenantNumber
	RF          uint8
	CreatedAtMs int64
}

// Recover is the content of KindRecover.
type Recover struct {
	// Lost are the members that are given up, sorted: they are retired with the entry.
	Lost []NodeID
	// Voters decide from now on, until a change that is proposed later is complete.
	// They are sorted.
	Voters      []NodeID
	CreatedAtMs int64
}

// Bounds of entries.
const (
	MaxReasonLen = 200
	// MaxIntents bounds the open intents; one beyond it is void.
	MaxIntents = 256
)

const (
	entryFormat = 1
	// factorsFormat is that of a proposal which changes replication factors.
	factorsFormat = 2
)

// MaxEntryBytes bounds an encoded entry.
const MaxEntryBytes = MaxLayoutBytes + 16*(MaxNodes+MaxIntents) + factorBytes*MaxOwnClasses + 1024

// AppendEntry appends the encoding of e to dst: format u8, kind u8, version u64, op 16,
// then by kind
//
//	found          cluster 16, name (u8 length), founder 16, key id u8, key 32, created i64, layout (u32 length)
//	tenant-create  name (u8 length), rf u8, policy u8, created i64
//	tenant-delete  number u32, deleted i64
//	propose        parent u64, removed (u16 count, 16 each), closes (u16 count, 16 each),
//	               factors (format 2: u16 count, each tenant u32, rf u8, asked i64), layout (u32 length)
//	commit, abort, finalize  change 16, reopens u8 (0 or 1), reason (u8 length)
//	retire         node 16
//	intent         verb u8, node 16, by 16, capacity u32, cancels 16, created i64,
//	               and for VerbReplicate tenant u32, rf u8
//	recover        lost (u16 count, 16 each), voters (u16 count, 16 each), created i64
//
// with integers big-endian. The format is 2 for a proposal with factors and 1 for all else.
func AppendEntry(dst []byte, e *Entry) []byte {
	dst = append(dst, e.format(), byte(e.Kind))
	dst = binary.BigEndian.AppendUint64(dst, uint64(e.Version))
	dst = append(dst, e.Op[:]...)
	switch e.Kind {
	case KindFound:
		f := e.Found
		dst = append(dst, f.ClusterID[:]...)
		dst = appendString8(dst, f.ClusterName)
		dst = append(dst, f.Founder[:]...)
		dst = append(dst, f.TokenKeyID)
		dst = append(dst, f.TokenKey[:]...)
		dst = binary.BigEndian.AppendUint64(dst, uint64(f.CreatedAtMs))
		dst = appendLayout32(dst, f.Layout)
	case KindPropose:
		dst = e.Propose.append(dst)
	case KindCommit, KindAbort, KindFinalize:
		dst = append(append(dst, e.Step.Change[:]...), 0)
		if e.Step.Reopens {
			dst[len(dst)-1] = 1
		}
		dst = appendString8(dst, e.Step.Reason)
	case KindRetire:
		dst = append(dst, e.Retire.Node[:]...)
	case KindIntent:
		i := e.Intent
		dst = append(append(append(dst, byte(i.Verb)), i.Node[:]...), i.By[:]...)
		dst = binary.BigEndian.AppendUint32(dst, i.Capacity)
		dst = append(dst, i.Cancels[:]...)
		dst = binary.BigEndian.AppendUint64(dst, uint64(i.CreatedAtMs))
		if i.Verb == VerbReplicate {
			dst = append(binary.BigEndian.AppendUint32(dst, uint32(i.Tenant)), i.RF)
		}
	case KindTenantDelete:
		dst = binary.BigEndian.AppendUint32(dst, uint32(e.Delete.Number))
		dst = binary.BigEndian.AppendUint64(dst, uint64(e.Delete.DeletedAtMs))
	case KindRecover:
		dst = appendIDs(appendIDs(dst, e.Recover.Lost), e.Recover.Voters)
		dst = binary.BigEndian.AppendUint64(dst, uint64(e.Recover.CreatedAtMs))
	case KindTenantCreate:
		t := e.Tenant
		dst = appendString8(dst, t.Name)
		dst = append(dst, t.RF, t.Policy)
		dst = binary.BigEndian.AppendUint64(dst, uint64(t.CreatedAtMs))
	}
	return dst
}

// DecodeEntry reads what AppendEntry wrote and checks it: ErrCorrupt,
// ErrNewerFormat, ErrUnknownKind or ErrInvalidEntry.
func DecodeEntry(b []byte) (*Entry, error) {
	if len(b) > MaxEntryBytes {
		return nil, fmt.Errorf("decode log entry of %d bytes, at most %d: %w", len(b), MaxEntryBytes, ErrCorrupt)
	}
	r := reader{b: b}
	format := r.u8()
	if format != entryFormat && format != factorsFormat && !r.bad {
		return nil, fmt.Errorf("decode log entry: %w", formatError(format, factorsFormat))
	}
	e := &Entry{Kind: Kind(r.u8()), Version: Version(r.u64())}
	copy(e.Op[:], r.take(16))
	if r.bad {
		return nil, fmt.Errorf("decode log entry: header: %w", ErrCorrupt)
	}
	switch e.Kind {
	case KindFound:
		if err := e.decodeFound(&r); err != nil {
			return nil, fmt.Errorf("decode log entry %d: %w", e.Version, err)
		}
	case KindTenantCreate:
		e.Tenant = &TenantCreate{Name: r.string8(), RF: r.u8(), Policy: r.u8(), CreatedAtMs: int64(r.u64())}
	case KindPropose:
		if err := e.decodePropose(&r, format); err != nil {
			return nil, fmt.Errorf("decode log entry %d: %w", e.Version, err)
		}
	case KindCommit, KindAbort, KindFinalize:
		e.Step = &Step{}
		copy(e.Step.Change[:], r.take(16))
		reopens := r.u8()
		e.Step.Reopens = reopens == 1
		e.Step.Reason = r.string8()
		r.bad = r.bad || reopens > 1
	case KindRetire:
		e.Retire = &Retire{}
		copy(e.Retire.Node[:], r.take(16))
	case KindIntent:
		i := &Intent{Verb: Verb(r.u8())}
		copy(i.Node[:], r.take(16))
		copy(i.By[:], r.take(16))
		i.Capacity = r.u32()
		copy(i.Cancels[:], r.take(16))
		i.CreatedAtMs = int64(r.u64())
		if i.Verb == VerbReplicate {
			i.Tenant, i.RF = TenantNumber(r.u32()), r.u8()
		}
		e.Intent = i
	case KindTenantDelete:
		e.Delete = &TenantDelete{Number: TenantNumber(r.u32()), DeletedAtMs: int64(r.u64())}
	case KindRecover:
		e.Recover = &Recover{Lost: r.ids(), Voters: r.ids(), CreatedAtMs: int64(r.u64())}
	default:
		return nil, fmt.Errorf("decode log entry %d: %w: %d, a newer version may have written it", e.Version, ErrUnknownKind, e.Kind)
	}
	if r.bad || len(r.b) != 0 || e.format() != format {
		return nil, fmt.Errorf("decode log entry %d: %w", e.Version, ErrCorrupt)
	}
	if err := e.Check(); err != nil {
		return nil, fmt.Errorf("decode log entry: %w", err)
	}
	return e, nil
}

func (e *Entry) decodeFound(r *reader) error {
	f := &Found{}
	copy(f.ClusterID[:], r.take(16))
	f.ClusterName = r.string8()
	copy(f.Founder[:], r.take(16))
	f.TokenKeyID = r.u8()
	copy(f.TokenKey[:], r.take(32))
	f.CreatedAtMs = int64(r.u64())
	b := r.take(int(r.u32()))
	if r.bad {
		return ErrCorrupt
	}
	var err error
	f.Layout, err = DecodeLayout(b)
	e.Found = f
	return err
}

// appendIDs appends ids behind their number.
func appendIDs(dst []byte, ids []NodeID) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(ids)))
	for _, id := range ids {
		dst = append(dst, id[:]...)
	}
	return dst
}

// ids takes what appendIDs wrote.
func (r *reader) ids() (ids []NodeID) {
	n := int(r.u16())
	if r.bad = r.bad || n > MaxNodes || len(r.b) < 16*n; r.bad {
		return nil
	}
	for range n {
		var id NodeID
		copy(id[:], r.take(16))
		ids = append(ids, id)
	}
	return ids
}

// appendLayout32 appends a layout behind its length.
func appendLayout32(dst []byte, l *Layout) []byte {
	at := len(dst)
	dst = AppendLayout(append(dst, 0, 0, 0, 0), l)
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	return dst
}
