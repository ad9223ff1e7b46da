package repair

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

func someRequests() []*request {
	conf := causal.Confirmed{Seen: causal.NewContext(causal.Dot{Actor: 5, Counter: 9}), Expired: 77}
	one := []spanItem{{Span: Span{3, 2}, pv: 4}}
	own := Span{3, ring.OwnClass(9, 2)}
	return []*request{
		{kind: kindState, spans: []spanItem{{Span: Span{3, 2}, pv: 4}, {Span: Span{1, 7}, pv: 1}}},
		{kind: kindAdopt, spans: []spanItem{{Span: Span{3, 2}, pv: 4, session: 8, confirmed: conf, repairedAt: 12}}},
		{kind: kindRelease, spans: []spanItem{{Span: Span{3, 2}, pv: 4, session: 8}}},
		{kind: kindSums, spans: one, agreed: 6},
		{kind: kindSums, spans: one, agreed: 6, sums: []sumItem{{7, 1, ^ring.Token(0), 4}, {8, 0, 0, 0}}},
		{kind: kindDiff, spans: one, agreed: 6, diffs: []diffItem{
			{tenant: 7, first: 1, last: 9, hashes: []uint64{1, 2, ^uint64(0)}},
			{tenant: 7, first: 1, last: 9, after: &position{2, []byte("k")}, until: &position{Token: 8}},
		}},
		{kind: kindRecords, spans: one},
		{kind: kindRecords, spans: one, after: &RecordRow{Tenant: 7, Token: 9, KeyHash: [16]byte{1, 15: 2}, IdempotencyKey: []byte("i"), Record: []byte{1, 2}}},
		{kind: kindDirty, spans: one},
		{kind: kindState, spans: []spanItem{{Span: own, pv: 4}, {Span: Span{3, 2}, pv: 4}}},
		{kind: kindAdopt, spans: []spanItem{{Span: own, pv: 4, session: 8, confirmed: conf}}},
		{kind: kindSums, spans: []spanItem{{Span: own, pv: 4}}, agreed: 6},
		{kind: kindRecords, spans: one, votes: true},
		{kind: kindKnown, spans: []spanItem{{Span: Span{3, 2}, pv: 4}, {Span: Span{1, 7}, pv: 1}}},
		{kind: kindApplied, spans: one, rows: []RecordRow{{Tenant: 7, Token: 9, IdempotencyKey: []byte("i")}, {Tenant: 8, KeyHash: [16]byte{1}, IdempotencyKey: []byte("j")}}},
		{kind: kindObjects, spans: one, agreed: 6, tenant: 7},
		{kind: kindObjects, spans: one, agreed: 6, tenant: 7, from: &position{2, []byte("k")}},
	}
}

// TestRequestsSurviveEncoding: what is sent is what arrives, and nothing else decodes.
func TestRequestsSurviveEncoding(t *testing.T) {
	for _, q := range someRequests() {
		b := q.encode()
		got, err := decodeRequest(b)
		if err != nil {
			t.Fatalf("kind %d: %v", q.kind, err)
		}
		if again := got.encode(); !bytes.Equal(again, b) {
			t.Errorf("kind %d: %+v became %+v", q.kind, q, got)
		}
		if got.agreed != q.agreed || len(got.spans) != len(q.spans) || !reflect.DeepEqual(got.spans[0], q.spans[0]) {
			t.Errorf("kind %d: %+v became %+v", q.kind, q, got)
		}
		for n := range b {
			if _, err := decodeRequest(b[:n]); err == nil {
				t.Errorf("kind %d: %d of %d bytes decode", q.kind, n, len(b))
			}
		}
		if _, err := decodeRequest(append(b, 0)); err == nil {
			t.Errorf("kind %d: a byte more decodes", q.kind)
		}
	}
}

