package check

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"unicode/utf8"
)

// Limits of a recorded history.
const (
	// MaxOps bounds the operations of a history.
	MaxOps = 1 << 22
	// MaxLine bounds one event of a recorded history, in bytes.
	MaxLine = 1 << 20
)

// event is one line of a recorded history: a call, or the answer to one.
type event struct {
	Op     int     `json:"op"`
	Call   *Call   `json:"call,omitempty"`
	Answer *Answer `json:"answer,omitempty"`
}

// Recorder makes a history of what clients tell it, and writes each event when
// it hears of it, so that a run that hangs or dies can still be checked. It is
// safe for concurrent use. Everything it hears stays in memory.
type Recorder struct {
	mu  sync.Mutex
	w   io.Writer
	ops History
	err error
}

// NewRecorder returns a recorder that writes to w, or only remembers if w is
// nil. Each event is one Write.
func NewRecorder(w io.Writer) *Recorder { return &Recorder{w: w} }

// Call notes that an operation was sent and returns its number. It must be
// called before the operation is sent, with the time from before that.
func (r *Recorder) Call(c Call) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ops) == MaxOps {
		r.fail(fmt.Errorf("record call: a history has at most %d operations", MaxOps))
		return 0
	}
	for _, s := range []string{c.Client, c.Node, c.Tenant, c.Key, c.Partition, c.Value, c.IdempotencyKey} {
		if !utf8.ValidString(s) {
			r.fail(fmt.Errorf("record call: %q is not UTF-8; give it a name that is", s))
		}
	}
	id := len(r.ops) + 1
	r.ops = append(r.ops, Op{ID: id, Call: c})
	r.write(event{Op: id, Call: &c})
	return id
}

// Answer notes the answer to an operation. A second answer to one is an error
// of the recording.
func (r *Recorder) Answer(id int, a Answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id < 1 || id > len(r.ops) {
		r.fail(fmt.Errorf("record answer: there is no operation %d", id))
		return
	}
	if r.ops[id-1].Answer != nil {
		r.fail(fmt.Errorf("record answer: operation %s is answered again", &r.ops[id-1]))
		return
	}
	r.ops[id-1].Answer = &a
	r.write(event{Op: id, Answer: &a})
}

// History returns what was recorded so far, and the first thing that went
// wrong with recording it: an answer to no call, two answers, a write that
// failed, or what Validate says.
func (r *Recorder) History() (History, error) {
	r.mu.Lock()
	h, err := slices.Clone(r.ops), r.err
	r.mu.Unlock()
	if err == nil {
		err = h.Validate()
	}
	return h, err
}

// write appends one line. The lock is held, so that lines stay whole and an
// answer never comes before its call.
func (r *Recorder) write(e event) {
	if r.w == nil {
		return
	}
	line, err := json.Marshal(e)
	if err == nil && len(line) >= MaxLine {
		err = fmt.Errorf("an event of %d bytes; at most %d are read back", len(line), MaxLine)
	}
	if err == nil {
		_, err = r.w.Write(append(line, '\n'))
	}
	if err != nil {
		r.fail(fmt.Errorf("record operation %d: %w", e.Op, err))
	}
}

func (r *Recorder) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// Read reads back what a Recorder wrote. A last line without its end is what a
// process leaves that was killed while it wrote, and is dropped; everything
// else that is not as it was written is an error.
func Read(from io.Reader) (History, error) {
	r := Recorder{}
	lines := bufio.NewReaderSize(from, MaxLine)
	for n := 1; ; n++ {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return r.History()
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, fmt.Errorf("read history: line %d has more than %d bytes", n, MaxLine)
		case err != nil:
			return nil, fmt.Errorf("read history: %w", err)
		}
		if err := r.replay(line); err != nil {
			return nil, fmt.Errorf("read history: line %d: %w", n, err)
		}
	}
}

// replay takes in one line.
func (r *Recorder) replay(line []byte) error {
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	var e event
	if err := dec.Decode(&e); err != nil {
		return err
	}
	if dec.More() {
		return errors.New("more than one event")
	}
	switch {
	case e.Call != nil && e.Answer == nil:
		if id := r.Call(*e.Call); r.err == nil && id != e.Op {
			return fmt.Errorf("call %d where %d is due", e.Op, id)
		}
	case e.Answer != nil && e.Call == nil:
		r.Answer(e.Op, *e.Answer)
	default:
		return errors.New("an event is either a call or an answer")
	}
	return r.err
}
