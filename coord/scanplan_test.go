package coord

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

func TestAhead(t *testing.T) {
	whole := room{1000, MaxPageBytes, pageBudget}
	for name, c := range map[string]struct {
		visited    int
		used, left room
		want       int
	}{
		"first":             {0, room{}, whole, 1},
		"nothing yet":       {1, room{}, whole, 8},
		"nothing at all":    {40, room{}, whole, maxAhead},
		"a few":             {8, room{80, 800, 80}, room{920, MaxPageBytes, pageBudget}, maxAhead},
		"enough":            {1, room{990, 1000, 990}, room{10, MaxPageBytes, pageBudget}, 1},
		"by keys":           {2, room{200, 1, 200}, room{800, MaxPageBytes, pageBudget}, 8},
		"by bytes":          {8, room{8, 2 << 20, 8}, room{992, 2 << 20, pageBudget}, 8},
		"by entries":        {8, room{0, 0, 40_000}, room{1000, MaxPageBytes, 10_000}, 2},
		"no room is no use": {8, room{1000, 1, 1}, room{0, 0, 0}, 1},
	} {
		if got := ahead(c.visited, c.used, c.left); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestScanBounds(t *testing.T) {
	for name, c := range map[string]struct {
		prefix, start, end string
		low, high, group   string
		empty              bool
	}{
		"all":                   {},
		"prefix":                {prefix: "ab", low: "ab", high: "ac"},
		"prefix of 0xff":        {prefix: "a\xff", low: "a\xff", high: "b"},
		"prefix without end":    {prefix: "\xff\xff", low: "\xff\xff"},
		"range":                 {start: "a", end: "b", low: "a", high: "b"},
		"both":                  {prefix: "k", start: "k5", end: "z", low: "k5", high: "l"},
		"both, other way round": {prefix: "k", start: "a", end: "k3", low: "k", high: "k3"},
		"apart":                 {prefix: "k", start: "l", low: "l", high: "l", empty: true},
		"upside down":           {start: "b", end: "a", low: "b", high: "a", empty: true},
		"group":                 {prefix: "{u}", low: "{u}", high: "{u~", group: "{u}"},
		"group inside":          {prefix: "a{u}b", low: "a{u}b", high: "a{u}c", group: "a{u}b"},
		"open group":            {prefix: "{u", low: "{u", high: "{v"},
		"no group":              {prefix: "{}", low: "{}", high: "{~"},
		"group of a range":      {start: "{u}a", end: "{u}c", low: "{u}a", high: "{u}c", group: "{u}"},
		"two groups":            {start: "{u}a", end: "{v}c", low: "{u}a", high: "{v}c"},
		"group with a range":    {prefix: "{u}", start: "{u}k", low: "{u}k", high: "{u~", group: "{u}"},
	} {
		w := newScanWant(&ScanRequest{Prefix: []byte(c.prefix), Start: []byte(c.start), End: []byte(c.end)})
		if string(w.low) != c.low || string(w.high) != c.high || string(w.group) != c.group || w.empty() != c.empty {
			t.Errorf("%s: [%q, %q) group %q empty %v", name, w.low, w.high, w.group, w.empty())
		}
	}
}

// TestScanBoundsAreRight: a random key meets the bounds exactly if it meets the
// request, and a group is that of every key that does.
func TestScanBoundsAreRight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringOfN(rapid.SampledFrom([]rune("{}ab\u00ff")), 0, 5, -1)
		r := ScanRequest{Prefix: []byte(word.Draw(t, "prefix")), Start: []byte(word.Draw(t, "start")), End: []byte(word.Draw(t, "end"))}
		key := []byte(word.Draw(t, "key"))
		if len(key) == 0 {
			return
		}
		want := bytes.HasPrefix(key, r.Prefix) && bytes.Compare(key, r.Start) >= 0 && (len(r.End) == 0 || bytes.Compare(key, r.End) < 0)
		w := newScanWant(&r)
		got := (&ScanRange{Start: w.low, End: w.high}).Wants(key)
		if got != want || got && w.empty() {
			t.Fatalf("%q in [%q, %q): %v, want %v", key, w.low, w.high, got, want)
		}
		if want && w.group != nil && ring.KeyToken(7, key) != ring.KeyToken(7, w.group) {
			t.Fatalf("%q is not in the group of %q", key, w.group)
		}
	})
}

// objects of one write each, by value.
func scanObject(n uint64) *causal.Object {
	o := causal.Mint(&causal.Object{}, nil, causal.Sibling{Dot: causal.Dot{Actor: 1, Counter: n}, Value: []byte("v")})
	return &o
}

