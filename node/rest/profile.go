package rest

import (
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/pairdb/pairdb/node/access"
)

// maxProfileTime bounds the profiles that take their time.
const maxProfileTime = 5 * time.Minute

// profile serves the runtime's profiles to callers on this machine alone: they
// tell what the process does, and cost it time.
func (h *Handler) profile(w http.ResponseWriter, r *http.Request) {
	if !h.ownMachine(w, r, "profiles are") {
		return
	}
	if sec := r.FormValue("seconds"); sec != "" {
		n, err := strconv.ParseFloat(sec, 64)
		if err != nil || !(n > 0 && n <= maxProfileTime.Seconds()) {
			h.fail(w, r, invalidf("seconds=%q is not more than 0 and at most %g", sec, maxProfileTime.Seconds()))
			return
		}
	}
	// pprof moves the connection's write deadline by itself, through recorder.Unwrap.
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

// ownMachine refuses callers from other machines, and pages of the web; what says
// what it is that they are refused.
func (h *Handler) ownMachine(w http.ResponseWriter, r *http.Request, what string) bool {
	if !access.FromThisMachine(r.RemoteAddr, localAddr(r)) {
		h.fail(w, r, forbidden(what+" served to callers on this machine only"))
		return false
	}
	if !namesNoDomain(r.Host) {
		// A page whose domain was made to resolve to this machine is of the same
		// origin to the browser; only the name it asked for gives it away.
		h.fail(w, r, forbidden(what+" served under an IP address or localhost only, not under "+strconv.Quote(r.Host)))
		return false
	}
	return true
}

// localAddr is the address of this node that a request came to, "" if unknown.
func localAddr(r *http.Request) string {
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		return a.String()
	}
	return ""
}

// namesNoDomain says that a Host header, with a port or without, is an IP
// address or localhost.
func namesNoDomain(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	_, err := netip.ParseAddr(host)
	return err == nil || strings.EqualFold(host, "localhost")
}
