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
	Step   *Step
	Retire *Retire
	Intent *Intent
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

// Propose is the content of KindPropose.
type Propose struct {
	// Parent is the version of the finalised layout that is changed: with another
	// one in force the entry is void.
	Parent Version
	// Layout has the entry's version.
	Layout *Layout
	// Removed are members that are lost, sorted: they are retired with the change,
	// without having handed over anything.
	Removed []NodeID
	// Closes are the intents that the change carries out, sorted.
	Closes [][16]byte
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
	default:
		return fmt.Sprintf("verb(%d)", uint8(v))
	}
}

// Intent is the content of KindIntent. The entry's Op names it.
type Intent struct {
	Verb Verb
	// Node is whom it is about; zero for VerbCancel.
	Node NodeID
	// By takes Node's place (VerbReplace), else zero.
	By NodeID
	// Capacity is the new one (VerbWeigh), else 0.
	Capacity uint32
	// Cancels is the intent that ends (VerbCancel), else zero.
	Cancels     [16]byte
	CreatedAtMs int64
}

// Bounds of entries.
const (
	MaxReasonLen = 200
	// MaxIntents bounds the open intents; one beyond it is void.
	MaxIntents = 256
)

const entryFormat = 1

// MaxEntryBytes bounds an encoded entry.
const MaxEntryBytes = MaxLayoutBytes + 16*(MaxNodes+MaxIntents) + 1024

// AppendEntry appends the encoding of e to dst: format u8 = 1, kind u8, version
// u64, op 16, then by kind
//
//	found          cluster 16, name (u8 length), founder 16, key id u8, key 32, created i64, layout (u32 length)
//	tenant-create  name (u8 length), rf u8, policy u8, created i64
//	propose        parent u64, removed (u16 count, 16 each), closes (u16 count, 16 each), layout (u32 length)
//	commit, abort, finalize  change 16, reopens u8 (0 or 1), reason (u8 length)
//	retire         node 16
//	intent         verb u8, node 16, by 16, capacity u32, cancels 16, created i64
//
// with integers big-endian.
func AppendEntry(dst []byte, e *Entry) []byte {
	dst = append(dst, entryFormat, byte(e.Kind))
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
		p := e.Propose
		dst = binary.BigEndian.AppendUint64(dst, uint64(p.Parent))
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(p.Removed)))
		for _, id := range p.Removed {
			dst = append(dst, id[:]...)
		}
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(p.Closes)))
		for _, op := range p.Closes {
			dst = append(dst, op[:]...)
		}
		dst = appendLayout32(dst, p.Layout)
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
	if f := r.u8(); f != entryFormat && !r.bad {
		return nil, fmt.Errorf("decode log entry: %w", formatError(f, entryFormat))
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
		if err := e.decodePropose(&r); err != nil {
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
		e.Intent = i
	default:
		return nil, fmt.Errorf("decode log entry %d: %w: %d, a newer version may have written it", e.Version, ErrUnknownKind, e.Kind)
	}
	if r.bad || len(r.b) != 0 {
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

func (e *Entry) decodePropose(r *reader) error {
	p := &Propose{Parent: Version(r.u64())}
	n := int(r.u16())
	if n > MaxNodes || len(r.b) < 16*n {
		return ErrCorrupt
	}
	for range n {
		var id NodeID
		copy(id[:], r.take(16))
		p.Removed = append(p.Removed, id)
	}
	n = int(r.u16())
	if n > MaxIntents || len(r.b) < 16*n {
		return ErrCorrupt
	}
	for range n {
		var op [16]byte
		copy(op[:], r.take(16))
		p.Closes = append(p.Closes, op)
	}
	b := r.take(int(r.u32()))
	if r.bad {
		return ErrCorrupt
	}
	var err error
	p.Layout, err = DecodeLayout(b)
	e.Propose = p
	return err
}

// appendLayout32 appends a layout behind its length.
func appendLayout32(dst []byte, l *Layout) []byte {
	at := len(dst)
	dst = AppendLayout(append(dst, 0, 0, 0, 0), l)
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	return dst
}
