package rpc

import (
	"fmt"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/node/door"
)

const (
	pipelineMethod = "KV.Pipeline"
	// replyOverhead is about what a reply takes beside its value, and
	// requestOverhead a request beside its bytes.
	replyOverhead, requestOverhead = 128, 64
)

// itemSize is what a request counts toward the bytes in flight.
func itemSize(it *pairdbv1.PipelineItem) int {
	n := requestOverhead
	if r := it.GetPut(); r != nil {
		n += len(r.GetKey()) + len(r.GetValue()) + len(r.GetContext()) + len(r.GetIfMatch()) + len(r.GetIdempotencyKey())
	} else if r := it.GetDelete(); r != nil {
		n += len(r.GetKey()) + len(r.GetContext()) + len(r.GetIfMatch()) + len(r.GetIdempotencyKey())
	} else {
		n += len(it.GetGet().GetKey())
	}
	return n
}

// begin starts requests that have been admitted together.
func (p *pipeline) begin(items []*pairdbv1.PipelineItem, now time.Time) {
	started := make([]*pairdbv1.PipelineItem, 0, len(items))
	ops := make([]coord.Item, 0, len(items))
	var mem operations
	for i, it := range items {
		op, err := p.operation(it, now, &mem, len(items)-i)
		if err == nil && !p.claim(it.GetId()) {
			err = invalid(fmt.Sprintf("a request with the id %d is in flight; use each id once", it.GetId()))
		}
		if err != nil {
			p.push(it, p.failure(it, err, now), false)
			continue
		}
		started, ops = append(started, it), append(ops, op)
	}
	if len(ops) == 0 {
		return
	}
	p.k.coord.StartAll(ops, func(i int, r coord.ItemResult) {
		it := started[i]
		var out *pairdbv1.PipelineResult
		if r.Err != nil {
			out = p.failure(it, r.Err, now)
		} else {
			out = p.success(it, &r, now)
		}
		p.push(it, out, true)
	})
}

// claim marks an id as in flight; false if it is.
func (p *pipeline) claim(id uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.mu.ids[id]; ok {
		return false
	}
	p.mu.ids[id] = struct{}{}
	return true
}

// operations is memory for those of one message: its items are mostly of one kind.
type operations struct {
	gets []coord.GetRequest
	puts []coord.PutRequest
}

// operation is what an item asks for, the first of left that may be of its kind.
func (p *pipeline) operation(it *pairdbv1.PipelineItem, now time.Time, mem *operations, left int) (coord.Item, error) {
	switch r := it.GetRequest().(type) {
	case *pairdbv1.PipelineItem_Put:
		t, err := p.terms(it, r.Put, now)
		op := next(&mem.puts, left)
		*op = putOf(t, r.Put)
		return coord.Item{Put: op}, err
	case *pairdbv1.PipelineItem_Get:
		t, err := p.terms(it, r.Get, now)
		op := next(&mem.gets, left)
		*op = getOf(t, r.Get.GetKey())
		if err == nil && p.conn.Full() {
			err = errUnread()
		}
		return coord.Item{Get: op}, err
	case *pairdbv1.PipelineItem_Delete:
		t, err := p.terms(it, r.Delete, now)
		op := deleteOf(t, r.Delete)
		return coord.Item{Delete: &op}, err
	}
	return coord.Item{}, invalid("the request asks for nothing: it has a put, a get or a delete")
}

// next cuts an element off list, which is made with n of them if it is empty.
func next[T any](list *[]T, n int) *T {
	if len(*list) == 0 {
		*list = make([]T, n)
	}
	out := &(*list)[0]
	*list = (*list)[1:]
	return out
}

// terms are those of one item, whose time counts from now.
func (p *pipeline) terms(it *pairdbv1.PipelineItem, req interface {
	GetTenantId() string
	GetConsistency() pairdbv1.Consistency
}, now time.Time,
) (terms, error) {
	level, err := levelOf(req.GetConsistency())
	t := terms{tenant: req.GetTenantId(), level: level, deadline: now.Add(p.k.timeout)}
	if t.tenant == "" {
		t.tenant = p.tenant
	}
	if ms := it.GetTimeoutMs(); ms > 0 {
		t.deadline = now.Add(time.Duration(ms) * time.Millisecond)
	}
	if !p.until.IsZero() && p.until.Before(t.deadline) {
		t.deadline = p.until
	}
	return t, err
}

func (p *pipeline) success(it *pairdbv1.PipelineItem, r *coord.ItemResult, began time.Time) *pairdbv1.PipelineResult {
	var out *pairdbv1.PipelineResult
	switch q := it.GetRequest().(type) {
	case *pairdbv1.PipelineItem_Put:
		a := new(struct {
			out pairdbv1.PipelineResult
			put pairdbv1.PipelineResult_Put
		})
		a.put.Put = putAnswer(&r.Write)
		out, a.out.Result = &a.out, &a.put
	case *pairdbv1.PipelineItem_Delete:
		out = &pairdbv1.PipelineResult{Result: &pairdbv1.PipelineResult_Delete{Delete: deleteAnswer(&r.Write)}}
	case *pairdbv1.PipelineItem_Get:
		a := new(struct {
			out pairdbv1.PipelineResult
			get pairdbv1.PipelineResult_Get
		})
		a.get.Get = getAnswer(q.Get.GetKey(), &r.Get)
		out, a.out.Result = &a.out, &a.get
	}
	out.Id = it.GetId()
	p.k.observe(pipelineMethod, string(errcode.OK), p.k.now().Sub(began))
	return out
}

func (p *pipeline) failure(it *pairdbv1.PipelineItem, err error, began time.Time) *pairdbv1.PipelineResult {
	_, read := it.GetRequest().(*pairdbv1.PipelineItem_Get)
	e := p.k.itemError(pairdbv1.KV_Pipeline_FullMethodName, err, !read)
	if read {
		delete(e.Metadata, errcode.MetaOutcome)
	}
	p.k.observe(pipelineMethod, e.GetCode(), p.k.now().Sub(began))
	return &pairdbv1.PipelineResult{Id: it.GetId(), Result: &pairdbv1.PipelineResult_Error{Error: e}}
}

// push queues a reply, to a request whose id was claimed or not. A value is left
// out if the client has not read what is queued before it.
func (p *pipeline) push(it *pairdbv1.PipelineItem, out *pairdbv1.PipelineResult, claimed bool) {
	size := replyOverhead
	for _, s := range out.GetGet().GetSiblings() {
		size += len(s.GetValue())
	}
	request := itemSize(it)
	p.mu.Lock()
	if claimed {
		delete(p.mu.ids, it.GetId())
	}
	if out.GetGet() != nil && (p.mu.readyBytes > 0 && p.mu.readyBytes+size > 4*maxReadyBytes || size >= heldBytes && p.conn.Full()) {
		out.Result = &pairdbv1.PipelineResult_Error{Error: itemErrorOf(errUnread())}
		size = replyOverhead
	}
	var hold *door.Hold
	if size >= heldBytes && !p.mu.gone {
		hold = p.conn.Hold(size)
	}
	p.mu.ready = append(p.mu.ready, reply{out, size, request, hold})
	p.mu.readyBytes += size
	first := len(p.mu.ready) == 1
	p.mu.Unlock()
	if first {
		signal(p.wake)
	}
}
