package rest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// corsMaxAge is how long a browser may keep the answer to its preflight request,
// in seconds.
const corsMaxAge = "600"

// trustOrigins lets pages of these origins use the API, each as scheme://host or
// scheme://host:port.
func (h *Handler) trustOrigins(origins []string) error {
	for _, o := range origins {
		if err := h.origins.AddTrustedOrigin(o); err != nil {
			return fmt.Errorf("rest: trust the origin %q: %w", o, err)
		}
	}
	return nil
}

// allowOrigin tells a browser that the page which asks may read the answer, and
// answers its question whether it may ask at all. It reports whether the request
// is answered by that. Without configured origins, and for other pages, it does
// nothing, so that the browser keeps the answer from the page.
func (h *Handler) allowOrigin(w http.ResponseWriter, r *http.Request) bool {
	if len(h.opts.CORSOrigins) == 0 {
		return false
	}
	// An answer for one page must not be given to another out of a cache.
	w.Header().Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" || !slices.Contains(h.opts.CORSOrigins, origin) {
		return false
	}
	w.Header().Set("Access-Control-Allow-Origin", origin)
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		w.Header().Set("Access-Control-Expose-Headers", strings.Join(exposedHeaders(), ", "))
		return false
	}
	w.Header().Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, DELETE")
	w.Header().Set("Access-Control-Allow-Headers", strings.Join(requestHeaders(), ", "))
	w.Header().Set("Access-Control-Max-Age", corsMaxAge)
	w.WriteHeader(http.StatusNoContent)
	return true
}

// requestHeaders are those of requests that the API looks at.
func requestHeaders() []string {
	return []string{"Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "X-Request-ID", "X-Vector-Clock", contextHeader}
}

// exposedHeaders are those of answers that a page may read.
func exposedHeaders() []string {
	return []string{"ETag", "Retry-After", "X-Request-ID", contextHeader}
}
