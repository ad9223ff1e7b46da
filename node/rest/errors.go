package rest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/node/door"
)

// errorBody is the one error shape of every route.
type errorBody struct {
	Status    string          `json:"status"`
	ErrorCode errcode.Code    `json:"error_code"`
	Message   string          `json:"message"`
	RequestID string          `json:"request_id"`
	Outcome   errcode.Outcome `json:"outcome,omitempty"`
	Acks      *int            `json:"acks,omitempty"`
	Need      *int            `json:"need,omitempty"`
	Causes    []cause         `json:"causes,omitempty"`
	// Context is what a write would need to carry, in base64.
	Context []byte `json:"context,omitempty"`
}

type cause struct {
	NodeID string `json:"node_id"`
	Name   string `json:"name,omitempty"`
	Reason string `json:"reason"`
}

// invalidf is an INVALID_ARGUMENT of this edge: nothing was tried.
func invalidf(format string, args ...any) error {
	return &coord.Error{
		Code:    errcode.InvalidArgument,
		Outcome: errcode.NotApplied,
		Message: fmt.Sprintf(format, args...),
	}
}

// forbidden is a FORBIDDEN of this edge: nothing was tried.
func forbidden(msg string) error {
	return &coord.Error{Code: errcode.Forbidden, Outcome: errcode.NotApplied, Message: msg}
}

// fail writes err with the HTTP status its code maps to.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := h.opts.Classify(err)
	h.failStatus(w, r, errcode.Lookup(e.Code).HTTP, e)
}

func (h *Handler) failStatus(w http.ResponseWriter, r *http.Request, status int, err error) {
	body := h.errorOf(r, err)
	if errcode.Lookup(body.ErrorCode).Retryable && (status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests) {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter(err)))
	}
	h.write(w, r, status, body)
}

// retryAfter is how long a client should wait, in whole seconds as the header has
// them, at least 1.
func retryAfter(err error) int {
	var e *coord.Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		return int((e.RetryAfter + time.Second - 1) / time.Second)
	}
	return 1
}

// errorOf is the body of a request's error.
func (h *Handler) errorOf(r *http.Request, err error) errorBody {
	e := h.opts.Classify(err)
	if e.Code == errcode.Internal {
		// The one code whose cause only this node can tell: the id finds the line.
		h.opts.Logger.Error("request failed", "method", r.Method, "path", r.URL.Path, "request_id", requestID(r), "err", err)
	}
	return h.errorBodyOf(r, e, !safe(r.Method))
}

// errorBodyOf is the error of a request, or of one of several, that writes or
// does not.
func (h *Handler) errorBodyOf(r *http.Request, e *coord.Error, write bool) errorBody {
	body := errorBody{
		Status: "error", ErrorCode: e.Code, Message: e.Message,
		RequestID: requestID(r), Outcome: e.Outcome, Context: e.Token,
	}
	if body.Outcome == "" && write {
		body.Outcome = h.opts.Outcome(e.Code)
	}
	if body.Message == "" {
		body.Message = errcode.Lookup(e.Code).Meaning
	}
	if e.Need > 0 {
		body.Acks, body.Need = &e.Acks, &e.Need
	}
	for _, c := range e.Causes {
		body.Causes = append(body.Causes, cause{NodeID: c.Node.String(), Name: c.Name, Reason: c.Reason})
	}
	return body
}

// safe says that a request with the method changes nothing.
func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// hold counts an answer on its connection until it has been written, which waits
// for the client to read.
func hold(r *http.Request, size int) *door.Hold {
	return door.FromContext(r.Context()).Hold(size)
}

// write sends v as JSON. A client that went away is no error of ours.
func (h *Handler) write(w http.ResponseWriter, r *http.Request, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		h.opts.Logger.Error("encode response", "request_id", requestID(r), "err", err)
		status, b = http.StatusInternalServerError, []byte(`{"status":"error","error_code":"INTERNAL","message":"the answer could not be encoded","request_id":"`+requestID(r)+`"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	defer hold(r, len(b)).Release()
	if _, err := w.Write(append(b, '\n')); err != nil {
		h.opts.Logger.Debug("write response", "request_id", requestID(r), "err", err)
	}
}
