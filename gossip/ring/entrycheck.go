package ring

import (
	"fmt"
	"slices"
)

// Check refuses an entry that could stand in no log, whatever came before it.
func (e *Entry) Check() error {
	why, known := "", true
	switch {
	case e.Version == 0:
		why = "version 0"
	case e.Version == 1 && e.Kind != KindFound:
		why = "entry 1 founds the cluster"
	case !e.hasItsContent():
		why = "content and kind disagree"
	default:
		why, known = e.checkContent()
	}
	switch {
	case !known:
		return fmt.Errorf("%w: %d", ErrUnknownKind, e.Kind)
	case why != "":
		return fmt.Errorf("%w %d (%s): %s", ErrInvalidEntry, e.Version, e.Kind, why)
	}
	return nil
}

// hasItsContent says whether the part that the kind names is set, and no other. It is
// true of kinds that are not known.
func (e *Entry) hasItsContent() bool {
	parts := 0
	for _, set := range []bool{e.Found != nil, e.Tenant != nil, e.Propose != nil, e.Step != nil, e.Retire != nil, e.Intent != nil, e.Delete != nil, e.Recover != nil} {
		if set {
			parts++
		}
	}
	switch e.Kind {
	case KindFound:
		return parts == 1 && e.Found != nil
	case KindTenantCreate:
		return parts == 1 && e.Tenant != nil
	case KindPropose:
		return parts == 1 && e.Propose != nil
	case KindCommit, KindAbort, KindFinalize:
		return parts == 1 && e.Step != nil
	case KindRetire:
		return parts == 1 && e.Retire != nil
	case KindIntent:
		return parts == 1 && e.Intent != nil
	case KindTenantDelete:
		return parts == 1 && e.Delete != nil
	case KindRecover:
		return parts == 1 && e.Recover != nil
	default:
		return true
	}
}

func (e *Entry) checkContent() (why string, known bool) {
	switch e.Kind {
	case KindFound:
		return e.Found.check(e.Version), true
	case KindTenantCreate:
		return e.Tenant.check(), true
	case KindPropose:
		return e.Propose.check(e.Version), true
	case KindCommit, KindAbort, KindFinalize:
		switch {
		case e.Step.Change == [16]byte{}:
			return "it names no change", true
		case len(e.Step.Reason) > MaxReasonLen:
			return "its reason is too long", true
		case e.Step.Reopens && e.Kind != KindAbort:
			return "only an abort opens intents again", true
		}
		return "", true
	case KindRetire:
		if e.Retire.Node.IsZero() {
			return "it names no node", true
		}
		return "", true
	case KindIntent:
		return e.Intent.check(), true
	case KindTenantDelete:
		return e.Delete.check(), true
	case KindRecover:
		return e.Recover.check(), true
	}
	return "", false
}

func (f *Found) check(v Version) string {
	switch {
	case v != 1:
		return "a cluster is founded by entry 1 only"
	case f.ClusterID.IsZero():
		return "no cluster id"
	case !ValidName(f.ClusterName):
		return fmt.Sprintf("cluster name %q", f.ClusterName)
	case f.Layout == nil || f.Layout.version != 1:
		return "its layout is not the first"
	}
	if _, ok := f.Layout.index(f.Founder); !ok {
		return fmt.Sprintf("its founder %s is not in the layout", f.Founder.Short())
	}
	return ""
}

func (t *TenantCreate) check() string {
	switch {
	case !ValidTenantName(t.Name):
		return fmt.Sprintf("tenant name %q", t.Name)
	case t.RF < 1 || t.RF > MaxRF:
		return fmt.Sprintf("replication factor %d", t.RF)
	case t.Policy < 1 || t.Policy > 2:
		return fmt.Sprintf("conflict policy %d", t.Policy)
	}
	return ""
}

func (d *TenantDelete) check() string {
	switch d.Number {
	case 0:
		return "it names no tenant"
	case DefaultTenant:
		return "the tenant that every cluster starts with cannot be deleted"
	}
	return ""
}

// rising says whether ids are sorted, each once, and none is zero.
func rising(ids []NodeID) bool {
	for i, id := range ids {
		if id.IsZero() || i > 0 && ids[i-1].Compare(id) >= 0 {
			return false
		}
	}
	return true
}

func (r *Recover) check() string {
	switch {
	case len(r.Lost) == 0 || len(r.Lost) > MaxNodes || !rising(r.Lost):
		return "lost nodes are out of order"
	case len(r.Voters) == 0 || len(r.Voters) > maxVoters || !rising(r.Voters):
		return "voters are out of order"
	case slices.ContainsFunc(r.Voters, func(id NodeID) bool { return slices.Contains(r.Lost, id) }):
		return "a voter is lost"
	}
	return ""
}

func (i *Intent) check() string {
	cancel, replicate := i.Verb == VerbCancel, i.Verb == VerbReplicate
	switch {
	case !replicate && (i.Verb < VerbLeave || i.Verb > VerbGiveUp):
		return fmt.Sprintf("verb %d", i.Verb)
	case (cancel || replicate) != i.Node.IsZero(), cancel != (i.Cancels != [16]byte{}), replicate != (i.Tenant != 0):
		return "it names too little, or too much"
	case (i.Verb == VerbReplace) != !i.By.IsZero(), i.By == i.Node && !cancel && !replicate:
		return "its replacement"
	case (i.Verb == VerbWeigh) != (i.Capacity != 0), i.Capacity > MaxCapacity:
		return fmt.Sprintf("capacity %d", i.Capacity)
	case replicate != (i.RF != 0), i.RF > MaxRF:
		return fmt.Sprintf("replication factor %d, want 1..%d", i.RF, MaxRF)
	}
	return ""
}
