package rpc

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/node/door"
)

// reading begins to read for a client, once there is room for one more answer of
// the kind; it refuses to if the client leaves its answers unread.
func reading(ctx context.Context) (door.Reading, error) {
	conn := connOf(ctx)
	if conn.Full() {
		return door.Reading{}, errUnread()
	}
	r, err := conn.Begin(ctx)
	if err == nil && conn.Full() {
		r.End(0)
		err = errUnread()
	}
	return r, err
}

// unread refuses to read for a client that leaves its answers unread, before
// anything is read.
func unread(ctx context.Context) error {
	if connOf(ctx).Full() {
		return errUnread()
	}
	return nil
}

func errUnread() *coord.Error {
	return &coord.Error{
		Code:    errcode.ResourceExhausted,
		Message: "answers wait for this client to read them, and no more values are made ready for it meanwhile; read them, then ask again",
	}
}

// countedAnswer is the answer of a call of KV as it is to be sent: with values
// that are large together, it is counted until it has left.
func countedAnswer(ctx context.Context, resp any) any {
	switch r := resp.(type) {
	case *pairdbv1.GetResponse:
		return answerTo(ctx, r, valuesOf(r.GetSiblings()))
	case *pairdbv1.MultiGetResponse:
		n := 0
		for _, one := range r.GetResults() {
			n += replyOverhead + valuesOf(one.GetGet().GetSiblings())
		}
		return answerTo(ctx, r, n)
	case *pairdbv1.BatchResponse:
		return answerTo(ctx, r, replyOverhead*len(r.GetResults()))
	}
	return resp
}

func valuesOf(siblings []*pairdbv1.Sibling) int {
	n := 0
	for _, s := range siblings {
		n += len(s.GetValue())
	}
	return n
}

// sendCounted sends a message on a stream, counted until it has left.
func sendCounted(stream interface {
	Context() context.Context
	SendMsg(m any) error
}, msg proto.Message,
) error {
	return stream.SendMsg(answerTo(stream.Context(), msg, heldBytes))
}
