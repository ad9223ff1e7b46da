package check

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// record replays a history into a recorder.
func record(r *Recorder, h History) {
	for i := range h {
		id := r.Call(h[i].Call)
		if h[i].Answer != nil {
			r.Answer(id, *h[i].Answer)
		}
	}
}

func TestHistoryIsReadBack(t *testing.T) {
	want := parse(t, `
		1-2 w put k=x id:i part:7 seen:a1,b2 -> ok a2 {a2,b2} dup
		3-4 w delete k part:7 all -> not_applied
		5-6 r get k part:7 one -> ok x@a2 -@c9 {a2,b2,c9}
		7- r get j`, false)
	want[1].Answer.Code = "UNAVAILABLE"
	want[0].Node = "n1"
	want[0].Answer.Dot = causal.Dot{Actor: 1<<64 - 1, Counter: 1<<64 - 1} // no float can hold it
	var file bytes.Buffer
	r := NewRecorder(&file)
	record(r, want)
	if got, err := r.History(); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("recorded %v, %v", got, err)
	}
	whole := file.String()
	if got, err := Read(strings.NewReader(whole)); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("read %v, %v\nof\n%s", got, err, whole)
	}
	// A process that is killed leaves a prefix, with operations that have no
	// answer; a torn line is nothing.
	for n := range len(whole) {
		got, err := Read(strings.NewReader(whole[:n]))
		if err != nil {
			t.Fatalf("the first %d bytes: %v", n, err)
		}
		for i := range got {
			if !reflect.DeepEqual(got[i].Call, want[i].Call) || got[i].Answer != nil && !reflect.DeepEqual(got[i].Answer, want[i].Answer) {
				t.Fatalf("the first %d bytes give %v", n, got)
			}
		}
	}
}

func TestReadRefuses(t *testing.T) {
	call := `{"op":1,"call":{"at":1,"client":"c","tenant":"t","key":"k","kind":"get","level":2}}` + "\n"
	answer := `{"op":1,"answer":{"at":2,"outcome":"ok"}}` + "\n"
	if _, err := Read(strings.NewReader(call + answer)); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"no JSON":           "put k\n",
		"an empty line":     "\n",
		"an unknown field":  `{"op":1,"cal":{}}` + "\n",
		"neither":           `{"op":1}` + "\n",
		"two events":        strings.TrimSpace(call) + answer,
		"an answer first":   answer,
		"two answers":       call + answer + answer,
		"a number left out": strings.Replace(call, `"op":1`, `"op":2`, 1),
		"an unknown kind":   strings.Replace(call, "get", "got", 1) + answer,
		"a line too long":   call + strings.Repeat(" ", MaxLine) + answer,
	} {
		if h, err := Read(strings.NewReader(text)); err == nil {
			t.Errorf("%s: read as %v", name, h)
		}
	}
	if _, err := Read(&failing{}); !errors.Is(err, errFailing) {
		t.Errorf("got %v", err)
	}
}

type failing struct{}

var errFailing = errors.New("cable cut")

func (failing) Read([]byte) (int, error)  { return 0, errFailing }
func (failing) Write([]byte) (int, error) { return 0, errFailing }

