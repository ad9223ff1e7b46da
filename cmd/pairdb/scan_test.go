package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client/clienttest"
)

// scannedJSON is what scan -o json writes.
type scannedJSON struct {
	Items []struct {
		Key      []byte `json:"key"`
		Siblings []struct {
			Value []byte `json:"value"`
		} `json:"siblings"`
		Context []byte `json:"context"`
	} `json:"items"`
	NextPageToken string `json:"next_page_token"`
	Scanned       string `json:"scanned"`
}

func TestScanFormats(t *testing.T) {
	store := clienttest.NewStore()
	s, err := clienttest.Start(store)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range 2500 {
		store.SetValue("default", fmt.Sprintf("k%04d", i), []byte(strings.Repeat("v", 50)))
	}
	store.SetValue("default", "odd\n", []byte("x"))
	scan := func(args ...string) (stdout, stderr string) {
		t.Helper()
		code, stdout, stderr := runCLI(t, t.Context(), "", append([]string{"scan", "--endpoint", s.Addr()}, args...)...)
		if code != 0 {
			t.Fatalf("%v: exit code %d, %s", args, code, stderr)
		}
		return stdout, stderr
	}
	lines := func(s string) []string { return strings.Split(strings.TrimSuffix(s, "\n"), "\n") }

	if out, _ := scan("--keys-only", "-o", "plain"); len(lines(out)) != 2501 || lines(out)[0] != "k0000" || lines(out)[2500] != `"odd\n"` {
		t.Errorf("plain: %d lines", len(lines(out)))
	}
	if out, _ := scan("--prefix", "odd", "-o", "plain"); out != "\"odd\\n\"\teA==\n" {
		t.Errorf("plain: %q", out)
	}
	// Each thousand rows have a header.
	if out, _ := scan(); len(lines(out)) != 2501+3 || !strings.HasPrefix(out, "KEY") {
		t.Errorf("table: %d lines", len(lines(out)))
	}
	if out, _ := scan("--prefix", "none"); len(lines(out)) != 1 {
		t.Errorf("an empty table: %q", out)
	}
	out, _ := scan("-o", "jsonl", "--start", "k0007", "--end", "k0009")
	if l := lines(out); len(l) != 2 || !strings.Contains(l[0], `"siblings":[{"value":`) {
		t.Errorf("jsonl: %q", out)
	}
	for _, args := range [][]string{{}, {"--prefix", "none"}, {"--limit", "3"}} {
		for _, format := range []string{"json", "yaml"} {
			out, stderr := scan(append(args, "-o", format)...)
			text := []byte(out)
			if format == "yaml" {
				var doc any
				if err := yaml.Unmarshal(text, &doc); err != nil {
					t.Fatalf("%v: %v", args, err)
				}
				if text, err = json.Marshal(doc); err != nil {
					t.Fatal(err)
				}
			}
			var got scannedJSON
			if err := json.Unmarshal(text, &got); err != nil {
				t.Fatalf("%v -o %s: %v\n%s", args, format, err, text)
			}
			want := map[int]int{0: 2501, 2: 0}[len(args)]
			if len(args) > 0 && args[0] == "--limit" {
				want = 3
			}
			if len(got.Items) != want || got.Scanned != fmt.Sprint(want) || (got.NextPageToken != "") != (want == 3) || strings.Contains(stderr, "--page-token") != (want == 3) {
				t.Errorf("%v -o %s: %d items, scanned %s, token %q, stderr %q", args, format, len(got.Items), got.Scanned, got.NextPageToken, stderr)
			}
			if want > 0 && (string(got.Items[1].Key) != "k0001" || len(got.Items[1].Siblings[0].Value) != 50 || len(got.Items[1].Context) == 0) {
				t.Errorf("%v -o %s: %+v", args, format, got.Items[1])
			}
			if want == 3 {
				next, _ := scan("--limit", "1", "-o", "plain", "--keys-only", "--page-token", got.NextPageToken)
				if next != "k0003\n" {
					t.Errorf("-o %s: then comes %q", format, next)
				}
			}
		}
	}
}

func TestScanFails(t *testing.T) {
	store := clienttest.NewStore()
	s, err := clienttest.Start(store)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range 1500 {
		store.SetValue("default", fmt.Sprintf("k%04d", i), nil)
	}
	for _, args := range [][]string{{"--limit", "0"}, {"--limit", "-1"}, {"--page-token", "!"}, {"-o", "csv"}, {"word"}} {
		if code, _, stderr := runCLI(t, t.Context(), "", append([]string{"scan", "--endpoint", s.Addr()}, args...)...); code != errcode.ExitUsage {
			t.Errorf("%v: exit code %d, %s", args, code, stderr)
		}
	}
	// What came before the failure is there.
	pages := 0
	s.SetHook(func(context.Context, string, any) error {
		if pages++; pages > 1 {
			return clienttest.Fail(errcode.Internal, "broken", nil)
		}
		return nil
	})
	code, stdout, stderr := runCLI(t, t.Context(), "", "scan", "--endpoint", s.Addr(), "-o", "plain")
	if code != errcode.ExitFailed || strings.Count(stdout, "\n") != 1000 || !strings.Contains(stderr, "broken") {
		t.Errorf("exit code %d after %d lines: %s", code, strings.Count(stdout, "\n"), stderr)
	}
}
