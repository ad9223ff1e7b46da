package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

// Records of any bytes come back from both formats as they were.
func TestRecordsComeBack(t *testing.T) {
	part := rapid.OneOf(
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }), rapid.String(),
		rapid.SampledFrom([]string{"", "\r\n", "\"", ",", "a\nb", "\\.", "\uFEFFkey", "\uFFFD", "<&>\u2028", "key", " x ", "\x00"}),
	)
	rapid.Check(t, func(t *rapid.T) {
		format := rapid.SampledFrom([]string{recordsJSONL, recordsCSV}).Draw(t, "format")
		var file bytes.Buffer
		w := newRecordWriter(format, &file)
		var want []record
		for range rapid.IntRange(0, 8).Draw(t, "records") {
			r := record{key: part.Draw(t, "key"), value: []byte(part.Draw(t, "value"))}
			if rapid.Bool().Draw(t, "expires") {
				r.expires = time.UnixMilli(rapid.Int64Range(0, 250_000_000_000_000).Draw(t, "at"))
			}
			want = append(want, r)
			if err := w.write(r); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.flush(); err != nil {
			t.Fatal(err)
		}
		text := file.String()
		got, bad, err := readRecords(format, text)
		if err != nil || len(bad) > 0 || len(got) != len(want) {
			t.Fatalf("%d records became %d, %v, %v:\n%q", len(want), len(got), bad, err, text)
		}
		for i := range want {
			if got[i].key != want[i].key || !bytes.Equal(got[i].value, want[i].value) || !got[i].expires.Equal(want[i].expires) {
				t.Fatalf("%q, %q became %q, %q:\n%q", want[i].key, want[i].value, got[i].key, got[i].value, text)
			}
		}
	})
}

// readRecords reads a whole file.
func readRecords(format, text string) (good []record, bad []*lineError, err error) {
	in := newRecordReader(format, strings.NewReader(text))
	for {
		r, err := in.next()
		var line *lineError
		switch {
		case errors.Is(err, io.EOF):
			return good, bad, nil
		case errors.As(err, &line):
			bad = append(bad, line)
		case err != nil:
			return good, bad, err
		default:
			good = append(good, r)
		}
	}
}

