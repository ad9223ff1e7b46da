package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestOtherLanguages runs the commands of docs/clients.md in a copy of what they
// need: programs made from the .proto files alone put, read, delete, use a
// context, and tell errors by their codes. What they need is installed by the
// gate; where it is missing this fails.
func TestOtherLanguages(t *testing.T) {
	const root = "../../.."
	doc, err := os.ReadFile(filepath.Join(root, "docs", "clients.md"))
	if err != nil {
		t.Fatal(err)
	}
	fences := regexp.MustCompile("(?s)\n## ([^\n]+)\n.*?```sh\n(.*?)```").FindAllStringSubmatch(string(doc), -1)
	if len(fences) != 2 {
		t.Fatalf("docs/clients.md has the commands of %d languages", len(fences))
	}
	c := startCluster(t, 1)
	for _, fence := range fences {
		t.Run(fence[1], func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range []string{"api", "examples"} {
				if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(root, name))); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			cmd := bounded(ctx, "sh", "-euc", fence[2])
			cmd.Dir = dir
			// The system's Python has the system's packages.
			cmd.Env = append(os.Environ(), "PAIRDB_ENDPOINT="+c.agents[0].addr.GRPC, "PATH=/usr/bin:/bin:"+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range []string{"read b?'?one", "read b?'?two'? from 1 sibling, 1 acks", "refused KEY_NOT_FOUND", "refused TENANT_NOT_FOUND"} {
				if !regexp.MustCompile(fmt.Sprintf("(?m)^%s'?$", want)).Match(out) {
					t.Errorf("it does not say %q:\n%s", want, strings.TrimSpace(string(out)))
				}
			}
		})
	}
}
