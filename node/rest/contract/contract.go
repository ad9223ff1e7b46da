// Package contract holds requests and answers of the HTTP port against its
// OpenAPI document. It is for tests, of which every one that asks a node over
// HTTP can have its answers checked.
package contract

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	verrors "github.com/pb33f/libopenapi-validator/errors"
	v3 "github.com/pb33f/libopenapi/datamodel/high/v3"
)

// Checker checks exchanges against the document and remembers which operations
// it has seen. It is safe for concurrent use.
type Checker struct {
	v     validator.Validator
	model *v3.Document
	mu    struct {
		sync.Mutex
		seen map[string]map[int]bool
	}
}

// New returns a checker of a document, or what is wrong with that.
func New(text []byte) (*Checker, error) {
	doc, err := libopenapi.NewDocument(text)
	if err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	v, errs := validator.NewValidator(doc, config.WithFormatAssertions())
	if len(errs) > 0 {
		return nil, fmt.Errorf("read the OpenAPI document: %w", errors.Join(errs...))
	}
	if ok, wrong := v.ValidateDocument(); !ok {
		return nil, fmt.Errorf("the document is no OpenAPI: %w", join(wrong))
	}
	model, err := doc.BuildV3Model()
	if err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	c := &Checker{v: v, model: &model.Model}
	c.mu.seen = map[string]map[int]bool{}
	return c, nil
}

// Operations lists the operations of the document, as GET /v1/tenants/{id},
// sorted.
func (c *Checker) Operations() []string {
	var all []string
	for path, item := range c.model.Paths.PathItems.FromOldest() {
		for method := range item.GetOperations().FromOldest() {
			all = append(all, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(all)
	return all
}

// Seen returns the statuses that Check has seen of an operation.
func (c *Checker) Seen(operation string) []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.mu.seen[operation]))
}

// Check says what the document does not allow about an answer, and about the
// request of one that succeeded: its body, its headers and its parameters. It
// reads resp.Body and replaces it.
func (c *Checker) Check(method string, target *url.URL, sent http.Header, body []byte, resp *http.Response) error {
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(answer))
	path, op, item := c.find(method, target)
	if op == nil {
		if method == http.MethodOptions && resp.Header.Get("Access-Control-Allow-Origin") != "" {
			return nil // between the browser and the node
		}
		if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusMethodNotAllowed {
			return nil // what is not served is not in the document
		}
		return fmt.Errorf("%s %s is answered and is no operation of node/rest/openapi.yaml: add it", method, target.Path)
	}
	c.note(method+" "+path, resp.StatusCode)
	at := &url.URL{Scheme: "http", Host: "127.0.0.1:8080", Path: concrete(path), RawQuery: target.RawQuery}
	kind, parts := bodies(op, body)
	var wrong []error
	var req *http.Request
	for _, part := range parts {
		req = &http.Request{Method: method, URL: at, Header: sent.Clone(), Body: io.NopCloser(bytes.NewReader(part)), ContentLength: int64(len(part))}
		if req.Header == nil {
			req.Header = http.Header{}
		}
		req.Header.Del("Content-Type")
		if len(part) > 0 {
			req.Header.Set("Content-Type", kind)
		}
		if resp.StatusCode >= 300 {
			continue
		}
		if _, errs := c.v.ValidateHttpRequestSync(req); len(errs) > 0 {
			wrong = append(wrong, join(errs))
		}
	}
	if resp.StatusCode < 300 {
		wrong = append(wrong, unknownParameters(op, item, target)...)
	}
	wrong = append(wrong, c.response(req, op, resp, answer)...)
	if err := errors.Join(wrong...); err != nil {
		return fmt.Errorf("%s %s, status %d, is not as node/rest/openapi.yaml says: %w\n%.500s", method, path, resp.StatusCode, err, answer)
	}
	return nil
}

