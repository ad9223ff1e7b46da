package meta_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/meta/storetest"
)

// opens keeps what starts said of themselves, and that each is another.
type opens struct {
	t      *testing.T
	rng    *rand.ChaCha8
	actors map[uint64]string
}

// open starts a node on a store, as its process would.
func (o *opens) open(s *storetest.Mem) (*meta.Core, error) {
	return meta.Open(meta.Options{
		Store: s, Rand: o.rng, ClusterName: "test", Partitions: 8, Logger: discard(), Info: meta.Info{Name: "a", Capacity: 1},
	})
}

// want opens a store and checks that its actor is nobody else's.
func (o *opens) want(what string, s *storetest.Mem) (incarnation, actor uint64) {
	o.t.Helper()
	s.Restart()
	c, err := o.open(s)
	if err != nil {
		o.t.Fatalf("%s: %v", what, err)
	}
	_, incarnation, actor = c.Identity()
	if old, ok := o.actors[actor]; ok || actor == 0 {
		o.t.Errorf("%s: its actor %x is that of %s", what, actor, old)
	}
	o.actors[actor] = what
	return incarnation, actor
}

func newOpens(t *testing.T) *opens {
	return &opens{t: t, rng: rand.NewChaCha8([32]byte{1}), actors: map[uint64]string{}}
}

// TestEveryStartHasItsOwnActor, whatever became of its disk: a dot is an actor
// and a counter that begins at 1 with each start, so no dot is used twice.
func TestEveryStartHasItsOwnActor(t *testing.T) {
	o := newOpens(t)
	disk := &storetest.Mem{}
	var past []*storetest.Mem
	for i := range 5 {
		past = append(past, disk.Clone())
		o.want(fmt.Sprint("start ", i+1), disk)
	}
	for i, old := range past {
		o.want(fmt.Sprint("a disk set back to before start ", i+1), old.Clone())
		o.want("a copy of it", old.Clone())
		o.want("the same, started again", old)
		o.want("and again", old)
	}
	o.want("a wiped disk", &storetest.Mem{})
	o.want("another wiped disk", &storetest.Mem{})
}

// TestNoActorBeforeItsStartIsDurable: a start of which the record may not be on
// disk has no core, so it mints nothing and tells nobody; and what was told of
// one incarnation names one actor, wherever the store failed.
func TestNoActorBeforeItsStartIsDurable(t *testing.T) {
	o := newOpens(t)
	for _, fresh := range []bool{true, false} {
		for _, keep := range []bool{false, true} {
			disk := &storetest.Mem{}
			if !fresh {
				o.want("the start before", disk)
			}
			told := map[uint64]uint64{} // incarnation, actor
			tell := func(what string) {
				inc, actor := o.want(what, disk)
				if was, ok := told[inc]; ok {
					t.Errorf("incarnation %d had the actor %x and has %x", inc, was, actor)
				}
				told[inc] = actor
			}
			tell("before the failure")
			for range 3 {
				disk.FailAt(1, keep)
				if c, err := o.open(disk); c != nil || !errors.Is(err, meta.ErrFailed) {
					t.Errorf("a start whose record may be lost has a core: %t, %v", c != nil, err)
				}
				tell("after the failure")
				tell("and once more")
			}
		}
	}
}
