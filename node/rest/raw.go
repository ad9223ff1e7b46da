package rest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// The raw-bytes route: a value is a body, and a key whatever the path has after
// the tenant, unescaped once. A mux would redirect a//b and .. to other keys, so
// the route is found before it.
const (
	rawPrefix  = "/v1/kv/"
	rawPattern = rawPrefix + "{tenant}/{key...}"
	// contextHeader has the causal context, in base64, both ways.
	contextHeader = "X-PairDB-Context"
)

// rawRoutes lists the methods of the raw-bytes route.
func (h *Handler) rawRoutes() []route {
	return []route{
		{http.MethodPut, h.putRaw},
		{http.MethodGet, h.getRaw},
		{http.MethodHead, h.getRaw},
		{http.MethodDelete, h.deleteRaw},
	}
}

// find returns what serves a request, and the pattern of its route, "" if there
// is none.
func (h *Handler) find(r *http.Request) (http.Handler, string) {
	if strings.HasPrefix(r.URL.EscapedPath(), rawPrefix) {
		for _, raw := range h.rawRoutes() {
			if raw.pattern == r.Method {
				return raw.serve, r.Method + " " + rawPattern
			}
		}
		return nil, ""
	}
	_, pattern := h.mux.Handler(r)
	return h.mux, pattern
}

// rawRequest is what path, query and headers of the raw-bytes route say.
type rawRequest struct {
	tenant string
	key    []byte
	level  quorum.Level
	token  []byte
	expiry causal.Expiry
	preconditions
}

// parseRaw reads them.
func parseRaw(r *http.Request) (rawRequest, error) {
	var req rawRequest
	tenant, key, _ := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), rawPrefix), "/")
	tenant, err := url.PathUnescape(tenant)
	if err == nil {
		key, err = url.PathUnescape(key)
	}
	if err != nil {
		return req, invalidf("the path is malformed: %v", err)
	}
	req.tenant, req.key = tenant, []byte(key)
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return req, invalidf("the query string is malformed: %v", err)
	}
	for name, values := range q {
		switch {
		case name == "ttl" && r.Method != http.MethodPut:
			return req, invalidf("query parameter \"ttl\" is for PUT")
		case name != "consistency" && name != "ttl":
			return req, invalidf("unknown query parameter %q; use consistency and ttl, and put a ? of the key as %%3F", name)
		case len(values) > 1:
			return req, invalidf("query parameter %q is given %d times", name, len(values))
		}
	}
	if req.level, err = levelOf(q.Get("consistency")); err != nil {
		return req, err
	}
	if req.expiry, err = ttlOf(q["ttl"]); err != nil {
		return req, err
	}
	if !safe(r.Method) {
		if req.preconditions, err = preconditionsOf(r); err != nil {
			return req, err
		}
	}
	if r.Header.Get("Idempotency-Key") != "" {
		return req, invalidf("Idempotency-Key is not supported by this version: a retry could be applied twice; send the request without it")
	}
	req.token, err = parseContext(r.Header.Values(contextHeader))
	return req, err
}

// parseContext reads X-PairDB-Context; absent is empty.
func parseContext(values []string) ([]byte, error) {
	if len(values) == 0 || len(values) == 1 && values[0] == "" {
		return nil, nil
	}
	if len(values) > 1 {
		return nil, invalidf("%s is given %d times", contextHeader, len(values))
	}
	if base64.StdEncoding.DecodedLen(len(values[0])) > coord.MaxTokenSize+2 {
		return nil, invalidf("%s has %d characters, more than a context has", contextHeader, len(values[0]))
	}
	token, err := base64.StdEncoding.DecodeString(values[0])
	if err != nil {
		return nil, invalidf("%s is not the base64 of an earlier answer: %v", contextHeader, err)
	}
	return token, nil
}

func setContext(w http.ResponseWriter, token []byte) {
	if len(token) > 0 {
		w.Header().Set(contextHeader, base64.StdEncoding.EncodeToString(token))
	}
}

