package repair

import (
	"errors"
	"fmt"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

const (
	// batchBytes and batchKeys bound the objects that are brought together.
	batchBytes = 1 << 20
	batchKeys  = 256
)

// batches calls f with runs of fixes that are handled together, within the room for
// objects.
func (c *comparison) batches(fb *fiber, all []fix, f func(fb *fiber, some []fix) error) error {
	for len(all) > 0 {
		n, size := 0, 0
		for n < len(all) && n < batchKeys && (n == 0 || size+all[n].size <= batchBytes) {
			size += all[n].size
			n++
		}
		if err := c.pause(fb); err != nil {
			return err
		}
		held := int64(size)
		if !fb.await(func(done func()) { c.m.room.enter(held, done) }) {
			return errClosed
		}
		err := f(fb, all[:n])
		c.m.room.leave(held)
		if err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

// mend brings owners what they lack. What one of them does not take does not keep the
// others from theirs; the error is the first of any.
func (c *comparison) mend(fb *fiber, all []fix) (failed error) {
	err := c.batches(fb, all, func(fb *fiber, some []fix) error {
		objects, err := c.fetch(fb, some)
		if failed == nil {
			failed = err
		}
		if err == errClosed {
			return err
		}
		moved := 0
		for i := range objects {
			moved += len(objects[i]) * (1 + len(some[i].want))
		}
		if err := c.paid(fb, moved); err != nil {
			return err
		}
		if err := c.send(fb, some, objects); failed == nil {
			failed = err
		}
		return nil
	})
	return errors.Join(err, failed)
}

// fetch reads the objects that fixes are made of, each from as few owners as have all
// of it. An object that could not be had is empty.
func (c *comparison) fetch(fb *fiber, some []fix) (objects [][]byte, failed error) {
	type read struct{ fix, from int }
	var reads []read
	for i := range some {
		for _, from := range some[i].from {
			reads = append(reads, read{i, some[i].here[from]})
		}
	}
	got := make([][]byte, len(reads))
	errs := make([]error, len(reads))
	ok := fb.gather(len(reads), func(n int, done func()) {
		f := &some[reads[n].fix]
		if reads[n].from == c.job.self {
			c.m.opts.Objects.Read(f.at, func(object []byte, err error) {
				got[n], errs[n] = object, err
				done()
			})
			return
		}
		to := c.job.owners[reads[n].from]
		m := c.message(coord.OpRead, f)
		m.Deadline = c.m.opts.Clock.Now().Add(c.m.patience(c.job, to))
		c.m.opts.Transport.Send(to, &m, func(r coord.Reply, err error) {
			if errs[n] = refusal(to, &r, err); errs[n] == nil {
				got[n] = r.Body
			}
			done()
		})
	})
	if !ok {
		return nil, errClosed
	}
	joined := make([]causal.Object, len(some))
	for i := range some {
		joined[i].Context = some[i].claims
	}
	bad := make([]bool, len(some))
	for n := range reads {
		i := reads[n].fix
		err := errs[n]
		if len(c.job.order) > 0 {
			c.m.quiet(c.job.owners[reads[n].from], err)
		}
		var o causal.Object
		if err == nil {
			o, err = causal.Decode(got[n])
		}
		if err != nil {
			if bad[i] = true; failed == nil {
				failed = err
			}
			continue
		}
		joined[i] = causal.Join(&joined[i], &o)
	}
	objects = make([][]byte, len(some))
	for i := range some {
		switch {
		case bad[i]:
		case !joined[i].IsZero():
			objects[i] = joined[i].Append(nil)
		case failed == nil:
			failed = fmt.Errorf("a key changed while it was compared: %w", errMoved)
		}
	}
	return objects, failed
}

// message is one about a key, for other owners.
func (c *comparison) message(op coord.Op, f *fix) coord.Message {
	return coord.Message{
		Op: op, Partition: f.at.Partition, PV: c.job.pv, Tenant: f.tenant.Number, TenantVersion: f.tenant.Version,
		Token: f.at.Token, Key: f.at.Key, Background: true, Deadline: c.m.opts.Clock.Now().Add(askTimeout),
	}
}

// send brings each object to the owners that want it, and to no other.
func (c *comparison) send(fb *fiber, some []fix, objects [][]byte) (failed error) {
	type target struct{ fix, owner int }
	var remote []target
	var local []coord.MergeItem
	for i := range some {
		if len(objects[i]) == 0 {
			continue
		}
		for _, w := range some[i].want {
			if owner := some[i].here[w]; owner != c.job.self {
				remote = append(remote, target{i, owner})
			} else {
				local = append(local, c.item(&some[i], objects[i]))
			}
		}
	}
	errs := make([]error, len(remote)+len(local))
	ok := fb.await(func(done func()) {
		left := newCountdown(len(errs), done)
		if len(local) > 0 {
			c.m.opts.Objects.Merge(local, func(i int, _ []byte, err error) {
				if err != nil && !stripped(err) {
					errs[len(remote)+i] = err
				}
				left()
			})
		}
		for n := range remote {
			f, to := &some[remote[n].fix], c.job.owners[remote[n].owner]
			m := c.message(coord.OpMerge, f)
			// It is a write like any other, and over when rounds take it for that.
			m.Deadline = c.m.opts.Clock.Now().Add(min(askTimeout, c.m.opts.Settle*5/6))
			m.Body = objects[remote[n].fix]
			c.m.opts.Transport.Send(to, &m, func(r coord.Reply, err error) {
				errs[n] = mergeRefusal(to, &r, err)
				left()
			})
		}
	})
	if !ok {
		return errClosed
	}
	sent, received, sentBytes, receivedBytes := 0, 0, 0, 0
	for n, err := range errs {
		switch {
		case err != nil:
		case n < len(remote):
			sent++
			sentBytes += len(objects[remote[n].fix])
		default:
			received++
			receivedBytes += len(local[n-len(remote)].Object)
		}
	}
	c.job.rows += sent + received
	c.job.moved += sentBytes + receivedBytes
	c.m.figures.change(func(f *Figures) {
		f.Sent, f.SentBytes = f.Sent+uint64(sent), f.SentBytes+uint64(sentBytes)
		f.Received, f.ReceivedBytes = f.Received+uint64(received), f.ReceivedBytes+uint64(receivedBytes)
	})
	return first(errs)
}

// item is an object for this node's own copy.
func (c *comparison) item(f *fix, object []byte) coord.MergeItem {
	return coord.MergeItem{Address: f.at, Object: object, LastWriteWins: f.tenant.Policy == schema.PolicyLWW}
}

// stripped reports whether an owner took an object but for what has been superseded
// there: then it has all of it that it is to have.
func stripped(err error) bool {
	return coord.IsStripped(err)
}

// mergeRefusal is refusal for OpMerge.
func mergeRefusal(peer ring.NodeID, rep *coord.Reply, err error) error {
	if err == nil && rep.Status == coord.StatusError {
		if e, err := coord.DecodeError(rep.Body); err == nil && coord.IsStripped(e) {
			return nil
		}
	}
	return refusal(peer, rep, err)
}
