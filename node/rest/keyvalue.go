package rest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// bodySlack is what a request body may hold beside the value: the other
// fields, escapes in the key, white space. In bytes.
const bodySlack = 64 << 10

type putBody struct {
	TenantID    string          `json:"tenant_id"`
	Key         jsonKey         `json:"key"`
	Value       json.RawMessage `json:"value"`
	Consistency string          `json:"consistency"`
	IfAbsent    bool            `json:"if_absent"`
	jsonExpiry
}

type putAnswer struct {
	Status         string            `json:"status"`
	Key            string            `json:"key"`
	IdempotencyKey string            `json:"idempotency_key"`
	VectorClock    map[string]uint64 `json:"vector_clock"`
	ReplicaCount   int               `json:"replica_count"`
	Consistency    string            `json:"consistency"`
	IsDuplicate    bool              `json:"is_duplicate"`
}

func (h *Handler) putKeyValue(w http.ResponseWriter, r *http.Request) {
	idempotencyKey, err := idempotencyKeyOf(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	var body putBody
	if err := h.decode(w, r, &body); err != nil {
		h.fail(w, r, err)
		return
	}
	if body.Value == nil {
		h.fail(w, r, invalidf("field value is missing; any JSON value is allowed, also null and \"\""))
		return
	}
	if !utf8.Valid(body.Value) {
		h.fail(w, r, invalidf("field value is not UTF-8, so it is not JSON; use gRPC or /v1/kv for binary values"))
		return
	}
	key := string(body.Key)
	level, err := levelOf(body.Consistency)
	if err == nil {
		err = checkJSONKey(key)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	var value bytes.Buffer
	if err := json.Compact(&value, body.Value); err != nil {
		h.fail(w, r, invalidf("field value is not JSON: %v", err))
		return
	}
	expiry, err := body.expiry()
	if err != nil {
		h.fail(w, r, err)
		return
	}
	res, err := h.opts.KV.Put(r.Context(), coord.PutRequest{
		Tenant: body.TenantID, Key: []byte(key), Value: value.Bytes(), Level: level, JSON: true,
		Expiry: expiry, IfAbsent: body.IfAbsent, IdempotencyKey: idempotencyKey,
	})
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.write(w, r, http.StatusOK, putAnswerOf(key, string(idempotencyKey), &res, level))
}

func putAnswerOf(key, idempotencyKey string, res *coord.WriteResponse, level quorum.Level) putAnswer {
	if idempotencyKey == "" {
		idempotencyKey = dotName(res.Dot)
	}
	return putAnswer{
		Status: "success", Key: key, IdempotencyKey: idempotencyKey,
		VectorClock: clockMap(res.Context), ReplicaCount: res.Replicas, Consistency: level.String(),
		IsDuplicate: res.Duplicate,
	}
}

// idempotencyKeyOf reads the header Idempotency-Key, nil if there is none. The
// key has to pass through JSON and headers as it is, so it is printable ASCII.
func idempotencyKeyOf(r *http.Request) ([]byte, error) {
	values := r.Header.Values("Idempotency-Key")
	switch {
	case len(values) == 0:
		return nil, nil
	case len(values) > 1:
		return nil, invalidf("Idempotency-Key is given %d times", len(values))
	}
	return checkIdempotencyKey("Idempotency-Key", values[0])
}

// checkIdempotencyKey returns the key that came as what name says.
func checkIdempotencyKey(name, key string) ([]byte, error) {
	if key == "" || len(key) > causal.MaxIdempotencyKey {
		return nil, invalidf("%s has %d bytes, 1 to %d are allowed", name, len(key), causal.MaxIdempotencyKey)
	}
	for _, b := range []byte(key) {
		if b < ' ' || b > '~' {
			return nil, invalidf("%s has a byte that is not printable ASCII; use gRPC for other keys", name)
		}
	}
	return []byte(key), nil
}

// valueAnswer is a value as JSON: as it was if it was written as JSON, else a
// string, or base64 where the bytes are not UTF-8.
type valueAnswer struct {
	Value    json.RawMessage `json:"value"`
	Encoding string          `json:"encoding,omitempty"`
	// ExpiresAt is RFC 3339, in whole milliseconds; absent for never.
	ExpiresAt string `json:"expires_at,omitempty"`
}

type getAnswer struct {
	Status string `json:"status"`
	Key    string `json:"key"`
	valueAnswer
	VectorClock map[string]uint64 `json:"vector_clock"`
	Siblings    []valueAnswer     `json:"siblings,omitempty"`
}

func (h *Handler) getKeyValue(w http.ResponseWriter, r *http.Request) {
	f, err := queryFields(r.URL)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	res, err := h.opts.KV.Get(r.Context(), coord.GetRequest{Tenant: f.tenant, Key: []byte(f.key), Level: f.level})
	if err != nil {
		h.fail(w, r, err)
		return
	}
	ans, err := getAnswerOf(f.key, &res)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.write(w, r, http.StatusOK, ans)
}

func getAnswerOf(key string, res *coord.GetResponse) (getAnswer, error) {
	if len(res.Siblings) == 0 {
		return getAnswer{}, errors.New("read returned no value and no error")
	}
	ans := getAnswer{Status: "success", Key: key, VectorClock: clockMap(res.Context)}
	for i := range res.Siblings {
		v, err := valueOf(&res.Siblings[i])
		if err != nil {
			return getAnswer{}, err
		}
		if i == 0 {
			ans.valueAnswer = v
		} else {
			ans.Siblings = append(ans.Siblings, v)
		}
	}
	return ans, nil
}

type deleteAnswer struct {
	Status       string            `json:"status"`
	Key          string            `json:"key"`
	VectorClock  map[string]uint64 `json:"vector_clock"`
	ReplicaCount int               `json:"replica_count"`
	// IdempotencyKey and IsDuplicate are there if the request had a key.
	IdempotencyKey string `json:"idempotency_key,omitempty"`
	IsDuplicate    bool   `json:"is_duplicate,omitempty"`
}

func (h *Handler) deleteKeyValue(w http.ResponseWriter, r *http.Request) {
	f, err := h.deleteFields(w, r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	expect, err := parseClock(r.Header.Get("X-Vector-Clock"))
	if err != nil {
		h.fail(w, r, err)
		return
	}
	idempotencyKey, err := idempotencyKeyOf(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	res, err := h.opts.KV.Delete(r.Context(), coord.DeleteRequest{
		Tenant: f.tenant, Key: []byte(f.key), Level: f.level, ExpectClock: expect, IdempotencyKey: idempotencyKey,
	})
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.write(w, r, http.StatusOK, deleteAnswerOf(f.key, string(idempotencyKey), &res))
}

func deleteAnswerOf(key, idempotencyKey string, res *coord.WriteResponse) deleteAnswer {
	return deleteAnswer{
		Status: "success", Key: key, VectorClock: clockMap(res.Context), ReplicaCount: res.Replicas,
		IdempotencyKey: idempotencyKey, IsDuplicate: res.Duplicate,
	}
}

// fields are what a read or delete names.
type fields struct {
	tenant, key string
	level       quorum.Level
}

// deleteFields takes the fields from the query, or from a JSON body when the
// query has none.
func (h *Handler) deleteFields(w http.ResponseWriter, r *http.Request) (fields, error) {
	if r.URL.RawQuery != "" {
		return queryFields(r.URL)
	}
	var body struct {
		TenantID    string  `json:"tenant_id"`
		Key         jsonKey `json:"key"`
		Consistency string  `json:"consistency"`
	}
	if err := h.decode(w, r, &body); err != nil {
		return fields{}, err
	}
	level, err := levelOf(body.Consistency)
	if err == nil {
		err = checkJSONKey(string(body.Key))
	}
	return fields{tenant: body.TenantID, key: string(body.Key), level: level}, err
}

func queryFields(u *url.URL) (fields, error) {
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return fields{}, invalidf("the query string is malformed: %v", err)
	}
	for name, values := range q {
		switch {
		case name != "tenant_id" && name != "key" && name != "consistency":
			return fields{}, invalidf("unknown query parameter %q; use tenant_id, key and consistency", name)
		case len(values) > 1:
			return fields{}, invalidf("query parameter %q is given %d times", name, len(values))
		}
	}
	level, err := levelOf(q.Get("consistency"))
	if err == nil {
		err = checkJSONKey(q.Get("key"))
	}
	return fields{tenant: q.Get("tenant_id"), key: q.Get("key"), level: level}, err
}

// decode reads one JSON object into v: bounded, strict about unknown fields.
func (h *Handler) decode(w http.ResponseWriter, r *http.Request, v any) error {
	limit := int64(h.opts.MaxValueBytes) + bodySlack
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil {
		if _, err = dec.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		return invalidf("the body has something after its JSON object")
	}
	var (
		tooLarge *http.MaxBytesError
		typed    *coord.Error
	)
	switch {
	case errors.As(err, &typed):
		return typed
	case errors.As(err, &tooLarge):
		return &coord.Error{
			Code: errcode.ValueTooLarge, Outcome: errcode.NotApplied,
			Message: fmt.Sprintf("the body is larger than %d bytes; a value may have at most %d", limit, h.opts.MaxValueBytes),
		}
	case errors.Is(err, io.EOF):
		return invalidf("the body is empty; send a JSON object")
	default:
		return invalidf("the body is not the JSON object expected here: %v", strings.TrimPrefix(err.Error(), "json: "))
	}
}

// levelOf reads the consistency field; absent means quorum.
func levelOf(s string) (quorum.Level, error) {
	if s == "" {
		return quorum.Quorum, nil
	}
	level, err := quorum.ParseLevel(s)
	if err != nil {
		return 0, invalidf("consistency %q is not one, quorum or all", s)
	}
	return level, nil
}

func valueOf(s *causal.Sibling) (v valueAnswer, err error) {
	v.ExpiresAt = expiryText(s)
	switch {
	case s.Flags&causal.FlagJSON != 0:
		v.Value = s.Value
	case utf8.Valid(s.Value):
		v.Value, err = json.Marshal(string(s.Value))
	default:
		v.Encoding = "base64"
		v.Value, err = json.Marshal(base64.StdEncoding.EncodeToString(s.Value))
	}
	return v, err
}

// clockMap shows a context as {actor in 16 hex digits: counter}.
func clockMap(seen causal.Context) map[string]uint64 {
	m := make(map[string]uint64, len(seen))
	for _, d := range seen {
		m[fmt.Sprintf("%016x", d.Actor)] = d.Counter
	}
	return m
}

func dotName(d causal.Dot) string { return fmt.Sprintf("%016x-%d", d.Actor, d.Counter) }

// maxClockEntries bounds X-Vector-Clock; an object has an entry per start of a
// node that wrote it.
const maxClockEntries = 1024

// parseClock reads X-Vector-Clock, the vector_clock of an earlier answer. It
// returns nil when the header is absent.
func parseClock(header string) (causal.Context, error) {
	if header == "" {
		return nil, nil
	}
	var m map[string]json.Number
	if err := json.Unmarshal([]byte(header), &m); err != nil {
		return nil, invalidf("X-Vector-Clock is not the vector_clock object of an earlier answer: %v", err)
	}
	if len(m) > maxClockEntries {
		return nil, invalidf("X-Vector-Clock has %d entries, at most %d are allowed", len(m), maxClockEntries)
	}
	dots := make([]causal.Dot, 0, len(m))
	for name, num := range m {
		actor, err := strconv.ParseUint(name, 16, 64)
		if err != nil || len(name) != 16 {
			return nil, invalidf("X-Vector-Clock names %q, which is no actor: 16 hex digits are expected", name)
		}
		n, err := strconv.ParseUint(num.String(), 10, 64)
		if err != nil || n == 0 || n == math.MaxUint64 {
			return nil, invalidf("X-Vector-Clock gives %q the counter %s, which is no positive integer", name, num)
		}
		dots = append(dots, causal.Dot{Actor: actor, Counter: n})
	}
	return causal.NewContext(dots...), nil
}
