package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/pace"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/node/events"
	"github.com/pairdb/pairdb/node/replica"
)

const (
	// scrubFile has the last scrub, so that a restart does not put off the next one.
	scrubFile = "scrub.json"
	// maxScrubFindings bounds the damage of one scrub that is kept.
	maxScrubFindings = 100
	// scrubStep is for how long a scrub that is ahead of its rate sleeps at the most
	// before it looks again.
	scrubStep = 100 * time.Millisecond
	// scrubYield is how long a scrub stops before each read while requests are
	// refused because there are too many.
	scrubYield = 250 * time.Millisecond
)

// scrubState is the scrub under way, or the last one.
type scrubState struct {
	Running bool      `json:"-"`
	Began   time.Time `json:"began"`
	Ended   time.Time `json:"ended"`
	Done    int64     `json:"bytes_done"`
	Total   int64     `json:"bytes_total"`
	Tables  int       `json:"tables"`
	Damaged int       `json:"damaged_tables"`
	// Error says why it did not come to its end.
	Error    string `json:"error,omitempty"`
	findings []error
}

// scrubber reads all tables now and then, no faster than it may.
type scrubber struct {
	n *Node
	// asked has room for one wish to begin now.
	asked chan struct{}

	mu struct {
		sync.Mutex
		last scrubState
		// runs, bytes, tables and damaged are sums since the start of the node.
		runs, bytes, tables, damaged int64
	}
}

func newScrubber(n *Node) *scrubber {
	s := &scrubber{n: n, asked: make(chan struct{}, 1)}
	last, err := readScrub(s.path())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.log.Warn("it is not known when the tables were last looked through", "file", s.path(), "err", err)
	}
	s.mu.last = last
	return s
}

func (s *scrubber) path() string { return filepath.Join(s.n.cfg.Node.DataDir, scrubFile) }

// readScrub returns the last scrub of an earlier life, the zero value if there is
// none to be read.
func readScrub(path string) (scrubState, error) {
	f, err := os.Open(path)
	if err != nil {
		return scrubState{}, err
	}
	defer f.Close() // only read
	b := make([]byte, 4<<10)
	n, err := f.ReadAt(b, 0)
	switch {
	case err == nil:
		return scrubState{}, errors.New("it is too long")
	case !errors.Is(err, io.EOF):
		return scrubState{}, err
	}
	var last scrubState
	if err := json.Unmarshal(b[:n], &last); err != nil {
		return scrubState{}, err
	}
	return last, nil
}

// begin has a scrub begin unless one is under way. It does not wait.
func (s *scrubber) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.last.Running {
		return
	}
	select {
	case s.asked <- struct{}{}:
	default: // one was asked for while one began by itself, and begins now
	}
	// Whoever asks how it goes is not told of the one before.
	s.mu.last = scrubState{Running: true, Began: s.n.clock.Now()}
}

func (s *scrubber) state() scrubState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.last
}

// nextScrub returns how long to wait for the next scrub, given when the last one
// ended, if any, and a number in [0, 1) that is another at each node.
func nextScrub(now, last time.Time, interval time.Duration, chance float64) time.Duration {
	if last.IsZero() || last.After(now) {
		// A new node has little that could be old. Some of the interval goes by, so
		// that nodes that were founded together part.
		return time.Duration(float64(interval) * (0.1 + 0.9*chance))
	}
	return max(0, last.Add(time.Duration(float64(interval)*(0.9+0.2*chance))).Sub(now))
}

// run scrubs whenever it is time or somebody asks, until ctx ends.
func (s *scrubber) run(ctx context.Context) {
	for {
		due := time.NewTimer(math.MaxInt64)
		if every := s.n.cfg.Scrub.Interval; every > 0 {
			due.Reset(nextScrub(s.n.clock.Now(), s.state().Ended, every, rand.Float64()))
		}
		select {
		case <-ctx.Done():
			due.Stop()
			return
		case <-due.C:
		case <-s.asked:
		}
		due.Stop()
		s.scrub(ctx)
		if ctx.Err() != nil {
			return
		}
	}
}

