package coord_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/quorum"
)

// scan makes pages of a scan.
func (s *script) scan(t *testing.T, d *datadriven.TestData) {
	opt := map[string]string{"tenant": simTenant, "level": "quorum"}
	flags := map[string]bool{}
	var node string
	for i, a := range d.CmdArgs {
		switch {
		case i == 0:
			node = a.Key
		case len(a.Vals) == 0:
			flags[a.Key] = true
		default:
			opt[a.Key] = expand(a.Vals[0])
		}
	}
	n := s.w.node(node)
	level, err := quorum.ParseLevel(opt["level"])
	if err != nil {
		t.Fatal(err)
	}
	r := coord.ScanRequest{
		Tenant: opt["tenant"], Prefix: []byte(opt["prefix"]), Start: []byte(opt["start"]), End: []byte(opt["end"]),
		KeysOnly: flags["keys"], Level: level, PageToken: s.token(opt["page"]),
	}
	if v := opt["max"]; v != "" {
		if r.MaxKeys, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	if v := opt["deadline"]; v != "" {
		r.Deadline = n.Now().Add(duration(t, v))
	}
	for {
		answered := false
		began := s.w.now
		var got coord.ScanResponse
		n.coord.StartScan(r, func(p coord.ScanResponse, err error) {
			answered, got = true, p
			if err != nil {
				s.printf("%v %v", s.w.now-began, err)
				return
			}
			s.save(opt["save"], p.PageToken)
			s.printf("%v %s", s.w.now-began, pageString(&p))
		})
		for !answered {
			if !s.w.step(s.w.now + time.Minute) {
				s.printf("no answer")
				return
			}
		}
		if r.PageToken = got.PageToken; !flags["all"] || len(r.PageToken) == 0 {
			return
		}
	}
}

func pageString(p *coord.ScanResponse) string {
	var parts []string
	for i := range p.Items {
		it := &p.Items[i]
		var values []string
		for k := range it.Siblings {
			values = append(values, fmt.Sprintf("%q", it.Siblings[k].Value))
		}
		text := string(it.Key) + "=" + strings.Join(values, "|")
		if len(it.Token) == 0 {
			text += " without a token"
		}
		parts = append(parts, text)
	}
	text := strings.Join(parts, " ")
	if text == "" {
		text = "nothing"
	}
	if len(p.PageToken) > 0 {
		text += " and more"
	}
	return text
}
