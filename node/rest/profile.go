package rest

import (
	"net"
	"net/http"
	"net/http/pprof"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
)

// profile serves the runtime's profiles to callers on this machine alone: they
// tell what the process does, and cost it time.
func (h *Handler) profile(w http.ResponseWriter, r *http.Request) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		h.fail(w, r, &coord.Error{
			Code: errcode.Forbidden, Outcome: errcode.NotApplied,
			Message: "profiles are served to callers on this machine only",
		})
		return
	}
	switch r.PathValue("name") {
	case "":
		pprof.Index(w, r)
	case "profile":
		pprof.Profile(w, r)
	case "trace":
		pprof.Trace(w, r)
	default:
		pprof.Handler(r.PathValue("name")).ServeHTTP(w, r)
	}
}
