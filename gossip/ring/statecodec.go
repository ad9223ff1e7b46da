package ring

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

const stateFormat = 1

// MaxStateBytes bounds an encoded state: the most tenants, two of the largest layouts,
// and half a million ids of nodes that are retired.
const MaxStateBytes = 16 << 20

// maxTokenKeys bounds the keys for context tokens of a state.
const maxTokenKeys = 16

// AppendState appends the encoding of a state, which must not be the zero one, to dst.
// A state beyond MaxStateBytes is not decoded.
//
// State, integers big-endian, counts and lengths u32 but for strings (u8): format u8 = 1,
// version u64, cluster 16, cluster name, founder 16, last tenant u32, token keys (u8
// count), tenants, layout (length), change (u8 count, 0 or 1), outsiders, retired (16
// each), intents, voters that a recovery named (16 each) and the version of that u64, 0
// for none. Partitions of the layout may have versions above its own.
func AppendState(dst []byte, s *State) []byte {
	dst = append(dst, stateFormat)
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.version))
	dst = append(dst, s.clusterID[:]...)
	dst = appendString8(dst, s.clusterName)
	dst = append(dst, s.founder[:]...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(s.lastTenant))
	dst = append(dst, byte(len(s.tokenKeys)))
	for _, k := range s.tokenKeys {
		dst = append(append(dst, k.ID), k.Key[:]...)
	}
	dst = appendCount(dst, len(s.tenants))
	for _, t := range s.tenants {
		dst = appendTenant(dst, t)
	}
	dst = appendLayout32(dst, s.layout)
	if s.change == nil {
		dst = append(dst, 0)
	} else {
		dst = appendChange(append(dst, 1), s.change)
	}
	dst = appendCount(dst, len(s.outside))
	for _, o := range s.outside {
		dst = appendOutsider(dst, o)
	}
	dst = appendNodeIDs(dst, s.retired)
	dst = appendIntents(dst, s.intents)
	return binary.BigEndian.AppendUint64(appendNodeIDs(dst, s.voters), uint64(s.recoveredAt))
}

// DecodeState reads what AppendState wrote. It refuses anything that no log leads to
// as far as one state alone tells, so that a decoded state is as sound as a replayed
// one: ErrCorrupt, ErrNewerFormat.
func DecodeState(b []byte) (*State, error) {
	if len(b) > MaxStateBytes {
		return nil, fmt.Errorf("decode ring state of %d bytes, at most %d: %w", len(b), MaxStateBytes, ErrCorrupt)
	}
	r := &reader{b: b}
	if f := r.u8(); f != stateFormat && !r.bad {
		return nil, fmt.Errorf("decode ring state: %w", formatError(f, stateFormat))
	}
	s := &State{version: Version(r.u64())}
	copy(s.clusterID[:], r.take(16))
	s.clusterName = r.string8()
	copy(s.founder[:], r.take(16))
	s.lastTenant = TenantNumber(r.u32())
	if r.bad || s.version == 0 || s.clusterID.IsZero() || !ValidName(s.clusterName) || s.founder.IsZero() {
		return nil, fmt.Errorf("decode ring state: header: %w", ErrCorrupt)
	}
	for _, part := range []struct {
		name   string
		decode func(*reader) error
	}{
		{"token keys", s.decodeTokenKeys},
		{"tenants", s.decodeTenants},
		{"layout", s.decodeLayout},
		{"change", s.decodeChange},
		{"outsiders", s.decodeOutsiders},
		{"retired nodes", s.decodeRetired},
		{"intents", s.decodeIntents},
		{"recovery", s.decodeRecovery},
	} {
		err := part.decode(r)
		if err == nil && r.bad {
			err = ErrCorrupt
		}
		if err != nil {
			return nil, fmt.Errorf("decode ring state %d: %s: %w", s.version, part.name, err)
		}
	}
	if len(r.b) != 0 {
		return nil, fmt.Errorf("decode ring state %d: %d bytes left over: %w", s.version, len(r.b), ErrCorrupt)
	}
	return s, nil
}

