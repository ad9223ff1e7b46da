// Package events keeps the last things that happened to a node which an operator
// may want to know of: who came and went, what the disk did, what was switched on
// and off to protect the node. It is a fixed ring in memory. Adding to it never
// waits, and a flood of one kind neither fills it nor reaches the log.
package events

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Kind says what an event is about. It is one of the constants: each kind is
// bounded by itself and has a series of its own.
type Kind string

// The kinds of events.
const (
	// Lifecycle: this node starts, serves, stops.
	Lifecycle Kind = "lifecycle"
	// Member: another node came, went, died, withdrew.
	Member Kind = "member"
	// Disk: how full the disk is, whether it answers.
	Disk Kind = "disk"
	// Engine: a background job failed, writing ended.
	Engine Kind = "engine"
	// Memory: what memory makes the node refuse.
	Memory Kind = "memory"
	// Breaker: a peer is left alone, or asked again.
	Breaker Kind = "breaker"
	// Shedding: requests are refused because there are too many, or no longer.
	Shedding Kind = "shedding"
	// Scrub: data on the disk is damaged, or was looked through for damage.
	Scrub Kind = "scrub"
	// Link: a connection to a peer broke or is there again.
	Link Kind = "link"
	// Repair: what is done so that all owners have the same data.
	Repair Kind = "repair"
)

// Kinds lists all kinds, in no order that means anything.
func Kinds() []Kind {
	return []Kind{Lifecycle, Member, Disk, Engine, Memory, Breaker, Shedding, Scrub, Link, Repair}
}

// Severity says how urgent an event is.
type Severity uint8

// The severities, ascending.
const (
	Info Severity = iota
	Warning
	Error
)

// String gives the severity in lower case.
func (s Severity) String() string {
	switch s {
	case Info:
		return "info"
	case Warning:
		return "warning"
	default:
		return "error"
	}
}

func (s Severity) level() slog.Level {
	switch s {
	case Info:
		return slog.LevelInfo
	case Warning:
		return slog.LevelWarn
	default:
		return slog.LevelError
	}
}

// Bounds of one event. What is longer is cut.
const (
	maxText    = 512 // bytes
	maxDetail  = 256 // bytes, of a key or a value
	maxDetails = 8
)

const (
	// Of each kind burst events may come at once, and then one every refill.
	// Those beyond are counted and left out.
	burst  = 20
	refill = time.Second
	// An event like the one before of its kind, within repeatWindow of it, is the
	// same event, once more.
	repeatWindow = time.Minute
)

// Detail is a key and its value.
type Detail struct{ Key, Value string }

// Event is one thing that happened. Its Details are shared: do not change them.
type Event struct {
	// Number counts the events of this start of the node, from 1.
	Number uint64
	// Time is when it happened, and Last when it did for the last time.
	Time, Last time.Time
	Kind       Kind
	Severity   Severity
	// Text is one sentence in plain words, without the details.
	Text    string
	Details []Detail
	// Count is how often it happened in a row.
	Count uint64
	// LeftOut is how many events of the kind were left out just before this one,
	// because there were too many.
	LeftOut uint64
}

// Options configure a Log. Logger is required.
type Options struct {
	// Logger gets each event once.
	Logger *slog.Logger
	// Size is how many events are kept. Default 1024.
	Size int
	// Now is the clock; default time.Now.
	Now func() time.Time
	// Observe, if set, is called for each event that was added, those that repeat
	// one or are left out included. It must not block.
	Observe func(Kind)
}

// Log holds the last events. It is safe for concurrent use and has nothing to close.
type Log struct {
	opts Options

	mu struct {
		sync.Mutex
		// ring holds the event number n at n % len(ring).
		ring []Event
		next uint64 // number of the next event
		kind map[Kind]*bucket
	}
}

// bucket bounds the events of one kind.
type bucket struct {
	tokens  float64
	at      time.Time
	leftOut uint64
	newest  uint64 // number of the newest event of the kind, 0 if there is none
}