func (h *Handler) putRaw(w http.ResponseWriter, r *http.Request) {
	req, err := parseRaw(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	value, err := h.rawBody(w, r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	res, err := h.opts.KV.Put(r.Context(), coord.PutRequest{
		Tenant: req.tenant, Key: req.key, Value: value, Level: req.level, Token: req.token,
		Expiry: req.expiry, IfAbsent: req.absent, IfDot: req.dot,
	})
	if err != nil {
		h.fail(w, r, err)
		return
	}
	setContext(w, res.Token)
	w.Header().Set("ETag", `"`+dotName(res.Dot)+`"`)
	w.WriteHeader(http.StatusNoContent)
}

// rawBody reads the value: bounded, and refused by its announced length first.
func (h *Handler) rawBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	limit := int64(h.opts.MaxValueBytes)
	tooLarge := &coord.Error{
		Code: errcode.ValueTooLarge, Outcome: errcode.NotApplied,
		Message: fmt.Sprintf("the body is larger than the %d bytes that a value may have", limit),
	}
	if r.ContentLength > limit {
		return nil, tooLarge
	}
	value, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, tooLarge
	case err != nil:
		return nil, invalidf("the body could not be read: %v", err)
	}
	return value, nil
}

func (h *Handler) deleteRaw(w http.ResponseWriter, r *http.Request) {
	req, err := parseRaw(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	res, err := h.opts.KV.Delete(r.Context(), coord.DeleteRequest{
		Tenant: req.tenant, Key: req.key, Level: req.level, Token: req.token, IfDot: req.dot,
	})
	if err != nil {
		h.fail(w, r, err)
		return
	}
	setContext(w, res.Token)
	w.WriteHeader(http.StatusNoContent)
}

// rawSibling is one of several values, always in base64.
type rawSibling struct {
	Value     []byte `json:"value"`
	Encoding  string `json:"encoding"`
	Dot       string `json:"dot"`
	WrittenAt string `json:"written_at"`
	ExpiresAt string `json:"expires_at,omitempty"`
}

type rawSiblings struct {
	Status   string       `json:"status"`
	Siblings []rawSibling `json:"siblings"`
}

func (h *Handler) getRaw(w http.ResponseWriter, r *http.Request) {
	req, err := parseRaw(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	res, err := h.opts.KV.Get(r.Context(), coord.GetRequest{Tenant: req.tenant, Key: req.key, Level: req.level})
	if err == nil && len(res.Siblings) == 0 {
		err = errors.New("read returned no value and no error")
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	setContext(w, res.Token)
	tag := entityTag(res.Siblings)
	w.Header().Set("ETag", tag)
	// Whoever keeps the value asks again before it uses it.
	w.Header().Set("Cache-Control", "no-cache")
	if at := expiryText(&res.Siblings[0]); at != "" && len(res.Siblings) == 1 {
		w.Header().Set(expiryHeader, at)
	}
	if matches(r.Header.Values("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if len(res.Siblings) > 1 {
		list := rawSiblings{Status: "siblings", Siblings: make([]rawSibling, len(res.Siblings))}
		for i := range res.Siblings {
			s := &res.Siblings[i]
			list.Siblings[i] = rawSibling{Value: s.Value, Encoding: "base64", Dot: dotName(s.Dot), WrittenAt: s.WrittenAt().UTC().Format(time.RFC3339Nano), ExpiresAt: expiryText(s)}
			if s.Value == nil {
				list.Siblings[i].Value = []byte{} // null would be no value
			}
		}
		h.write(w, r, http.StatusMultipleChoices, list)
		return
	}
	s := &res.Siblings[0]
	contentType := "application/octet-stream"
	if s.Flags&causal.FlagJSON != 0 {
		contentType = "application/json"
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(s.Value)))
	defer hold(r, len(s.Value)).Release()
	if _, err := w.Write(s.Value); err != nil {
		h.opts.Logger.Debug("write response", "request_id", requestID(r), "err", err)
	}
}

// entityTag names what a key holds: the write of its value, or a digest of the
// writes of several.
func entityTag(siblings []causal.Sibling) string {
	if len(siblings) == 1 {
		return `"` + dotName(siblings[0].Dot) + `"`
	}
	hash := sha256.New()
	for i := range siblings {
		hash.Write([]byte(dotName(siblings[i].Dot) + "\n")) // a hash never fails
	}
	return `"` + hex.EncodeToString(hash.Sum(nil)[:16]) + `"`
}

// matches reports whether an If-None-Match names the tag. Weak tags count: the
// bytes behind one tag never differ.
func matches(values []string, tag string) bool {
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			part = strings.TrimSpace(part)
			if part == "*" || strings.TrimPrefix(part, "W/") == tag {
				return true
			}
		}
	}
	return false
}
