package rest

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/pairdb/pairdb/coord"
)

const (
	// scanTime is how long a response of scanKeys goes on at most. Its last line
	// then says where the next one does.
	scanTime = 30 * time.Second
	// scanWrite is how long a client may take to read a page.
	scanWrite = time.Minute
)

// scanLine is one key of a scan.
type scanLine struct {
	Key string `json:"key"`
	// KeyEncoding is "base64" where the key is no text that the other routes take.
	KeyEncoding string `json:"key_encoding,omitempty"`
	*valueAnswer
	VectorClock map[string]uint64 `json:"vector_clock"`
	Siblings    []valueAnswer     `json:"siblings,omitempty"`
	// Context is what a write through /v1/kv takes in X-PairDB-Context.
	Context []byte `json:"context,omitempty"`
}

// scanEnd is the last line of a scan.
type scanEnd struct {
	Status string `json:"status"`
	// NextPageToken is empty if there is nothing behind the last key.
	NextPageToken string `json:"next_page_token"`
	Count         int    `json:"count"`
	Scanned       int    `json:"scanned"`
}

// scanKeys serves GET /v1/scan: keys as lines of JSON, and a last line with
// "status". That is "success", with where to go on if there may be more: limit
// ends a response, and so do 30 s. Or it is "error", as in the body of any other
// error; before the first line, an error has its HTTP status, too.
func (h *Handler) scanKeys(w http.ResponseWriter, r *http.Request) {
	req, limit, err := parseScan(r.URL)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	began := time.Now()
	out := http.NewResponseController(w)
	end := scanEnd{Status: "success"}
	begun := false
	for {
		if req.MaxKeys = coord.DefaultPageKeys; limit > 0 {
			req.MaxKeys = min(req.MaxKeys, limit-end.Count)
		}
		p, err := h.opts.KV.Scan(r.Context(), req)
		var body []byte
		if err == nil {
			body, err = scanLines(&p, req.KeysOnly)
		}
		switch {
		case err != nil && !begun:
			h.fail(w, r, err)
			return
		case err != nil:
			h.writeLine(w, r, h.errorOf(r, err))
			return
		case !begun:
			w.Header().Set("Content-Type", jsonLines)
			w.WriteHeader(http.StatusOK)
			begun = true
		}
		// Not every writer has deadlines; those of the server have.
		_ = out.SetWriteDeadline(time.Now().Add(scanWrite))
		held := hold(r, len(body))
		_, err = w.Write(body)
		held.Release()
		if err != nil {
			h.opts.Logger.Debug("write response", "request_id", requestID(r), "err", err)
			return
		}
		end.Count += len(p.Items)
		end.Scanned += p.Scanned
		end.NextPageToken = base64.RawURLEncoding.EncodeToString(p.PageToken)
		if len(p.PageToken) == 0 || limit > 0 && end.Count >= limit || time.Since(began) >= scanTime {
			h.writeLine(w, r, end)
			return
		}
		req.PageToken = p.PageToken
		// A client that is gone is noticed by the next write.
		_ = out.Flush()
	}
}

// parseScan reads the query.
func parseScan(u *url.URL) (req coord.ScanRequest, limit int, err error) {
	q, err := queryOf(u, "tenant_id", "prefix", "start", "end", "limit", "keys_only", "consistency", "page_token")
	if err != nil {
		return req, 0, err
	}
	req = coord.ScanRequest{
		Tenant: q.Get("tenant_id"), Prefix: []byte(q.Get("prefix")), Start: []byte(q.Get("start")), End: []byte(q.Get("end")),
	}
	if req.Level, err = levelOf(q.Get("consistency")); err != nil {
		return req, 0, err
	}
	if v := q.Get("limit"); v != "" {
		if limit, err = strconv.Atoi(v); err != nil || limit < 1 {
			return req, 0, invalidf("limit=%q is no number of keys, at least 1", v)
		}
	}
	if v := q.Get("keys_only"); v != "" {
		if req.KeysOnly, err = strconv.ParseBool(v); err != nil {
			return req, 0, invalidf("keys_only=%q is neither true nor false", v)
		}
	}
	if v := q.Get("page_token"); v != "" {
		// The alphabet of URLs, or the standard one as other answers have it.
		v = strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(v), "=")
		if req.PageToken, err = base64.RawURLEncoding.DecodeString(v); err != nil {
			return req, 0, invalidf("page_token is not the next_page_token of an earlier answer: %v", err)
		}
	}
	return req, limit, nil
}

// scanLines encodes the keys of a page.
func scanLines(p *coord.ScanResponse, keysOnly bool) ([]byte, error) {
	var body []byte
	for i := range p.Items {
		it := &p.Items[i]
		line := scanLine{Key: string(it.Key), VectorClock: clockMap(it.Context), Context: it.Token}
		if checkJSONKey(line.Key) != nil {
			line.Key, line.KeyEncoding = base64.StdEncoding.EncodeToString(it.Key), "base64"
		}
		for k := range it.Siblings {
			if keysOnly {
				break
			}
			v, err := valueOf(&it.Siblings[k])
			if err != nil {
				return nil, err
			}
			if k == 0 {
				line.valueAnswer = &v
			} else {
				line.Siblings = append(line.Siblings, v)
			}
		}
		b, err := json.Marshal(line)
		if err != nil {
			return nil, err
		}
		body = append(append(body, b...), '\n')
	}
	return body, nil
}

// writeLine writes v as the last line of a response that has begun.
func (h *Handler) writeLine(w http.ResponseWriter, r *http.Request, v any) {
	b, err := json.Marshal(v)
	if err == nil {
		_, err = w.Write(append(b, '\n'))
	}
	if err != nil {
		h.opts.Logger.Debug("write response", "request_id", requestID(r), "err", err)
	}
}
