package ring

import (
	"encoding/binary"
	"fmt"
)

// Class names tenants that have the same owners in every partition. What replicas know
// of a partition beside its data, they know of each class. Tenants with one replication
// factor share a class, until it is changed for one of them: from then on that tenant
// has a class of its own, for good, since what is confirmed of it and of the others is
// not the same any more. What was confirmed of the class that it was born in, before it
// was known to have left that, holds for it too. The zero Class is none.
type Class uint64

// ownClass is set in the class that a tenant has for itself; the class that it was born
// in is above bornShift, its number in the 32 bits below.
const (
	ownClass  Class = 1 << 40
	bornShift       = 32
)

// MaxOwnClasses bounds the tenants that have a class for themselves: replicas keep books
// for each class in each partition.
const MaxOwnClasses = 256

// SharedClass is the class of the tenants that were created with a replication factor
// which was never changed.
func SharedClass(rf int) Class { return Class(rf) }

// OwnClass is the class of a tenant that was created with the replication factor born,
// which was changed.
func OwnClass(t TenantNumber, born int) Class {
	return ownClass | Class(born)<<bornShift | Class(t)
}

// Own gives the tenant that has the class for itself, if there is one.
func (c Class) Own() (t TenantNumber, ok bool) { return TenantNumber(c), c&ownClass != 0 }

// Born gives the class that a tenant with a class for itself was born in, else c.
func (c Class) Born() Class {
	if c&ownClass == 0 {
		return c
	}
	return c &^ ownClass >> bornShift
}

// Valid says whether c can be a class.
func (c Class) Valid() bool {
	if t, own := c.Own(); own && t == 0 || c >= ownClass<<1 {
		return false
	}
	return c.Born() >= 1 && c.Born() <= MaxRF
}

// String names the class for people.
func (c Class) String() string {
	if t, own := c.Own(); own {
		return fmt.Sprintf("tenant %d", t)
	}
	return fmt.Sprintf("RF %d", uint64(c))
}

// Tenants says in a sentence whose class it is.
func (c Class) Tenants() string {
	if _, own := c.Own(); own {
		return c.String()
	}
	return "the tenants with " + c.String()
}

// ownMark is set in the first byte of the encoding of a class that a tenant has for itself.
const ownMark = 0x80

// AppendClass appends the encoding of a class: the replication factor that its tenants
// were born with in a byte, and if one tenant has it for itself, its number.
func AppendClass(dst []byte, c Class) []byte {
	if t, own := c.Own(); own {
		return binary.BigEndian.AppendUint32(append(dst, ownMark|byte(c.Born())), uint32(t))
	}
	return append(dst, byte(c))
}

// CutClass decodes the class at the beginning of b and gives what follows it.
func CutClass(b []byte) (c Class, rest []byte, ok bool) {
	if len(b) < 1 {
		return 0, b, false
	}
	c, rest = Class(b[0]), b[1:]
	if c&ownMark != 0 {
		if len(rest) < 4 {
			return 0, b, false
		}
		c, rest = OwnClass(TenantNumber(binary.BigEndian.Uint32(rest)), int(c&^ownMark)), rest[4:]
	}
	return c, rest, c.Valid()
}

// Copies says how many owners a tenant wants: From under the layout in force, and To
// under the one that is to be. They differ while the open change changes that.
type Copies struct{ From, To int }

// Same is Copies of a tenant whose replication factor the open change leaves alone.
func Same(rf int) Copies { return Copies{From: rf, To: rf} }
