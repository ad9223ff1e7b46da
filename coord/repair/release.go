package repair

import (
	"sync"

	"github.com/pairdb/pairdb/gossip/ring"
)

// releaseTries is how often an owner is told, at the most, that it may collect.
const releaseTries = 3

// release tells all owners what all of them have adopted, once the writes are over
// that were minted by owners before they had: those may have a lower clock than a
// delete that may then be collected, and have to meet it everywhere.
func (r *round) release(fb *fiber) {
	done := make([]*job, 0, len(r.jobs))
	for _, j := range r.jobs {
		if j.end == endConfirmed {
			again := *j
			again.end = ""
			done = append(done, &again)
		}
	}
	if len(done) == 0 || !fb.sleep(r.m.opts.Settle) {
		return
	}
	type part struct {
		j     *job
		owner int
	}
	type refusal struct {
		node ring.NodeID
		why  string
	}
	var mu sync.Mutex                // owners answer at the same time
	refused := make(map[part]string) // and may be told again
	untold := make(map[refusal]int)
	for try := range releaseTries {
		// Whoever is not told keeps what it might collect until the next round, which may
		// be a day away. One that does not answer has been asked several times already.
		if try > 0 && (len(refused) == 0 || !fb.sleep(r.m.opts.Settle)) {
			break
		}
		r.hand(fb, done, kindRelease, func(j *job, i int) (spanItem, bool) {
			mu.Lock()
			defer mu.Unlock()
			_, again := refused[part{j, i}]
			return spanItem{session: j.first[i].Session, confirmed: j.settled}, try == 0 || again
		}, func(j *job, i int, a *stateReply) {
			mu.Lock()
			defer mu.Unlock()
			delete(refused, part{j, i})
			if a.lost {
				untold[refusal{j.owners[i], a.why}]++
			} else if a.why != "" {
				refused[part{j, i}] = a.why
			}
		})
	}
	if r.m.fibers.isClosed() {
		return // nobody was waited for
	}
	//seams:ordered they are counted
	for x, why := range refused {
		untold[refusal{x.j.owners[x.owner], why}]++
	}
	//seams:ordered lines of a log, for each node and reason one
	for x, n := range untold {
		r.m.opts.Logger.Info("an owner was not told that it may collect what is confirmed; the next round tells it", "node", r.name(x.node), "spans", n, "why", x.why)
	}
}