// New returns an empty log.
func New(opts Options) *Log {
	if opts.Size <= 0 {
		opts.Size = 1024
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Observe == nil {
		opts.Observe = func(Kind) {}
	}
	l := &Log{opts: opts}
	l.mu.ring, l.mu.next, l.mu.kind = make([]Event, opts.Size), 1, make(map[Kind]*bucket)
	for _, k := range Kinds() {
		l.mu.kind[k] = &bucket{tokens: burst}
	}
	return l
}

// Add notes an event and logs it, details being keys and values in turn. An event
// like the last one of its kind is counted there and not logged; one beyond what a
// kind may have at a time is counted and left out.
func (l *Log) Add(k Kind, s Severity, text string, details ...string) {
	if e, ok := l.add(k, s, text, details); ok {
		l.log(&e)
	}
}

// AddLogged is Add for what whoever found it has logged already.
func (l *Log) AddLogged(k Kind, s Severity, text string, details ...string) {
	l.add(k, s, text, details)
}

func (l *Log) log(e *Event) {
	attrs := make([]slog.Attr, 0, len(e.Details)+2)
	attrs = append(attrs, slog.String("event", string(e.Kind)))
	for _, d := range e.Details {
		attrs = append(attrs, slog.String(d.Key, d.Value))
	}
	if e.LeftOut > 0 {
		attrs = append(attrs, slog.Uint64("left_out", e.LeftOut))
	}
	l.opts.Logger.LogAttrs(context.Background(), e.Severity.level(), e.Text, attrs...)
}

// add returns the event if it is a new one.
func (l *Log) add(k Kind, s Severity, text string, details []string) (Event, bool) {
	e := Event{Kind: k, Severity: s, Text: clip(text, maxText), Count: 1}
	for i := 0; i+1 < len(details) && len(e.Details) < maxDetails; i += 2 {
		e.Details = append(e.Details, Detail{clip(details[i], maxDetail), clip(details[i+1], maxDetail)})
	}
	l.opts.Observe(k)
	now := l.opts.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.mu.kind[k]
	if b == nil { // a kind that is none of the constants
		b = &bucket{tokens: burst}
		l.mu.kind[k] = b
	}
	if last := l.atLocked(b.newest); last != nil && same(last, &e) && now.Sub(last.Last) < repeatWindow {
		last.Count++
		last.Last = now
		return Event{}, false
	}
	if !b.at.IsZero() {
		b.tokens = min(burst, b.tokens+now.Sub(b.at).Seconds()/refill.Seconds())
	}
	b.at = now
	if b.tokens < 1 {
		b.leftOut++
		return Event{}, false
	}
	b.tokens--
	e.Time, e.Last, e.LeftOut = now, now, b.leftOut
	e.Number, b.newest, b.leftOut = l.mu.next, l.mu.next, 0
	l.mu.ring[e.Number%uint64(len(l.mu.ring))] = e
	l.mu.next++
	return e, true
}

// atLocked is the event of a number, nil if it is not there any more.
func (l *Log) atLocked(number uint64) *Event {
	if number == 0 {
		return nil
	}
	if e := &l.mu.ring[number%uint64(len(l.mu.ring))]; e.Number == number {
		return e
	}
	return nil
}

func same(a, b *Event) bool {
	return a.Severity == b.Severity && a.Text == b.Text && slices.Equal(a.Details, b.Details)
}

// Newest returns up to limit of the newest events that happened since, the newest
// last, and the number of the newest event there is, 0 if there is none.
func (l *Log) Newest(since time.Time, limit int) (events []Event, newest uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	newest = l.mu.next - 1
	for n := newest; n > 0 && len(events) < limit; n-- {
		e := l.atLocked(n)
		if e == nil {
			break
		}
		if !e.Last.Before(since) {
			events = append(events, *e)
		}
	}
	slices.Reverse(events)
	return events, newest
}

// After returns up to limit events behind the number, the newest last, and the
// number to go on behind. What has left the ring meanwhile is passed over.
func (l *Log) After(number uint64, limit int) (events []Event, next uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next = min(number, l.mu.next-1)
	if size := uint64(len(l.mu.ring)); l.mu.next > size+next {
		next = l.mu.next - size - 1
	}
	for next+1 < l.mu.next && len(events) < limit {
		next++
		if e := l.atLocked(next); e != nil {
			events = append(events, *e)
		}
	}
	return events, next
}

// clip makes a string short and valid UTF-8, which messages must be.
func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n-3] + "..."
	}
	return strings.ToValidUTF8(s, "?")
}