func appendCount(dst []byte, n int) []byte { return binary.BigEndian.AppendUint32(dst, uint32(n)) }

// count gives how many items of at least size bytes follow, 0 if there is no room for
// them: then the reader is bad.
func (r *reader) count(size int) int {
	n := int(r.u32())
	if n > len(r.b)/size {
		r.bad = true
		return 0
	}
	return n
}

// version gives the number of an entry that is no later than newest.
func (r *reader) version(newest Version) Version {
	v := Version(r.u64())
	r.bad = r.bad || v == 0 || v > newest
	return v
}

func (s *State) decodeTokenKeys(r *reader) error {
	n := int(r.u8())
	if n == 0 || n > maxTokenKeys || len(r.b) < 33*n {
		return ErrCorrupt
	}
	for range n {
		k := TokenKey{ID: r.u8()}
		copy(k.Key[:], r.take(32))
		if slices.ContainsFunc(s.tokenKeys, func(o TokenKey) bool { return o.ID == k.ID }) {
			return ErrCorrupt
		}
		s.tokenKeys = append(s.tokenKeys, k)
	}
	return nil
}

// appendTenant appends a tenant: name, number u32, rf u8, policy u8, created i64, born
// u8, updated i64, version u64. minTenant is the shortest.
func appendTenant(dst []byte, t *TenantRecord) []byte {
	dst = appendString8(dst, t.Name)
	dst = binary.BigEndian.AppendUint32(dst, uint32(t.Number))
	dst = append(dst, t.RF, t.Policy)
	dst = binary.BigEndian.AppendUint64(dst, uint64(t.CreatedAtMs))
	dst = binary.BigEndian.AppendUint64(append(dst, t.Born), uint64(t.UpdatedAtMs))
	return binary.BigEndian.AppendUint64(dst, uint64(t.Version))
}

const minTenant = 1 + 4 + 2 + 8 + 1 + 8 + 8

func (s *State) decodeTenant(r *reader) *TenantRecord {
	t := &TenantRecord{
		Name: r.string8(), Number: TenantNumber(r.u32()), RF: r.u8(), Policy: r.u8(),
		CreatedAtMs: int64(r.u64()), Born: r.u8(), UpdatedAtMs: int64(r.u64()), Version: r.version(s.version),
	}
	made := TenantCreate{Name: t.Name, RF: t.RF, Policy: t.Policy, CreatedAtMs: t.CreatedAtMs}
	r.bad = r.bad || made.check() != "" || t.Number == 0 || t.Number > s.lastTenant || t.Born > MaxRF
	return t
}

func (s *State) decodeTenants(r *reader) error {
	n := r.count(minTenant)
	if n > MaxTenants {
		return ErrCorrupt
	}
	s.tenants = make([]*TenantRecord, 0, n)
	numbers := make(map[TenantNumber]struct{}, n)
	for i := range n {
		t := s.decodeTenant(r)
		if r.bad || i > 0 && strings.Compare(s.tenants[i-1].Name, t.Name) >= 0 {
			return ErrCorrupt
		}
		numbers[t.Number] = struct{}{}
		s.tenants = append(s.tenants, t)
	}
	if s.ownClasses() > MaxOwnClasses {
		return fmt.Errorf("too many have a class for themselves: %w", ErrCorrupt)
	}
	if len(numbers) != n {
		return fmt.Errorf("a number is there twice: %w", ErrCorrupt)
	}
	return nil
}

func (s *State) decodeLayout(r *reader) (err error) {
	b := r.take(int(r.u32()))
	if r.bad {
		return ErrCorrupt
	}
	if s.layout, err = decodeLayout(b, s.version); err != nil {
		return err
	}
	if s.layout.version > s.version {
		return ErrCorrupt
	}
	return nil
}