// TestAnswersSurviveEncoding: the same for answers.
func TestAnswersSurviveEncoding(t *testing.T) {
	states := []stateReply{{why: "is away"}, {state: State{
		Session: 1, Actor: 2, Drawn: 3, Seen: causal.NewContext(causal.Dot{Actor: 1, Counter: 1}),
		Votes: causal.Context{{Actor: 4}}, VotesUnknown: true, Now: 5, Sweeping: true,
		Confirmed: causal.Confirmed{Expired: 6},
	}}}
	got, err := decodeStates(kindState, encodeStates(kindState, states))
	if err != nil || got[0].why != states[0].why || !bytes.Equal(encodeStates(kindState, got), encodeStates(kindState, states)) ||
		!reflect.DeepEqual(got[1].state.Votes, states[1].state.Votes) || !got[1].state.VotesUnknown || !got[1].state.Sweeping {
		t.Errorf("%+v became %+v, %v", states, got, err)
	}
	known := []stateReply{{why: "is away"}, {floor: 7, state: State{Confirmed: causal.Confirmed{Expired: 6}, Released: causal.Confirmed{Expired: 5}}}}
	if got, err := decodeStates(kindKnown, encodeStates(kindKnown, known)); err != nil || !reflect.DeepEqual(got, known) {
		t.Errorf("%+v became %+v, %v", known, got, err)
	}
	objects := &objectReply{session: 9, rows: []objectRow{{[]byte("k"), []byte("object")}, {[]byte("l"), []byte("o")}}, next: &position{2, []byte("m")}}
	if a, err := decodeObjects(objects.encode()); err != nil || !reflect.DeepEqual(a, objects) {
		t.Errorf("%+v became %+v, %v", objects, a, err)
	}
	sums := &sumReply{session: 9, tenants: []tenantSum{{7, 3, Sum{1, 2, 3}}}, sums: []Sum{{4, 5, 6}}}
	if a, err := decodeSums(sums.encode()); err != nil || !reflect.DeepEqual(a, sums) {
		t.Errorf("%+v became %+v, %v", sums, a, err)
	}
	q := &request{diffs: []diffItem{{first: 1, last: 9, hashes: make([]uint64, 9)}}}
	o := causal.Object{Context: causal.NewContext(causal.Dot{Actor: 1, Counter: 1}), Siblings: []causal.Sibling{{Dot: causal.Dot{Actor: 1, Counter: 1}, HLC: 4}}}
	diff := &diffReply{session: 9, parts: []diffPart{{rows: []Row{{Token: 2, Key: []byte("k"), Object: o, Size: 30}}, missing: []byte{1, 1}, end: &position{2, []byte("k")}}}}
	a, err := decodeDiff(diff.encode(), q)
	if err != nil || !bytes.Equal(a.encode(), diff.encode()) || !a.parts[0].misses(8) || a.parts[0].misses(1) {
		t.Errorf("%+v became %+v, %v", diff, a, err)
	}
	records := &recordReply{session: 9, rows: []RecordRow{{Tenant: 7, Token: 1, IdempotencyKey: []byte("i"), Record: []byte("r")}}, more: true}
	if a, err := decodeRecords(records.encode()); err != nil || !reflect.DeepEqual(a, records) {
		t.Errorf("%+v became %+v, %v", records, a, err)
	}
	// Rows out of order, or out of the range, are not believed.
	diff.parts[0].rows[0].Token = 10
	if _, err := decodeDiff(diff.encode(), q); err == nil {
		t.Error("a row outside of the range was taken")
	}
}

// FuzzDecode: whatever a peer sends neither panics nor takes memory beyond its length.
func FuzzDecode(f *testing.F) {
	for _, q := range someRequests() {
		f.Add(q.encode())
	}
	f.Add((&sumReply{tenants: []tenantSum{{7, 3, Sum{1, 2, 3}}}}).encode())
	f.Add((&objectReply{rows: []objectRow{{[]byte("k"), []byte("o")}}}).encode())
	f.Add((&diffReply{parts: []diffPart{{missing: []byte{1}}}}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := decodeRequest(b); err == nil {
			again, err := decodeRequest(q.encode())
			if err != nil || !reflect.DeepEqual(again, q) {
				t.Fatalf("%+v became %+v, %v", q, again, err)
			}
		}
		q := &request{diffs: []diffItem{{last: ^ring.Token(0), hashes: make([]uint64, 8)}}}
		if a, err := decodeDiff(b, q); err == nil {
			a.encode()
		}
		if a, err := decodeSums(b); err == nil {
			a.encode()
		}
		if a, err := decodeRecords(b); err == nil {
			a.encode()
		}
		for _, k := range []kind{kindState, kindKnown} {
			if a, err := decodeStates(k, b); err == nil {
				encodeStates(k, a)
			}
		}
		if a, err := decodeObjects(b); err == nil {
			a.encode()
		}
	})
}
