package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

// TestScrubsThatWereNotBegun: a node that did not answer when scrubs were begun, and one that
// was started again before its own had ended, have nothing to say of one, and are not sound.
func TestScrubsThatWereNotBegun(t *testing.T) {
	at := func(second int64) *timestamppb.Timestamp { return timestamppb.New(time.Unix(second, 0)) }
	name := func(s string) *pairdbv1.NodeName { return &pairdbv1.NodeName{NodeId: s, Name: s} }
	old := func(s string) *pairdbv1.NodeScrub {
		return &pairdbv1.NodeScrub{Node: name(s), Began: at(10), Ended: at(20)} // the last one, of the day before
	}
	running := &pairdbv1.NodeScrub{Node: name("n1"), Running: true, Began: at(100)}
	for what, c := range map[string]struct {
		first, second *pairdbv1.ScrubResponse
		exit          int
		says          string
	}{
		"all is well": {
			&pairdbv1.ScrubResponse{Nodes: []*pairdbv1.NodeScrub{running}},
			&pairdbv1.ScrubResponse{Nodes: []*pairdbv1.NodeScrub{{Node: name("n1"), Began: at(101), Ended: at(110)}}},
			errcode.ExitOK, "",
		},
		"one did not answer": {
			&pairdbv1.ScrubResponse{Nodes: []*pairdbv1.NodeScrub{running}, Unreachable: []*pairdbv1.UnreachableNode{{NodeId: "n2", Name: "n2", Reason: "too late"}}},
			&pairdbv1.ScrubResponse{Nodes: []*pairdbv1.NodeScrub{{Node: name("n1"), Began: at(101), Ended: at(110)}, old("n2")}},
			errcode.ExitConnect, "1 nodes did not answer",
		},
		"started again": {
			&pairdbv1.ScrubResponse{Nodes: []*pairdbv1.NodeScrub{running}},
			&pairdbv1.ScrubResponse{Nodes: []*pairdbv1.NodeScrub{old("n1")}},
			errcode.ExitFailed, "started again",
		},
		"started again for the first time": {
			&pairdbv1.ScrubResponse{Nodes: []*pairdbv1.NodeScrub{running}},
			&pairdbv1.ScrubResponse{Nodes: []*pairdbv1.NodeScrub{{Node: name("n1")}}},
			errcode.ExitFailed, "started again",
		},
	} {
		var s scrubs
		third := proto.CloneOf(c.second) // others may be waited for still
		if !s.heard(c.first) || s.heard(c.second) || s.heard(third) {
			t.Errorf("%s: it is waited for after the second answer, or not after the first", what)
		}
		err := s.verdict()
		if c.exit == errcode.ExitOK {
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
			continue
		}
		f, ok := err.(*failure)
		if !ok || f.exit != c.exit || !strings.Contains(f.what+strings.Join(f.why, " "), c.says) {
			t.Errorf("%s: %+v", what, err)
		}
	}
}