// appendChange appends the open change: id 16, stage u8, the two versions u64, the
// layout that is to be, removed nodes, carried intents, factors (tenant u32, rf u8, asked
// i64 each), and a bit for each partition that is touched, the first one lowest.
func appendChange(dst []byte, c *Change) []byte {
	dst = append(append(dst, c.ID[:]...), byte(c.Stage))
	dst = binary.BigEndian.AppendUint64(dst, uint64(c.ProposedAt))
	dst = binary.BigEndian.AppendUint64(dst, uint64(c.CommittedAt))
	dst = appendLayout32(dst, c.Next)
	dst = appendNodeIDs(dst, c.Removed)
	dst = appendIntents(dst, c.Carries)
	dst = appendCount(dst, len(c.Factors))
	for _, f := range c.Factors {
		dst = appendFactor(dst, f)
	}
	bits := make([]byte, (len(c.touched)+7)/8)
	for p, t := range c.touched {
		if t {
			bits[p/8] |= 1 << (p % 8)
		}
	}
	return append(dst, bits...)
}

func (s *State) decodeChange(r *reader) (err error) {
	switch n := r.u8(); {
	case n > 1:
		return ErrCorrupt
	case n == 0:
		return nil
	}
	c := &Change{}
	copy(c.ID[:], r.take(16))
	c.Stage, c.ProposedAt, c.CommittedAt = Stage(r.u8()), r.version(s.version), Version(r.u64())
	next := r.take(int(r.u32()))
	if r.bad {
		return ErrCorrupt
	}
	if c.Next, err = DecodeLayout(next); err != nil {
		return err
	}
	if c.Removed, err = decodeNodeIDs(r); err != nil {
		return err
	}
	if c.Carries, err = s.decodeIntentList(r); err != nil {
		return err
	}
	n := r.count(factorBytes)
	if n > MaxOwnClasses {
		return ErrCorrupt
	}
	for range n {
		c.Factors = append(c.Factors, r.factor())
	}
	p := Propose{Parent: s.layout.version, Layout: c.Next, Removed: c.Removed, Factors: c.Factors}
	committed := c.Stage == Committed
	switch {
	case c.Stage != Proposed && !committed,
		committed != (c.CommittedAt > c.ProposedAt), committed == (c.CommittedAt == 0), c.CommittedAt > s.version,
		c.Next.Partitions() != s.layout.Partitions(), p.check(c.ProposedAt) != "":
		return ErrCorrupt
	}
	differs := touchedBy(s.layout, c.Next)
	bits := r.take((len(differs) + 7) / 8)
	if r.bad {
		return ErrCorrupt
	}
	c.touched = make([]bool, len(differs))
	for i := range 8 * len(bits) {
		touched := bits[i/8]>>(i%8)&1 != 0
		if i >= len(differs) && touched || i < len(differs) && differs[i] && !touched {
			return fmt.Errorf("the bits of what is touched: %w", ErrCorrupt)
		}
		if i < len(differs) {
			c.touched[i] = touched
		}
	}
	s.change = c
	return nil
}

// The flags of an outsider.
const (
	outsiderLeaves   = 1
	outsiderReopened = 2
)

// appendOutsider appends a member without partitions: id 16, capacity u32, name, zone,
// flag u8 (0, 1 leaving or 2 reopened), since u64. minOutsider is the shortest.
func appendOutsider(dst []byte, o Outsider) []byte {
	dst = binary.BigEndian.AppendUint32(append(dst, o.ID[:]...), o.Capacity)
	dst = appendString8(appendString8(dst, o.Name), o.Zone)
	switch {
	case o.Leaving:
		dst = append(dst, outsiderLeaves)
	case o.Reopened:
		dst = append(dst, outsiderReopened)
	default:
		dst = append(dst, 0)
	}
	return binary.BigEndian.AppendUint64(dst, uint64(o.Since))
}

const minOutsider = 16 + 4 + 1 + 1 + 1 + 8

