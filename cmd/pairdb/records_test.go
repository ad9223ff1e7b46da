package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/client/clienttest"
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

// lines is a file of n records; the value of each is its line.
func lines(n int, key func(i int) string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{\"key\":%q,\"value\":\"%d\"}\n", key(i), i+1)
	}
	return b.String()
}

// importCluster is a pretended node, its store, and a client of it.
func importCluster(t *testing.T) (*client.Client, *clienttest.Store, *clienttest.Server) {
	t.Helper()
	store := clienttest.NewStore()
	s, err := clienttest.Start(store)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	c, err := client.New(client.Options{Endpoints: []string{s.Addr()}, NoRouting: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c, store, s
}

// What was stopped goes on from the line it says, and nothing is left out.
func TestStoppedImportGoesOn(t *testing.T) {
	const n = 500
	text := lines(n, func(i int) string { return fmt.Sprint("k", i) })
	c, store, s := importCluster(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	s.SetHook(func(ctx context.Context, _ string, req any) error {
		if p, ok := req.(*pairdbv1.PutRequest); ok && string(p.GetKey()) == "k100" {
			cancel(errInterrupted)
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	})
	res, err := newRecordImporter(client.LevelQuorum, 16, 0, 10).run(ctx, c, newRecordReader(recordsJSONL, strings.NewReader(text)), 1)
	if !errors.Is(err, errInterrupted) || res.next > 101 {
		t.Fatalf("stopped at line %d, %v, want 101 at most", res.next, err)
	}
	for i := range res.next - 1 {
		if _, ok := store.Value("default", fmt.Sprint("k", i)); !ok {
			t.Errorf("line %d is not stored, and the import would go on from %d", i+1, res.next)
		}
	}
	s.SetHook(nil)
	res, err = newRecordImporter(client.LevelQuorum, 16, 0, 10).run(t.Context(), c, newRecordReader(recordsJSONL, strings.NewReader(text)), res.next)
	if err != nil || store.Len() != n || res.next != n+1 {
		t.Errorf("%d keys, %+v, %v", store.Len(), res, err)
	}
}

// The line to go on from counts those that are no good, or left out, and stops
// before what ends the file.
func TestImportSaysWhereToGoOn(t *testing.T) {
	long := strings.Repeat("x", maxRecordSize+1)
	for _, tc := range []struct {
		name, text         string
		from, next, failed int
		stored             int64
		stops              bool
	}{
		{"nothing", "", 1, 1, 0, 0, false},
		{"bad at the end", lines(3, func(int) string { return "k" }) + "\n{\n", 1, 6, 1, 3, false},
		{"bad only", "{\n", 1, 2, 1, 0, false},
		{"all left out", "{\n" + lines(3, func(int) string { return "k" }), 9, 5, 0, 0, false},
		{"some left out", "{\n" + lines(3, func(int) string { return "k" }), 3, 5, 0, 2, false},
		{"a line too long", "{\n" + lines(2, func(int) string { return "k" }) + long, 1, 4, 1, 2, true},
		{"too many bad", lines(1, func(int) string { return "k" }) + "{\n{\n{\n" + lines(1, func(int) string { return "l" }), 1, 5, 3, 1, true},
	} {
		c, _, _ := importCluster(t)
		res, err := newRecordImporter(client.LevelQuorum, 4, 0, 3).run(t.Context(), c, newRecordReader(recordsJSONL, strings.NewReader(tc.text)), tc.from)
		if res.next != tc.next || len(res.failed) != tc.failed || res.stored != tc.stored || (err != nil) != tc.stops || errors.Is(err, errTooManyFailed) != (tc.failed == 3) {
			t.Errorf("%s: next %d, %d failed, %d stored, %v; want %+v", tc.name, res.next, len(res.failed), res.stored, err, tc)
		}
	}
}

func TestImportStopsAtTooManyFailures(t *testing.T) {
	c, _, s := importCluster(t)
	s.SetHook(func(_ context.Context, _ string, req any) error {
		if _, ok := req.(*pairdbv1.PutRequest); ok {
			return clienttest.Fail(errcode.InvalidKey, "no", nil)
		}
		return nil
	})
	im := newRecordImporter(client.LevelQuorum, 8, 5, 3)
	told := 0
	im.failed = func(failedRecord) { told++ }
	// What comes behind is waited for, but not by the end of the import.
	r, w := io.Pipe()
	defer w.Close() // lets the reader go; a pipe's Close never fails
	go func() {
		_, _ = io.WriteString(w, lines(20, func(i int) string { return fmt.Sprint(i) })) // the reader may be gone
	}()
	res, err := im.run(t.Context(), c, newRecordReader(recordsJSONL, r), 1)
	if !errors.Is(err, errTooManyFailed) || len(res.failed) != 3 || told != 3 || res.next > 20 {
		t.Errorf("%d failed, %d told, next %d, %v", len(res.failed), told, res.next, err)
	}
	if err := r.Close(); err != nil { // lets the writer go
		t.Error(err)
	}
}

// A source that never says anything does not hold up the end.
func TestImportFromAPipeIsInterrupted(t *testing.T) {
	c, _, _ := importCluster(t)
	r, w := io.Pipe()
	defer w.Close() // lets the reader go; a pipe's Close never fails
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errInterrupted)
	if _, err := newRecordImporter(client.LevelQuorum, 2, 0, 1).run(ctx, c, newRecordReader(recordsJSONL, r), 1); !errors.Is(err, errInterrupted) {
		t.Error(err)
	}
}
