package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestExportImport: what is imported through one node, exported through another
// and imported into a second tenant is the same, byte for byte.
func TestExportImport(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	some := func(most int) string {
		b := make([]byte, rng.IntN(most))
		for i := range b {
			b[i] = byte(rng.UintN(256))
		}
		return base64.StdEncoding.EncodeToString(b)
	}
	var file bytes.Buffer
	const n = 2000
	for i := range n {
		key := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%d\xff", i))
		expires := ""
		if i%10 == 0 {
			expires = `,"expires_at":"2100-01-31T12:00:00.25Z"`
		}
		fmt.Fprintf(&file, "{\"key\":%q,\"key_encoding\":\"base64\",\"value\":%q,\"encoding\":\"base64\"%s}\n", key, some(300), expires)
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "source.jsonl")
	if err := os.WriteFile(source, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tenant := range []string{"first", "second", "third"} {
		mustRun(t, "tenant", "create", tenant, "--endpoint", c.agents[0].addr.GRPC)
	}
	r := mustRun(t, "import", source, "--tenant", "first", "--endpoint", c.agents[0].addr.GRPC)
	if want := fmt.Sprintf("imported %d records", n); !strings.Contains(r.stderr, want) || !strings.Contains(r.stderr, "0 failed") {
		t.Errorf("import says %q", r.stderr)
	}
	dump := func(tenant, format string, from *agent) string {
		t.Helper()
		path := filepath.Join(dir, tenant+"."+format)
		r := mustRun(t, "export", path, "--tenant", tenant, "--endpoint", from.addr.GRPC)
		if !strings.Contains(r.stderr, fmt.Sprintf("exported %d records", n)) {
			t.Errorf("export of %s says %q", tenant, r.stderr)
		}
		return path
	}
	sorted := func(path string) []string {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(b), "\n")
		slices.Sort(lines)
		return lines
	}
	stored := map[string]string{}
	first := dump("first", "jsonl", c.agents[1])
	if b, err := os.ReadFile(first); err != nil || bytes.Count(b, []byte(`"expires_at":"2100-01-31T12:00:00.25Z"`)) != n/10 {
		t.Errorf("the export has %d values that expire, %v, want %d", bytes.Count(b, []byte("expires_at")), err, n/10)
	}
	// Against the file itself: values and keys as they were written down.
	for _, line := range sorted(source) {
		var want struct{ Key, Value []byte }
		if line == "" {
			continue
		}
		if err := json.Unmarshal([]byte(line), &want); err != nil {
			t.Fatal(err)
		}
		stored[string(want.Key)] = string(want.Value)
	}
	r = mustRun(t, "scan", "-o", "jsonl", "--tenant", "first", "--endpoint", c.agents[2].addr.GRPC)
	for line := range strings.Lines(r.stdout) {
		var got struct {
			Key      []byte
			Siblings []struct{ Value []byte }
		}
		if err := json.Unmarshal([]byte(line), &got); err != nil || len(got.Siblings) != 1 {
			t.Fatalf("%v: %s", err, line)
		}
		if want, ok := stored[string(got.Key)]; !ok || want != string(got.Siblings[0].Value) {
			t.Fatalf("the key %q has %q, want %q", got.Key, got.Siblings[0].Value, want)
		}
		delete(stored, string(got.Key))
	}
	if len(stored) > 0 {
		t.Errorf("%d keys of the file are not stored", len(stored))
	}
	mustRun(t, "import", first, "--tenant", "second", "--endpoint", c.agents[2].addr.GRPC)
	second := dump("second", "csv", c.agents[0])
	mustRun(t, "import", second, "--tenant", "third", "--endpoint", c.agents[1].addr.GRPC)
	if !slices.Equal(sorted(first), sorted(dump("third", "jsonl", c.agents[2]))) {
		t.Error("the third tenant is not what the first is")
	}
}