func (s *State) decodeOutsiders(r *reader) error {
	n := r.count(minOutsider)
	for i := range n {
		var o Outsider
		copy(o.ID[:], r.take(16))
		o.Capacity, o.Name, o.Zone = r.u32(), r.string8(), r.string8()
		flag := r.u8()
		o.Leaving, o.Reopened = flag == outsiderLeaves, flag == outsiderReopened
		o.Since = r.version(s.version)
		_, placed := s.layout.index(o.ID)
		if r.bad || placed || flag > outsiderReopened || checkNodes([]LayoutNode{o.LayoutNode}) != nil ||
			i > 0 && s.outside[i-1].ID.Compare(o.ID) >= 0 {
			return ErrCorrupt
		}
		s.outside = append(s.outside, o)
	}
	return nil
}

func (s *State) decodeRetired(r *reader) (err error) {
	if s.retired, err = decodeNodeIDs(r); err != nil {
		return err
	}
	// Layouts name those that were given up, until the next change.
	if slices.ContainsFunc(s.outside, func(o Outsider) bool { return s.IsRetired(o.ID) }) {
		return fmt.Errorf("one without partitions is among them: %w", ErrCorrupt)
	}
	return nil
}

func (s *State) decodeRecovery(r *reader) (err error) {
	if s.voters, err = decodeNodeIDs(r); err != nil {
		return err
	}
	s.recoveredAt = Version(r.u64())
	stranger := func(id NodeID) bool { _, ok := s.Member(id); return !ok }
	if s.recoveredAt > s.version || (s.recoveredAt == 0) != (len(s.voters) == 0) || len(s.voters) > maxVoters || slices.ContainsFunc(s.voters, stranger) {
		return ErrCorrupt
	}
	return nil
}

func appendNodeIDs(dst []byte, ids []NodeID) []byte {
	dst = appendCount(dst, len(ids))
	for _, id := range ids {
		dst = append(dst, id[:]...)
	}
	return dst
}

// decodeNodeIDs reads ids, which must rise.
func decodeNodeIDs(r *reader) (ids []NodeID, err error) {
	for range r.count(16) {
		id := NodeID(r.take(16))
		if id.IsZero() || len(ids) > 0 && ids[len(ids)-1].Compare(id) >= 0 {
			return nil, ErrCorrupt
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// appendIntents appends intents: op 16, verb u8, node 16, by 16, capacity u32, tenant
// u32, rf u8, created i64, version u64 each, which are minIntent bytes.
func appendIntents(dst []byte, intents []*IntentRecord) []byte {
	dst = appendCount(dst, len(intents))
	for _, i := range intents {
		dst = append(append(dst, i.Op[:]...), byte(i.Verb))
		dst = append(append(dst, i.Node[:]...), i.By[:]...)
		dst = binary.BigEndian.AppendUint32(dst, i.Capacity)
		dst = append(binary.BigEndian.AppendUint32(dst, uint32(i.Tenant)), i.RF)
		dst = binary.BigEndian.AppendUint64(dst, uint64(i.CreatedAtMs))
		dst = binary.BigEndian.AppendUint64(dst, uint64(i.Version))
	}
	return dst
}

const minIntent = 16 + 1 + 16 + 16 + 4 + 4 + 1 + 8 + 8

// decodeIntentList reads intents in the order of the log.
func (s *State) decodeIntentList(r *reader) (all []*IntentRecord, err error) {
	n := r.count(minIntent)
	if n > MaxIntents {
		return nil, ErrCorrupt
	}
	for range n {
		i := &IntentRecord{}
		copy(i.Op[:], r.take(16))
		i.Verb = Verb(r.u8())
		copy(i.Node[:], r.take(16))
		copy(i.By[:], r.take(16))
		i.Capacity, i.Tenant, i.RF = r.u32(), TenantNumber(r.u32()), r.u8()
		i.CreatedAtMs, i.Version = int64(r.u64()), r.version(s.version)
		if r.bad || i.Verb == VerbCancel || i.check() != "" || len(all) > 0 && all[len(all)-1].Version >= i.Version {
			return nil, ErrCorrupt
		}
		all = append(all, i)
	}
	return all, nil
}

func (s *State) decodeIntents(r *reader) (err error) {
	s.intents, err = s.decodeIntentList(r)
	return err
}
