// Package check judges histories: what clients of a cluster asked, when, and
// what they were told. Each checker takes a history and returns where it breaks
// one of PairDB's promises, with the operations that show it. It is pure: it
// reads no clock, starts nothing, and touches no file but the reader or writer
// that it is handed.
package check

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// Kind says what an operation does.
type Kind string

// The kinds of operation.
const (
	Put    Kind = "put"
	Delete Kind = "delete"
	Get    Kind = "get"
)

// Outcome is what a client knows of its operation after the answer.
type Outcome string

const (
	// OK says that the operation did what it was asked. A Get that finds
	// nothing is OK too, without siblings.
	OK Outcome = "ok"
	// NotApplied says that a write took no effect and never will.
	NotApplied Outcome = "not_applied"
	// Indeterminate says that a write may have taken effect, or may yet. It is
	// also what a client notes that gave up waiting.
	Indeterminate Outcome = "indeterminate"
)

// Key names a key of a tenant.
type Key struct {
	Tenant, Key string
}

// String returns tenant and key, separated by a slash.
func (k Key) String() string { return k.Tenant + "/" + k.Key }

func (k Key) compare(o Key) int {
	return cmp.Or(strings.Compare(k.Tenant, o.Tenant), strings.Compare(k.Key, o.Key))
}

// Call is what a client asks.
type Call struct {
	// At is when the operation was sent, since the start of the run, by a
	// monotonic clock that all clients share.
	At     time.Duration `json:"at"`
	Client string        `json:"client"`
	// Node is the node that was asked.
	Node   string `json:"node,omitempty"`
	Tenant string `json:"tenant"`
	// LWW says that in this tenant the last writer wins; otherwise it keeps
	// siblings.
	LWW bool   `json:"lww,omitempty"`
	Key string `json:"key"`
	// Partition names the partition of the key, empty if the client does not
	// know it. A dot is unique in a partition; without it, in a key.
	Partition string       `json:"partition,omitempty"`
	Kind      Kind         `json:"kind"`
	Level     quorum.Level `json:"level"`
	// Value identifies what a Put writes: the value itself or a name for it
	// that the reader can tell from what it reads. No two writes of a key have
	// the same, unless they are attempts at one write: then they have the same
	// idempotency key and the same Seen.
	Value          string `json:"value,omitempty"`
	IdempotencyKey string `json:"idempotency_key,omitempty"`
	// Seen is the context that a write supplies, empty for a blind one.
	Seen causal.Context `json:"seen,omitempty"`
	// Fades says when the value of a Put expires, nil for never.
	Fades *Fading `json:"fades,omitempty"`
}

// Fading is when a value expires: for the first clock in the cluster at From, for
// the last one at To, both since the start of the run. In between some say that it
// is there, and others that it is not.
type Fading struct {
	From time.Duration `json:"from"`
	To   time.Duration `json:"to"`
}

// Answer is what a client was told.
type Answer struct {
	At      time.Duration `json:"at"`
	Outcome Outcome       `json:"outcome"`
	// Code is the error's, for the reader of a violation.
	Code string `json:"code,omitempty"`
	// Dot names the write that was acknowledged.
	Dot causal.Dot `json:"dot,omitzero"`
	// Context is what the answer's token covers, empty if it had none, as when
	// a key is not found.
	Context causal.Context `json:"context,omitempty"`
	// Settled is what Context may leave out, as all owners have it, or something
	// that superseded it: the cluster forgets that. No client is told; it is empty
	// unless whoever checks the history has it from the owners.
	Settled causal.Context `json:"settled,omitempty"`
	// Siblings are what a Get returned.
	Siblings []Version `json:"siblings,omitempty"`
	// Duplicate says that the write had been applied by an earlier attempt.
	Duplicate bool `json:"is_duplicate,omitempty"`
}

// Version is one sibling that a Get returned.
type Version struct {
	Dot       causal.Dot `json:"dot"`
	Value     string     `json:"value,omitempty"`
	Tombstone bool       `json:"tombstone,omitempty"`
}

// Op is one operation: a call and its answer.
type Op struct {
	// ID is its number in the history, from 1.
	ID int
	Call
	// Answer is nil if none came before the history ended.
	Answer *Answer
}

// History is the operations of one run, in any order.
type History []Op

// forever is when an operation ends whose end is not known.
const forever = time.Duration(math.MaxInt64)

func (o *Op) key() Key { return Key{o.Tenant, o.Call.Key} }

func (o *Op) ok() bool { return o.Answer != nil && o.Answer.Outcome == OK }

func (o *Op) never() bool { return o.Answer != nil && o.Answer.Outcome == NotApplied }

// knows is what the context of the answer covers, with what it may leave out.
func (o *Op) knows() causal.Context {
	if len(o.Answer.Settled) == 0 {
		return o.Answer.Context
	}
	return causal.JoinContext(o.Answer.Context, o.Answer.Settled)
}

// absent reports whether a Get that succeeded found no value.
func (o *Op) absent() bool {
	for i := range o.Answer.Siblings {
		if !o.Answer.Siblings[i].Tombstone {
			return false
		}
	}
	return true
}