func TestBadRecords(t *testing.T) {
	for _, c := range []struct {
		name, format, text, bad, stop string
		good                          int
	}{
		{"empty", recordsJSONL, "", "", "", 0},
		{"blank lines", recordsJSONL, "\n \n{\"key\":\"k\",\"value\":\"\"}\r\n\n", "", "", 1},
		{"not JSON", recordsJSONL, "{\"key\":\"a\",\"value\":\"1\"}\n{\n{\"key\":\"b\",\"value\":\"2\"}", "line 2: it is not the JSON object", "", 2},
		{"an unknown field", recordsJSONL, `{"key":"k","value":"v","vlaue":"w"}`, `unknown field "vlaue"`, "", 0},
		{"no key", recordsJSONL, `{"value":"v"}`, "no key", "", 0},
		{"no value", recordsJSONL, `{"key":"k","value":null}`, "no value", "", 0},
		{"a number", recordsJSONL, `{"key":"k","value":7}`, "not the JSON object", "", 0},
		{"two objects", recordsJSONL, `{"key":"k","value":"v"}{}`, "behind the object", "", 0},
		{"no UTF-8", recordsJSONL, "{\"key\":\"\xff\",\"value\":\"v\"}", "not UTF-8", "", 0},
		{"half a pair", recordsJSONL, `{"key":"\ud800","value":"v"}`, "surrogate", "", 0},
		{"no base64", recordsJSONL, `{"key":"k","value":"*","encoding":"base64"}`, "value is not base64", "", 0},
		{"loose base64", recordsJSONL, `{"key":"/x==","key_encoding":"base64","value":""}`, "key is not base64", "", 0},
		{"no instant", recordsJSONL, `{"key":"k","value":"v","expires_at":"soon"}`, `expires_at is "soon"`, "", 0},
		{"another encoding", recordsJSONL, `{"key":"k","value":"v","encoding":"hex"}`, `the value is "hex"`, "", 0},
		{"too long a line", recordsJSONL, "\n" + strings.Repeat("x", maxRecordSize+1), "", "line 2 has more than", 0},
		{"no header", recordsCSV, "", "", "begins with a header", 0},
		{"another header", recordsCSV, "key,val\na,b\n", "", `the column "val"`, 0},
		{"a column twice", recordsCSV, "key,value,key\n", "", "or twice", 0},
		{"half a header", recordsCSV, "key\na\n", "", "has to name", 0},
		{"other order", recordsCSV, "\uFEFFvalue,key\r\nv,k\r\n", "", "", 1},
		{"too few fields", recordsCSV, "key,value\na\nb,c\nd,e,f\n", "line 2: it has 1 fields, the header has 2", "", 1},
		{"base64 in CSV", recordsCSV, "key,value,encoding\na,*,base64\n", "line 2: the value is not base64", "", 0},
		{"a quote inside", recordsCSV, "key,value\na,b\"c\n", "", "bare \"", 0},
		{"an open quote", recordsCSV, "key,value\na,\"" + strings.Repeat("x", maxRecordSize+10_000), "", "a quote may be missing", 0},
	} {
		good, bad, err := readRecords(c.format, c.text)
		told := ""
		if len(bad) > 0 {
			told = bad[0].Error()
		}
		if len(good) != c.good || (told == "") != (c.bad == "") || !strings.Contains(told, c.bad) ||
			(err == nil) != (c.stop == "") || err != nil && !strings.Contains(err.Error(), c.stop) {
			t.Errorf("%s: %d good, %q, %v; want %d, %q, %q", c.name, len(good), told, err, c.good, c.bad, c.stop)
		}
	}
}

// FuzzRecords: whatever a file has, a record that is read is written and read
// again as the same.
func FuzzRecords(f *testing.F) {
	for _, s := range []string{`{"key":"k","value":"v"}`, "key,value\na,\"b\nc\"\n", `{"key":"\ud83d\ude00","value":"/w==","encoding":"base64"}`, "value,key_encoding,key\n,base64,/w==\n"} {
		f.Add(s, false)
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, text string, isCSV bool) {
		format := map[bool]string{false: recordsJSONL, true: recordsCSV}[isCSV]
		good, _, _ := readRecords(format, text) // what stops it is no matter
		var again bytes.Buffer
		w := newRecordWriter(format, &again)
		for _, r := range good {
			if err := w.write(r); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.flush(); err != nil {
			t.Fatal(err)
		}
		second, bad, err := readRecords(format, again.String())
		if err != nil || len(bad) > 0 || len(second) != len(good) {
			t.Fatalf("%q: %v, %v", again.String(), bad, err)
		}
		for i := range good {
			if second[i].key != good[i].key || !bytes.Equal(second[i].value, good[i].value) || !second[i].expires.Equal(good[i].expires) {
				t.Fatalf("%q, %q became %q, %q", good[i].key, good[i].value, second[i].key, second[i].value)
			}
		}
	})
}

// slowStore is a putter whose puts take turns that a test decides.
type slowStore struct {
	mu     sync.Mutex
	values map[string]string
	order  []string
	do     func(ctx context.Context, key, value string) error
}

func (s *slowStore) Put(ctx context.Context, key string, value []byte, _ ...client.CallOption) (*client.PutResult, error) {
	if s.do != nil {
		if err := s.do(ctx, key, string(value)); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values == nil {
		s.values = map[string]string{}
	}
	s.values[key] = string(value)
	s.order = append(s.order, key+"="+string(value))
	return &client.PutResult{}, nil
}

func lines(n int, key func(i int) string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{\"key\":%q,\"value\":\"%d\"}\n", key(i), i+1)
	}
	return b.String()
}

