package rest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

const (
	// maxBatchBody bounds the body of a batch: its items, and what JSON has
	// beside them. In bytes.
	maxBatchBody = coord.MaxBatchBytes + 8*bodySlack
	jsonLines    = "application/x-ndjson"
)

// batchLine is one item of a batch.
type batchLine struct {
	Op             string          `json:"op"`
	Key            jsonKey         `json:"key"`
	Value          json.RawMessage `json:"value"`
	IdempotencyKey *string         `json:"idempotency_key"`
	IfAbsent       bool            `json:"if_absent"`
	jsonExpiry
}

// batchError is the line of an item that failed.
type batchError struct {
	Key string `json:"key"`
	errorBody
}

// batch runs the items of the body, one JSON object a line, and answers with a
// line for each, in their order. The status is 200 once they were begun, whatever
// came of them.
func (h *Handler) batch(w http.ResponseWriter, r *http.Request) {
	f, err := batchFields(r.URL)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	items, err := h.batchItems(w, r, f)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	results, err := h.opts.KV.Batch(r.Context(), items)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", jsonLines)
	w.WriteHeader(http.StatusOK)
	out := bufio.NewWriterSize(w, 64<<10)
	size := 0
	for i := range results {
		for k := range results[i].Get.Siblings {
			size += len(results[i].Get.Siblings[k].Value)
		}
	}
	defer hold(r, size).Release()
	for i := range items {
		line, err := json.Marshal(h.batchAnswer(r, &items[i], &results[i], f.level))
		if err != nil {
			// What was stored as JSON is none: the line says so.
			line, err = json.Marshal(h.batchFailure(r, &items[i], err))
		}
		if err == nil {
			_, err = out.Write(append(line, '\n'))
		}
		if err != nil {
			h.opts.Logger.Debug("write response", "request_id", requestID(r), "err", err)
			return
		}
	}
	if err := out.Flush(); err != nil {
		h.opts.Logger.Debug("write response", "request_id", requestID(r), "err", err)
	}
}

// batchFields reads the query, which is all that the items have in common.
func batchFields(u *url.URL) (fields, error) {
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return fields{}, invalidf("the query string is malformed: %v", err)
	}
	for name, values := range q {
		switch {
		case name != "tenant_id" && name != "consistency":
			return fields{}, invalidf("unknown query parameter %q; use tenant_id and consistency", name)
		case len(values) > 1:
			return fields{}, invalidf("query parameter %q is given %d times", name, len(values))
		}
	}
	level, err := levelOf(q.Get("consistency"))
	return fields{tenant: q.Get("tenant_id"), level: level}, err
}

// batchItems reads the body: bounded, and no further than the last item that may
// come.
func (h *Handler) batchItems(w http.ResponseWriter, r *http.Request, f fields) ([]coord.Item, error) {
	tooLarge := &coord.Error{
		Code: errcode.InvalidArgument, Outcome: errcode.NotApplied,
		Message: fmt.Sprintf("the body is larger than %d bytes; a batch may have at most %d", maxBatchBody, coord.MaxBatchBytes),
	}
	if r.ContentLength > maxBatchBody {
		return nil, tooLarge
	}
	lines := bufio.NewScanner(http.MaxBytesReader(w, r.Body, maxBatchBody))
	lines.Buffer(make([]byte, 0, 4096), h.opts.MaxValueBytes+bodySlack)
	var items []coord.Item
	for number := 1; lines.Scan(); number++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		if len(items) == coord.MaxBatchItems {
			return nil, invalidf("the batch has more than %d items, which is all that is allowed", coord.MaxBatchItems)
		}
		item, err := parseBatchLine(line, f)
		if err != nil {
			e := *h.opts.Classify(err)
			e.Message = fmt.Sprintf("item %d, in line %d: %s", len(items), number, e.Message)
			return nil, &e
		}
		items = append(items, item)
	}
	var over *http.MaxBytesError
	switch err := lines.Err(); {
	case errors.As(err, &over):
		return nil, tooLarge
	case errors.Is(err, bufio.ErrTooLong):
		return nil, &coord.Error{
			Code: errcode.ValueTooLarge, Outcome: errcode.NotApplied,
			Message: fmt.Sprintf("item %d is larger than %d bytes; a value may have at most %d", len(items), h.opts.MaxValueBytes+bodySlack, h.opts.MaxValueBytes),
		}
	case err != nil:
		return nil, invalidf("the body could not be read: %v", err)
	}
	return items, nil
}