// pieceOf makes a piece of "token:version" words, up to reach if that is not 0.
func pieceOf(text string, reach ring.Token, digests bool) ownerPiece {
	var p ownerPiece
	for _, w := range strings.Fields(text) {
		var token ring.Token
		var n uint64
		if _, err := fmt.Sscanf(w, "%d:%d", (*uint64)(&token), &n); err != nil {
			panic(err)
		}
		s := scanned{at: Position{Token: token, Key: []byte("k")}, object: scanObject(n), size: int(n)}
		s.digest = s.object.Digest()
		if digests {
			s.object = nil
		}
		p.entries = append(p.entries, s)
	}
	if reach != 0 {
		p.reach = &Position{Token: reach}
	}
	return p
}

func TestAgree(t *testing.T) {
	for name, c := range map[string]struct {
		pieces []ownerPiece
		want   string // "token" where all agree, "token?" where they do not
		reach  ring.Token
	}{
		"nothing":             {[]ownerPiece{{}, {}}, "", 0},
		"one":                 {[]ownerPiece{pieceOf("1:1 2:5", 3, false)}, "1 2", 3},
		"equal":               {[]ownerPiece{pieceOf("1:1 2:2", 0, false), pieceOf("1:1 2:2", 0, true)}, "1 2", 0},
		"one behind":          {[]ownerPiece{pieceOf("1:1 2:2", 0, false), pieceOf("1:1 2:1", 0, true)}, "1 2?", 0},
		"the first lacks one": {[]ownerPiece{pieceOf("2:2", 0, false), pieceOf("1:1 2:2", 0, true)}, "1? 2", 0},
		"the other lacks one": {[]ownerPiece{pieceOf("1:1 2:2", 0, false), pieceOf("2:2", 0, true)}, "1? 2", 0},
		"the last lacks one":  {[]ownerPiece{pieceOf("1:1 2:2", 0, false), pieceOf("1:1", 0, true)}, "1 2?", 0},
		"one ends early":      {[]ownerPiece{pieceOf("1:1 5:2", 9, false), pieceOf("1:1 2:2 3:3", 4, true)}, "1 2? 3?", 4},
		"the first ends":      {[]ownerPiece{pieceOf("1:1", 2, false), pieceOf("1:1 2:2 3:3", 0, true)}, "1", 2},
		"three":               {[]ownerPiece{pieceOf("1:1 2:2", 0, false), pieceOf("1:1", 2, true), pieceOf("1:1 3:3", 0, false)}, "1", 2},
	} {
		keys, reach := agree(c.pieces)
		var got []string
		for _, k := range keys {
			text := fmt.Sprint(uint64(k.at.Token))
			if k.object == nil {
				text += "?"
			}
			got = append(got, text)
		}
		if s := strings.Join(got, " "); s != c.want || (reach == nil) != (c.reach == 0) || reach != nil && reach.Token != c.reach {
			t.Errorf("%s: %q up to %v, want %q", name, s, reach, c.want)
		}
	}
}

