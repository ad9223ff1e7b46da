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
)

// String names the kind.
func (k Kind) String() string {
	switch k {
	case KindFound:
		return "found"
	case KindTenantCreate:
		return "tenant-create"
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
	Op     [16]byte
	Found  *Found
	Tenant *TenantCreate
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

const entryFormat = 1

// MaxEntryBytes bounds an encoded entry.
const MaxEntryBytes = MaxLayoutBytes + 1024

// AppendEntry appends the encoding of e to dst: format u8 = 1, kind u8, version
// u64, op 16, then by kind
//
//	found          cluster 16, name (u8 length), founder 16, key id u8, key 32, created i64, layout (u32 length)
//	tenant-create  name (u8 length), rf u8, policy u8, created i64
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
		at := len(dst)
		dst = AppendLayout(append(dst, 0, 0, 0, 0), f.Layout)
		binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
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

// Check refuses an entry that could stand in no log, whatever came before it.
func (e *Entry) Check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w %d (%s): %s", ErrInvalidEntry, e.Version, e.Kind, fmt.Sprintf(format, args...))
	}
	switch {
	case e.Version == 0:
		return bad("version 0")
	case e.Kind == KindFound && e.Found != nil && e.Tenant == nil:
		f := e.Found
		switch {
		case e.Version != 1:
			return bad("a cluster is founded by entry 1 only")
		case f.ClusterID.IsZero():
			return bad("no cluster id")
		case !ValidName(f.ClusterName):
			return bad("cluster name %q", f.ClusterName)
		case f.Layout == nil || f.Layout.version != 1:
			return bad("its layout is not the first")
		}
		if _, ok := f.Layout.index(f.Founder); !ok {
			return bad("its founder %s is not in the layout", f.Founder.Short())
		}
	case e.Kind == KindTenantCreate && e.Tenant != nil && e.Found == nil:
		t := e.Tenant
		switch {
		case e.Version == 1:
			return bad("entry 1 founds the cluster")
		case !ValidTenantName(t.Name):
			return bad("tenant name %q", t.Name)
		case t.RF < 1 || t.RF > MaxRF:
			return bad("replication factor %d", t.RF)
		case t.Policy < 1 || t.Policy > 2:
			return bad("conflict policy %d", t.Policy)
		}
	case e.Kind == KindFound || e.Kind == KindTenantCreate:
		return bad("content and kind disagree")
	default:
		return fmt.Errorf("%w: %d", ErrUnknownKind, e.Kind)
	}
	return nil
}