func newTestImporter(workers, retries, maxFailed int) *recordImporter {
	im := newRecordImporter(client.LevelQuorum, workers, retries, maxFailed)
	im.pause = func(int) time.Duration { return 0 }
	return im
}

// The last value of a key stays, however many are under way and fail at first.
func TestLastRecordOfAKeyStays(t *testing.T) {
	const n, keys = 2000, 7
	var mu sync.Mutex
	seen := map[string]int{}
	store := &slowStore{do: func(_ context.Context, key, value string) error {
		mu.Lock()
		defer mu.Unlock()
		if seen[key+value]++; len(seen)%3 == 0 && seen[key+value] == 1 {
			return &client.Error{Code: errcode.Unavailable}
		}
		return nil
	}}
	im := newTestImporter(32, 3, 10)
	text := lines(n, func(i int) string { return fmt.Sprint("k", i%keys) })
	res, err := im.run(t.Context(), store, newRecordReader(recordsJSONL, strings.NewReader(text)), 1)
	if err != nil || res.stored != n || len(res.failed) != 0 || res.retried == 0 || res.next != n+1 {
		t.Fatalf("%+v, %v", res, err)
	}
	for i := n - keys; i < n; i++ {
		if key := fmt.Sprint("k", i%keys); store.values[key] != fmt.Sprint(i+1) {
			t.Errorf("%s has the value %s, want %d", key, store.values[key], i+1)
		}
	}
}

// What was stopped goes on from the line it says, and nothing is left out.
func TestStoppedImportGoesOn(t *testing.T) {
	const n = 500
	text := lines(n, func(i int) string { return fmt.Sprint("k", i) })
	store := &slowStore{}
	ctx, cancel := context.WithCancelCause(t.Context())
	store.do = func(ctx context.Context, key, _ string) error {
		if key == "k100" {
			cancel(errInterrupted)
		}
		return ctx.Err()
	}
	res, err := newTestImporter(16, 0, 10).run(ctx, store, newRecordReader(recordsJSONL, strings.NewReader(text)), 1)
	if !errors.Is(err, errInterrupted) || res.next > 101 {
		t.Fatalf("stopped at line %d, %v, want 101 at most", res.next, err)
	}
	for i := range res.next - 1 {
		if _, ok := store.values[fmt.Sprint("k", i)]; !ok {
			t.Errorf("line %d is not stored, and the import would go on from %d", i+1, res.next)
		}
	}
	store.do = nil
	res, err = newTestImporter(16, 0, 10).run(t.Context(), store, newRecordReader(recordsJSONL, strings.NewReader(text)), res.next)
	if err != nil || len(store.values) != n || res.next != n+1 {
		t.Errorf("%d keys, %+v, %v", len(store.values), res, err)
	}
}

func TestImportStopsAtTooManyFailures(t *testing.T) {
	store := &slowStore{do: func(context.Context, string, string) error {
		return &client.Error{Code: errcode.InvalidKey, Message: "no"}
	}}
	im := newTestImporter(8, 5, 3)
	told := 0
	im.failed = func(failedRecord) { told++ }
	res, err := im.run(t.Context(), store, newRecordReader(recordsJSONL, strings.NewReader(lines(100, func(i int) string { return fmt.Sprint(i) }))), 1)
	if !errors.Is(err, errTooManyFailed) || len(res.failed) != 3 || told != 3 || res.next > 100 {
		t.Errorf("%d failed, %d told, next %d, %v", len(res.failed), told, res.next, err)
	}
}

// A source that never says anything does not hold up the end.
func TestImportFromAPipeIsInterrupted(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close() // lets the reader go; a pipe's Close never fails
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errInterrupted)
	if _, err := newTestImporter(2, 0, 1).run(ctx, &slowStore{}, newRecordReader(recordsJSONL, r), 1); !errors.Is(err, errInterrupted) {
		t.Error(err)
	}
}
