package schema

import "github.com/pairdb/pairdb/gossip/ring"

// AskedRF is the replication factor that a tenant will have once all that was asked for
// is done, and what names the change, zero if the tenant has that factor already.
func (s *Snapshot) AskedRF(t *Tenant) (rf int, op [16]byte) {
	rf = t.RF
	if s.Ring == nil {
		return rf, op
	}
	note := func(i *ring.IntentRecord) {
		if i.Verb == ring.VerbReplicate && i.Tenant == t.Number {
			rf, op = int(i.RF), i.Op
		}
	}
	if s.Change != nil {
		for _, i := range s.Change.Carries {
			note(i)
		}
	}
	for _, i := range s.Ring.Intents() {
		note(i)
	}
	return rf, op
}