// parseBatchLine reads one item. It keeps nothing of line.
func parseBatchLine(line []byte, f fields) (coord.Item, error) {
	var b batchLine
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	err := dec.Decode(&b)
	if err == nil {
		if _, extra := dec.Token(); !errors.Is(extra, io.EOF) {
			err = invalidf("there is something after the JSON object")
		}
	}
	var typed *coord.Error
	if err != nil && !errors.As(err, &typed) {
		err = invalidf("it is not the JSON object expected here: %v", strings.TrimPrefix(err.Error(), "json: "))
	}
	if err == nil {
		err = checkJSONKey(string(b.Key))
	}
	if err != nil {
		return coord.Item{}, err
	}
	var id []byte
	if b.IdempotencyKey != nil {
		if id, err = checkIdempotencyKey("idempotency_key", *b.IdempotencyKey); err != nil {
			return coord.Item{}, err
		}
	}
	expiry, err := b.expiry()
	switch {
	case err != nil:
		return coord.Item{}, err
	case b.Op == "put":
		return putLine(&b, f, id, expiry)
	case expiry.Kind != causal.ExpiryNever || b.IfAbsent:
		return coord.Item{}, invalidf("fields ttl_seconds, expires_at and if_absent are for the op put")
	case b.Value != nil:
		return coord.Item{}, invalidf("field value is for the op put")
	case b.Op == "delete":
		return coord.Item{Delete: &coord.DeleteRequest{Tenant: f.tenant, Key: []byte(b.Key), Level: f.level, IdempotencyKey: id}}, nil
	case b.Op == "get" && id != nil:
		return coord.Item{}, invalidf("field idempotency_key is for the ops put and delete")
	case b.Op == "get":
		return coord.Item{Get: &coord.GetRequest{Tenant: f.tenant, Key: []byte(b.Key), Level: f.level}}, nil
	}
	return coord.Item{}, invalidf("the op %q is none of put, delete and get", b.Op)
}

func putLine(b *batchLine, f fields, id []byte, expiry causal.Expiry) (coord.Item, error) {
	if b.Value == nil {
		return coord.Item{}, invalidf("field value is missing; any JSON value is allowed, also null and \"\"")
	}
	if !utf8.Valid(b.Value) {
		return coord.Item{}, invalidf("field value is not UTF-8, so it is not JSON; use gRPC or /v1/kv for binary values")
	}
	var value bytes.Buffer
	if err := json.Compact(&value, b.Value); err != nil {
		return coord.Item{}, invalidf("field value is not JSON: %v", err)
	}
	return coord.Item{Put: &coord.PutRequest{
		Tenant: f.tenant, Key: []byte(b.Key), Value: value.Bytes(), Level: f.level, JSON: true, IdempotencyKey: id,
		Expiry: expiry, IfAbsent: b.IfAbsent,
	}}, nil
}

// batchAnswer is the line about an item: what a request of its own would have
// been answered with.
func (h *Handler) batchAnswer(r *http.Request, it *coord.Item, res *coord.ItemResult, level quorum.Level) any {
	err := res.Err
	if it.Get != nil && err == nil {
		var ans any
		if ans, err = getAnswerOf(string(it.Get.Key), &res.Get); err == nil {
			return ans
		}
	}
	switch {
	case err != nil:
		return h.batchFailure(r, it, err)
	case it.Put != nil:
		return putAnswerOf(string(it.Put.Key), string(it.Put.IdempotencyKey), &res.Write, level)
	}
	return deleteAnswerOf(string(it.Delete.Key), string(it.Delete.IdempotencyKey), &res.Write)
}

func (h *Handler) batchFailure(r *http.Request, it *coord.Item, err error) batchError {
	return batchError{Key: keyOf(it), errorBody: h.errorBodyOf(r, h.opts.Classify(err), it.Get == nil)}
}

func keyOf(it *coord.Item) string {
	switch {
	case it.Put != nil:
		return string(it.Put.Key)
	case it.Delete != nil:
		return string(it.Delete.Key)
	}
	return string(it.Get.Key)
}