func TestGather(t *testing.T) {
	item := func(token ring.Token, size int) slot {
		return slot{at: Position{Token: token}, item: &ScanItem{}, size: size}
	}
	read := func(token ring.Token, size int) slot { return slot{at: Position{Token: token}, size: size} }
	end := func(token ring.Token) *Position { return &Position{Token: token} }
	var many []slot
	for i := range maxReads + 5 {
		many = append(many, read(ring.Token(i), 1))
	}
	failed := &Error{}
	for name, c := range map[string]struct {
		parts         []partitionPart
		left          room
		slots, reads  int
		at            *Position
		visited, scan int
		failed        bool
	}{
		"all of it": {
			[]partitionPart{{slots: []slot{item(1, 1), read(2, 1)}, scanned: 5}, {slots: []slot{item(9, 1)}, scanned: 6}},
			room{10, 10, 0},
			3, 1, nil, 2, 11, false,
		},
		"up to where the first ends": {
			[]partitionPart{{slots: []slot{item(1, 1)}, reach: end(3), scanned: 5}, {slots: []slot{item(9, 1)}, scanned: 6}},
			room{10, 10, 0},
			1, 0, end(3), 1, 5, false,
		},
		"keys":                  {[]partitionPart{{slots: []slot{item(1, 1), item(2, 1)}}}, room{1, 10, 0}, 1, 0, end(2), 1, 0, false},
		"keys to the end":       {[]partitionPart{{slots: []slot{item(1, 1), item(2, 1)}}}, room{2, 10, 0}, 2, 0, nil, 1, 0, false},
		"bytes":                 {[]partitionPart{{slots: []slot{item(1, 6), item(2, 6)}}}, room{9, 10, 0}, 1, 0, end(2), 1, 0, false},
		"one that is too large": {[]partitionPart{{slots: []slot{item(1, 60), item(2, 6)}}}, room{9, 10, 0}, 1, 0, end(2), 1, 0, false},
		"reads":                 {[]partitionPart{{slots: many}}, room{1000, 1000, 0}, maxReads, maxReads, end(maxReads), 1, 0, false},
		"large reads": {
			[]partitionPart{{slots: []slot{read(1, maxReadBytes), read(2, 1)}}}, room{9, 2 * maxReadBytes, 0}, 1, 1, end(2), 1, 0, false,
		},
		"failed at once":  {[]partitionPart{{err: failed}, {slots: []slot{item(9, 1)}}}, room{9, 10, 0}, 0, 0, nil, 0, 0, true},
		"failed later":    {[]partitionPart{{slots: []slot{item(1, 1)}}, {err: failed}}, room{9, 10, 0}, 1, 0, nil, 1, 0, true},
		"not yet at that": {[]partitionPart{{slots: []slot{item(1, 1)}, reach: end(2)}, {err: failed}}, room{9, 10, 0}, 1, 0, end(2), 1, 0, false},
	} {
		g := gather(c.parts, c.left)
		if len(g.slots) != c.slots || g.reads != c.reads || !reflect.DeepEqual(g.at, c.at) || g.visited != c.visited || g.scanned != c.scan || (g.err != nil) != c.failed {
			t.Errorf("%s: %d slots, %d reads, at %v, visited %d, scanned %d, %v", name, len(g.slots), g.reads, g.at, g.visited, g.scanned, g.err)
		}
	}
}

// TestCheckPiece: what an owner sends has to be what was asked for.
func TestCheckPiece(t *testing.T) {
	var keys [][]byte
	for i := range 20 {
		keys = append(keys, fmt.Appendf(nil, "k%d", i))
	}
	pos := func(k []byte) Position { return Position{ring.KeyToken(7, k), k} }
	slices.SortFunc(keys, func(a, b []byte) int { p, q := pos(a), pos(b); return p.Compare(&q) })
	object := scanObject(1).Append(nil)
	piece := func(edit func(p *ScanPiece)) *ScanPiece {
		p := &ScanPiece{}
		for _, k := range keys[2:10] {
			p.Entries = append(p.Entries, ScanEntry{Key: k, Object: object})
		}
		edit(p)
		return p
	}
	until := pos(keys[12])
	next := pos(keys[10])
	for name, c := range map[string]struct {
		edit func(p *ScanPiece)
		ok   bool
	}{
		"right":            {func(*ScanPiece) {}, true},
		"with an end":      {func(p *ScanPiece) { p.Next = &next }, true},
		"nothing":          {func(p *ScanPiece) { p.Entries = nil }, true},
		"before the range": {func(p *ScanPiece) { p.Entries[0].Key = keys[1] }, false},
		"behind it":        {func(p *ScanPiece) { p.Entries[7].Key = keys[12] }, false},
		"behind its end":   {func(p *ScanPiece) { p.Next = &next; p.Entries[7].Key = keys[10] }, false},
		"not in order":     {func(p *ScanPiece) { p.Entries[3], p.Entries[4] = p.Entries[4], p.Entries[3] }, false},
		"twice":            {func(p *ScanPiece) { p.Entries[3].Key = p.Entries[4].Key }, false},
		"another key":      {func(p *ScanPiece) { p.Entries[3].Key = []byte("zz") }, false},
		"no object":        {func(p *ScanPiece) { p.Entries[3].Object = []byte{9} }, false},
		"no way forward":   {func(p *ScanPiece) { from := pos(keys[2]); p.Next = &from }, false},
		"ends behind":      {func(p *ScanPiece) { far := pos(keys[19]); p.Next = &far }, false},
	} {
		r := &ScanRange{Tenant: 7, From: pos(keys[2]), Until: &until, Start: []byte("k"), End: []byte("l")}
		o, err := checkPiece(r, piece(c.edit))
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && (o.reach == nil || len(o.entries) > 0 && o.entries[0].digest == [16]byte{}) {
			t.Errorf("%s: reach %v", name, o.reach)
		}
		if err != nil && name != "no object" && !errors.Is(err, errPiece) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