func (c *Checker) response(req *http.Request, op *v3.Operation, resp *http.Response, body []byte) []error {
	var wrong []error
	documented := op.Responses.Codes.GetOrZero(fmt.Sprint(resp.StatusCode))
	if documented == nil {
		documented = op.Responses.Default
		if resp.StatusCode < 400 {
			return []error{fmt.Errorf("the status is not in the document")}
		}
	}
	for name := range resp.Header {
		browsers := strings.HasPrefix(name, "Access-Control-")
		if !browsers && !slices.Contains(everywhere, name) && !hasHeader(documented, name) {
			wrong = append(wrong, fmt.Errorf("the header %s of the answer is not in the document", name))
		}
	}
	if len(body) == 0 {
		return wrong // of HEAD, or of a status that has none
	}
	parts := [][]byte{body}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), jsonLines) {
		parts = splitLines(body)
	}
	for _, part := range parts {
		copied := *resp
		copied.Body = io.NopCloser(bytes.NewReader(part))
		if _, errs := c.v.ValidateHttpResponse(req, &copied); len(errs) > 0 {
			wrong = append(wrong, join(errs))
		}
	}
	return wrong
}

// jsonLines is the type of a body whose schema is that of each line.
const jsonLines = "application/x-ndjson"

func splitLines(body []byte) [][]byte {
	return bytes.SplitAfter(bytes.TrimSuffix(body, []byte("\n")), []byte("\n"))
}

// bodies returns what the body of a request is to be taken for, and what of it
// is checked by itself: the routes do not ask what a body calls itself.
func bodies(op *v3.Operation, body []byte) (kind string, parts [][]byte) {
	if op.RequestBody != nil && op.RequestBody.Content.GetOrZero(jsonLines) != nil {
		return jsonLines, splitLines(body)
	}
	if op.RequestBody != nil && op.RequestBody.Content.GetOrZero("*/*") != nil {
		return "application/octet-stream", [][]byte{body}
	}
	return "application/json", [][]byte{body}
}

// everywhere are the headers that need no word.
var everywhere = []string{
	"Content-Type", "Content-Length", "Date", "Connection", "Cache-Control", "Vary", "X-Content-Type-Options", "Transfer-Encoding",
	"Content-Disposition", "X-Go-Pprof",
}

func hasHeader(r *v3.Response, name string) bool {
	if r == nil || r.Headers == nil {
		return false
	}
	for h := range r.Headers.FromOldest() {
		if http.CanonicalHeaderKey(h) == name {
			return true
		}
	}
	return false
}

// unknownParameters names what the query has and the document does not.
func unknownParameters(op *v3.Operation, item *v3.PathItem, target *url.URL) []error {
	known := map[string]bool{}
	for _, p := range slices.Concat(op.Parameters, item.Parameters) {
		if p.In == "query" {
			known[p.Name] = true
		}
	}
	var wrong []error
	for name := range target.Query() {
		if !known[name] {
			wrong = append(wrong, fmt.Errorf("the query parameter %s was taken and is not in the document", name))
		}
	}
	return wrong
}

// find returns the operation that serves a request. The last parameter of these
// two routes has slashes, which no OpenAPI path can say.
func (c *Checker) find(method string, target *url.URL) (string, *v3.Operation, *v3.PathItem) {
	at := target.EscapedPath()
	for path, item := range c.model.Paths.PathItems.FromOldest() {
		if !fits(path, at) {
			continue
		}
		if op := item.GetOperations().GetOrZero(strings.ToLower(method)); op != nil {
			return path, op, item
		}
	}
	return "", nil, nil
}

func fits(path, at string) bool {
	if prefix, ok := strings.CutSuffix(path, "{key}"); ok {
		return strings.HasPrefix(at, prefix[:strings.Index(prefix, "{")])
	}
	if prefix, ok := strings.CutSuffix(path, "{name}"); ok {
		return strings.HasPrefix(at, prefix)
	}
	want, got := strings.Split(path, "/"), strings.Split(at, "/")
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		if !strings.HasPrefix(want[i], "{") && want[i] != got[i] {
			return false
		}
	}
	return true
}

// concrete puts a word in the place of each parameter of a path.
func concrete(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if strings.HasPrefix(p, "{") {
			parts[i] = "x"
		}
	}
	return strings.Join(parts, "/")
}

func (c *Checker) note(operation string, status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.seen[operation] == nil {
		c.mu.seen[operation] = map[int]bool{}
	}
	c.mu.seen[operation][status] = true
}

// join makes one error of what a validation found, nil for nothing.
func join(found []*verrors.ValidationError) error {
	var all []error
	for _, f := range found {
		all = append(all, errors.New(f.Message+": "+f.Reason))
		for _, s := range f.SchemaValidationErrors {
			all = append(all, fmt.Errorf("%s: %s", s.FieldPath, s.Reason))
		}
	}
	return errors.Join(all...)
}