// scrub reads all tables once.
func (s *scrubber) scrub(ctx context.Context) {
	n := s.n
	s.mu.Lock()
	s.mu.last = scrubState{Running: true, Began: n.clock.Now()}
	s.mu.runs++
	s.mu.Unlock()
	p := &scrubPace{n: n, ctx: ctx, diskPace: diskPace{pacer: pace.Pacer{Most: int64(n.cfg.Scrub.Rate)}}}
	r, err := n.db.VerifyWith(ctx, engine.VerifyOptions{
		Pace: func(bytes int) error {
			err := p.wait(bytes)
			s.mu.Lock()
			s.mu.bytes += int64(bytes)
			s.mu.Unlock()
			return err
		},
		Progress: func(p engine.Progress) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.mu.last.Done, s.mu.last.Total = p.Done, p.Total
			s.mu.last.Tables++
			s.mu.tables++
		},
		Damaged: func(d engine.Damage) {
			s.mu.Lock()
			s.mu.last.Damaged++
			s.mu.damaged++
			s.mu.Unlock()
			n.damagedTable(d)
		},
	})
	if r.ManifestDamaged {
		s.mendManifest()
	}
	s.mu.Lock()
	last := &s.mu.last
	last.Running, last.Ended = false, n.clock.Now()
	last.findings = r.Damage[:min(len(r.Damage), maxScrubFindings)]
	if err != nil {
		last.Error = err.Error()
	}
	ended := *last
	s.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			n.happened.Add(events.Scrub, events.Warning, "the tables could not be looked through for damage to the end", "err", err.Error())
		}
		return // the next life begins anew
	}
	s.tell(&ended)
	b, err := json.Marshal(&ended)
	if err == nil {
		err = replica.WriteFile(vfs.OS(), s.path(), b)
	}
	if err != nil {
		n.log.Warn("cannot note that the tables were looked through; after a restart it is done again sooner", "file", s.path(), "err", err)
	}
}

// mendManifest has the engine write its manifest anew. The next start would need it.
func (s *scrubber) mendManifest() {
	if err := s.n.db.RewriteManifest(); err != nil {
		s.n.happened.Add(events.Scrub, events.Error, "the engine's manifest is damaged on the disk and cannot be written anew; the next start would have to fetch all data again", "err", err.Error())
		return
	}
	s.n.happened.Add(events.Scrub, events.Error, "the engine's manifest was damaged on the disk and has been written anew from memory")
}

// tell notes what a scrub has found.
func (s *scrubber) tell(r *scrubState) {
	details := []string{
		"tables", strconv.Itoa(r.Tables), "bytes", strconv.FormatInt(r.Done, 10),
		"took", r.Ended.Sub(r.Began).Round(time.Millisecond).String(),
	}
	if len(r.findings) == 0 {
		s.n.happened.Add(events.Scrub, events.Info, "all tables were looked through for damage: they are sound", details...)
		return
	}
	details = append(details, "damaged_tables", strconv.Itoa(r.Damaged), "first", r.findings[0].Error())
	s.n.happened.Add(events.Scrub, events.Error, fmt.Sprintf("all tables were looked through for damage: %d places are damaged", len(r.findings)), details...)
}

// scrubPace says when a scrub may read on.
type scrubPace struct {
	n   *Node
	ctx context.Context
	diskPace
}

// wait returns when so many more bytes may be read, or why no more are.
func (p *scrubPace) wait(bytes int) error {
	if p.n.refuse(false) != nil || p.n.refuse(true) != nil {
		if err := p.sleep(scrubYield); err != nil {
			return err
		}
	}
	for {
		now := time.Now()
		p.look(now, p.n.db.Metrics())
		d := p.pacer.Wait(now)
		if d <= 0 {
			p.pacer.Take(now, int64(bytes))
			return p.ctx.Err()
		}
		if err := p.sleep(min(d, scrubStep)); err != nil {
			return err
		}
	}
}

func (p *scrubPace) sleep(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
}

// scrubSeries are about looking for damage.
func (n *Node) scrubSeries() ([]series, func(emit)) {
	running := gauge("pairdb_scrub_running", "1 while the tables are looked through for damage, else 0.")
	progress := gauge("pairdb_scrub_progress_ratio", "How much of the tables the scrub under way, or the last one, has read, 0 to 1.")
	ended := gauge("pairdb_scrub_last_end_timestamp_seconds", "When the last scrub ended, in seconds since 1970; 0: there was none yet.")
	runs := counter("pairdb_scrub_runs_total", "Scrubs begun.")
	bytes := counter("pairdb_scrub_read_bytes_total", "Bytes of tables read by scrubs.")
	tables := counter("pairdb_scrub_tables_total", "Tables read by scrubs.")
	damaged := counter("pairdb_scrub_damaged_tables_total", "Damaged tables found by scrubs.")
	return []series{running, progress, ended, runs, bytes, tables, damaged}, func(e emit) {
		s := n.scrubs
		s.mu.Lock()
		defer s.mu.Unlock()
		last := &s.mu.last
		e(running, boolValue(last.Running))
		share := 0.0
		if last.Total > 0 {
			share = float64(last.Done) / float64(last.Total)
		}
		e(progress, share)
		end := 0.0
		if !last.Ended.IsZero() {
			end = float64(last.Ended.UnixMilli()) / 1000
		}
		e(ended, end)
		e(runs, float64(s.mu.runs))
		e(bytes, float64(s.mu.bytes))
		e(tables, float64(s.mu.tables))
		e(damaged, float64(s.mu.damaged))
	}
}