func TestRecorderRefuses(t *testing.T) {
	get := Call{Client: "c", Tenant: "t", Key: "k", Kind: Get, Level: quorum.One}
	for name, use := range map[string]func(*Recorder){
		"two answers": func(r *Recorder) {
			id := r.Call(get)
			r.Answer(id, Answer{Outcome: OK})
			r.Answer(id, Answer{Outcome: OK})
		},
		"an answer to nothing": func(r *Recorder) { r.Answer(1, Answer{Outcome: OK}) },
		"no UTF-8":             func(r *Recorder) { c := get; c.Key = "\xff"; r.Call(c) },
		"a line too long":      func(r *Recorder) { c := get; c.Key = strings.Repeat("k", MaxLine); r.Call(c) },
		"no outcome":           func(r *Recorder) { r.Answer(r.Call(get), Answer{}) },
	} {
		var file bytes.Buffer
		r := NewRecorder(&file)
		use(r)
		if _, err := r.History(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	r := NewRecorder(failing{})
	r.Call(get)
	if _, err := r.History(); !errors.Is(err, errFailing) {
		t.Errorf("got %v", err)
	}
}

// TestValidate lists what the checkers rely on.
func TestValidate(t *testing.T) {
	good := func() History {
		return History{
			{ID: 1, Call: Call{At: 1, Client: "c", Tenant: "t", Key: "k", Kind: Put, Level: quorum.One, Value: "x"}, Answer: &Answer{At: 2, Outcome: OK, Dot: causal.Dot{Actor: 1, Counter: 1}}},
			{ID: 2, Call: Call{At: 1, Client: "c", Tenant: "t", Key: "k", Kind: Get, Level: quorum.One}, Answer: &Answer{At: 2, Outcome: OK}},
			{ID: 3, Call: Call{At: 1, Client: "c", Tenant: "t", Key: "k", Kind: Put, Level: quorum.One, Value: "y", IdempotencyKey: "i"}},
			{ID: 4, Call: Call{At: 1, Client: "c", Tenant: "t", Key: "k", Kind: Put, Level: quorum.One, Value: "y", IdempotencyKey: "i"}},
		}
	}
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(History){
		"no client":                  func(h History) { h[0].Client = "" },
		"no tenant":                  func(h History) { h[0].Tenant = "" },
		"no key":                     func(h History) { h[0].Key = "" },
		"unknown kind":               func(h History) { h[0].Kind = "patch" },
		"unknown level":              func(h History) { h[0].Level = 4 },
		"a put without a value":      func(h History) { h[0].Value = "" },
		"a get with a value":         func(h History) { h[1].Value = "x" },
		"a get with a context":       func(h History) { h[1].Seen = causal.NewContext(causal.Dot{Actor: 1, Counter: 1}) },
		"a get with a key":           func(h History) { h[1].IdempotencyKey = "i" },
		"before the start":           func(h History) { h[0].At = -1 },
		"answered before it was":     func(h History) { h[0].Answer.At = 0 },
		"unknown outcome":            func(h History) { h[0].Answer.Outcome = "maybe" },
		"acknowledged without a dot": func(h History) { h[0].Answer.Dot = causal.Dot{} },
		"failed with a dot":          func(h History) { h[0].Answer.Outcome = NotApplied },
		"a put with siblings":        func(h History) { h[0].Answer.Siblings = make([]Version, 1) },
		"a failed get with siblings": func(h History) {
			h[1].Answer.Outcome, h[1].Answer.Siblings = Indeterminate, make([]Version, 1)
		},
		"a delete that expires":        func(h History) { h[0].Kind, h[0].Value, h[0].Fades = Delete, "", &Fading{} },
		"for the last clock first":     func(h History) { h[0].Fades = &Fading{From: 2, To: 1} },
		"a retry that does not expire": func(h History) { h[2].Fades = &Fading{} },
		"two of one number":            func(h History) { h[1].ID = 1 },
		"two policies":                 func(h History) { h[1].LWW = true },
		"two partitions":               func(h History) { h[1].Partition = "1" },
		"one value twice":              func(h History) { h[2].Value = "x" },
		"a retry with another key":     func(h History) { h[3].IdempotencyKey = "j" },
		"a retry that has seen more": func(h History) {
			h[3].Seen = causal.NewContext(causal.Dot{Actor: 1, Counter: 1})
		},
	} {
		h := good()
		spoil(h)
		if err := h.Validate(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRecorderIsSafeForConcurrentUse(t *testing.T) {
	var file bytes.Buffer
	r := NewRecorder(&file)
	var wg sync.WaitGroup
	const clients, each = 8, 50
	for c := range clients {
		wg.Go(func() {
			for i := range each {
				call := Call{At: time.Duration(i), Client: fmt.Sprint(c), Tenant: "t", Key: "k", Kind: Put, Level: quorum.One, Value: fmt.Sprint(c, i)}
				r.Answer(r.Call(call), Answer{At: time.Duration(i), Outcome: Indeterminate})
			}
		})
	}
	wg.Wait()
	want, err := r.History()
	if err != nil || len(want) != clients*each {
		t.Fatalf("%d operations, %v", len(want), err)
	}
	if got, err := Read(&file); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("read back %d operations, %v", len(got), err)
	}
}
