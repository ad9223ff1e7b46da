package ring

import (
	"cmp"
	"fmt"
	"slices"
)

// replicate changes replication factors. That is never refused for lack of nodes.
func (d *draft) replicate() {
	own := d.ownClasses()
	for _, i := range d.intents {
		if i.Verb != VerbReplicate {
			continue
		}
		at, asked := slices.BinarySearchFunc(d.plan.Factors, i.Tenant, func(f Factor, t TenantNumber) int { return cmp.Compare(f.Tenant, t) })
		if !asked {
			if t, ok := d.TenantByNumber(i.Tenant); ok && t.Born == 0 {
				if own >= MaxOwnClasses {
					d.waits(i, tooManyOwn(t.Name))
					continue
				}
				own++
			}
			d.plan.Factors = slices.Insert(d.plan.Factors, at, Factor{Tenant: i.Tenant})
		}
		d.plan.Factors[at].RF, d.plan.Factors[at].AskedAtMs = i.RF, i.CreatedAtMs // the last one counts
		d.closes(i)
	}
	d.plan.Factors = slices.DeleteFunc(d.plan.Factors, func(f Factor) bool {
		t, ok := d.TenantByNumber(f.Tenant)
		return !ok || t.RF == f.RF
	})
}

// widest is the largest replication factor that there will be, and a tenant that has it.
func (d *draft) widest() (rf int, tenant string) {
	for _, t := range d.tenants {
		if n := d.copiesOf(t).To; n > rf {
			rf, tenant = n, t.Name
		}
	}
	return rf, tenant
}

// copiesOf says how many copies a tenant wants before and after the plan.
func (d *draft) copiesOf(t *TenantRecord) Copies {
	n := Same(int(t.RF))
	if f, ok := factorOf(d.plan.Factors, t.Number); ok {
		n.To = int(f.RF)
	}
	return n
}

// widestMove are the copies of the tenant with the most, before or after; if the plan
// changes nothing but replication factors, of those whose factor it changes.
func (d *draft) widestMove(onlyFactors bool) (widest Copies) {
	for _, t := range d.tenants {
		n := d.copiesOf(t)
		if onlyFactors && n.From == n.To {
			continue
		}
		if max(n.From, n.To) > max(widest.From, widest.To) {
			widest = n
		}
	}
	return widest
}

func tooManyOwn(tenant string) error {
	return fmt.Errorf("%w: %d, and tenant %q would be one more; delete such a tenant, or create one with the replication factor that is wanted",
		ErrOwnClasses, MaxOwnClasses, tenant)
}