// String describes the operation in one line.
func (o *Op) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "#%d %s", o.ID, o.Client)
	if o.Node != "" {
		fmt.Fprintf(&b, " at %s", o.Node)
	}
	fmt.Fprintf(&b, ", %v: %s %s", o.At, o.Kind, o.key())
	if o.Kind == Put {
		fmt.Fprintf(&b, " %q", o.Value)
	}
	fmt.Fprintf(&b, " %s", o.Level)
	if o.IdempotencyKey != "" {
		fmt.Fprintf(&b, " key %q", o.IdempotencyKey)
	}
	if len(o.Seen) > 0 {
		fmt.Fprintf(&b, " seen %s", contextString(o.Seen))
	}
	if o.Fades != nil {
		fmt.Fprintf(&b, " fades %v to %v", o.Fades.From, o.Fades.To)
	}
	if o.Answer == nil {
		return b.String() + " -> no answer"
	}
	a := o.Answer
	fmt.Fprintf(&b, " -> %v: %s", a.At, a.Outcome)
	if a.Code != "" {
		fmt.Fprintf(&b, " %s", a.Code)
	}
	if !a.Dot.IsZero() {
		fmt.Fprintf(&b, " %s", dotString(a.Dot))
	}
	if a.Duplicate {
		b.WriteString(" duplicate")
	}
	for _, v := range a.Siblings {
		fmt.Fprintf(&b, " %s=%s", dotString(v.Dot), v.what())
	}
	if len(a.Context) > 0 {
		fmt.Fprintf(&b, " %s", contextString(a.Context))
	}
	if len(a.Settled) > 0 {
		fmt.Fprintf(&b, " settled %s", contextString(a.Settled))
	}
	return b.String()
}

// what is the version without its dot.
func (v *Version) what() string {
	if v.Tombstone {
		return "deleted"
	}
	return fmt.Sprintf("%q", v.Value)
}

func dotString(d causal.Dot) string { return fmt.Sprintf("%x.%d", d.Actor, d.Counter) }

func contextString(c causal.Context) string {
	parts := make([]string, len(c))
	for i, d := range c {
		parts[i] = dotString(d)
	}
	return "{" + strings.Join(parts, " ") + "}"
}

// Validate reports the first operation that no checker could make sense of:
// what breaks it is the recording, not the cluster. The checkers rely on it.
func (h History) Validate() error {
	ids := make(map[int]bool, len(h))
	lww := make(map[string]bool)
	partitions := make(map[Key]string)
	type valueOf struct {
		Key
		value string
	}
	values := make(map[valueOf]*Op)
	for i := range h {
		o := &h[i]
		if err := o.validate(); err != nil {
			return fmt.Errorf("operation %s: %w", o, err)
		}
		if ids[o.ID] {
			return fmt.Errorf("operation %s: another has its number", o)
		}
		ids[o.ID] = true
		if was, ok := lww[o.Tenant]; ok && was != o.LWW {
			return fmt.Errorf("operation %s: others say another policy of its tenant", o)
		}
		lww[o.Tenant] = o.LWW
		if was, ok := partitions[o.key()]; ok && was != o.Partition {
			return fmt.Errorf("operation %s: others say another partition of its key", o)
		}
		partitions[o.key()] = o.Partition
		if o.Kind != Put {
			continue
		}
		at := valueOf{o.key(), o.Value}
		if p := values[at]; p == nil {
			values[at] = o
		} else if o.IdempotencyKey == "" || o.IdempotencyKey != p.IdempotencyKey || !o.Seen.Equal(p.Seen) || (o.Fades == nil) != (p.Fades == nil) {
			return fmt.Errorf("operation %s: writes what operation #%d wrote, but is no other attempt at it", o, p.ID)
		}
	}
	return nil
}

// validate looks at one operation by itself.
func (o *Op) validate() error {
	switch {
	case o.Client == "" || o.Tenant == "" || o.Call.Key == "":
		return errors.New("it needs a client, a tenant and a key")
	case o.Kind != Put && o.Kind != Delete && o.Kind != Get:
		return fmt.Errorf("unknown kind %q", o.Kind)
	case !o.Level.Valid():
		return fmt.Errorf("unknown level %d", o.Level)
	case (o.Kind == Put) != (o.Value != ""):
		return errors.New("a put has a value, and nothing else has")
	case o.Kind == Get && (len(o.Seen) > 0 || o.IdempotencyKey != ""):
		return errors.New("a get supplies neither context nor idempotency key")
	case o.Fades != nil && (o.Kind != Put || o.Fades.From > o.Fades.To):
		return errors.New("only the value of a put expires, for the last clock not before the first")
	case o.At < 0 || o.Answer != nil && o.Answer.At < o.At:
		return errors.New("it is answered before it was asked, or asked before the start")
	}
	a := o.Answer
	if a == nil {
		return nil
	}
	switch {
	case a.Outcome != OK && a.Outcome != NotApplied && a.Outcome != Indeterminate:
		return fmt.Errorf("unknown outcome %q", a.Outcome)
	case o.Kind != Get && (a.Outcome == OK) == a.Dot.IsZero():
		return errors.New("an acknowledged write has a dot, and nothing else has")
	case len(a.Siblings) > 0 && (o.Kind != Get || a.Outcome != OK):
		return errors.New("only a get that succeeded has siblings")
	}
	return nil
}
