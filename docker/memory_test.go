package docker

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/pairdb/pairdb/client"
)

const (
	// memory is what the node's container may use, in MiB.
	memory = 512
	// trees is how often the tree is imported, each for a tenant of its own: in
	// all three quarters of the container's memory, in bytes of values alone.
	trees = 3
)

// TestImportInLittleMemory: a node with the defaults of its configuration, in a
// container with little memory and no swap, takes an import of nearly as many
// bytes, and gives each back.
func TestImportInLittleMemory(t *testing.T) {
	if must(t, "docker", "images", "-q", shared.image) == "" {
		must(t, "sh", "-euc", "cd '"+shared.root+"' && "+imageCommand)
	}
	network := must(t, "docker", "network", "create", shared.project+"-memory")
	t.Cleanup(func() { must(t, "docker", "network", "rm", network) })
	size := strconv.Itoa(memory) + "m"
	id := must(t, "docker", "run", "-d", "--network", network, "--publish", "127.0.0.1::50051",
		"--memory", size, "--memory-swap", size, "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true",
		shared.image, "agent", "--bootstrap", "--bind=0.0.0.0", "--insecure")
	t.Cleanup(func() {
		if t.Failed() {
			state := must(t, "docker", "inspect", "--format", "{{json .State}}", id)
			t.Logf("the node: %s\n%s", state, must(t, "sh", "-euc", "docker logs --tail 40 "+id+" 2>&1"))
		}
		must(t, "docker", "rm", "-fv", id)
	})
	all, err := inspect(id)
	if err != nil {
		t.Fatal(err)
	}
	c := &all[0]
	if c.HostConfig.Memory != memory<<20 {
		t.Fatalf("the engine limits the container to %d bytes", c.HostConfig.Memory)
	}
	waitHealthy(t, healthyWithin, c)

	tree := filepath.Join(must(t, "go", "env", "GOROOT"), "src")
	admin := dial(t, c, "")
	begin := time.Now()
	for i := range trees {
		rf := uint32(1)
		if _, err := admin.CreateTenant(shared.ctx, client.NewTenant{ID: tenant(i), ReplicationFactor: &rf}); err != nil {
			t.Fatal(err)
		}
		must(t, "docker", "run", "--rm", "--network", "container:"+id, "--volume", tree+":/tree:ro", shared.image, "import", "--dir", "/tree", "--tenant", tenant(i))
	}
	imported := time.Since(begin)

	var files []string
	err = filepath.WalkDir(tree, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) < 5000 {
		t.Fatalf("%d files below %s, %v", len(files), tree, err)
	}
	bytesRead := 0
	for i := range trees {
		bytesRead += compareTree(t, dial(t, c, tenant(i)), tree, files)
	}
	if bytesRead < trees*100<<20 {
		t.Errorf("compared %d bytes, too few to say anything", bytesRead)
	}
	after, err := inspect(id)
	if err != nil {
		t.Fatal(err)
	}
	if s := after[0].State; s.OOMKilled || s.Status != "running" || s.StartedAt != c.State.StartedAt {
		t.Errorf("the node did not live through it: %+v", s)
	}
	t.Logf("%d MiB of memory: imported %d × %d files in %s and compared %d bytes; the process had at most %s resident",
		memory, trees, len(files), imported.Round(100*time.Millisecond), bytesRead, peak(after[0].State.Pid))
}

func tenant(i int) string { return "tree-" + strconv.Itoa(i) }

// compareTree reads every file back and returns how many bytes there were.
func compareTree(t *testing.T, cl *client.Client, tree string, files []string) int {
	t.Helper()
	sizes := make([]int, len(files))
	each(t, len(files), func(ctx context.Context, i int) error {
		want, err := os.ReadFile(files[i])
		if err != nil {
			return err
		}
		name, err := filepath.Rel(tree, files[i])
		if err != nil {
			return err
		}
		res, err := cl.Get(ctx, filepath.ToSlash(name))
		if err == nil && !bytes.Equal(res.Siblings[0].Value, want) {
			err = fmt.Errorf("%d bytes differ from the %d of the file", len(res.Siblings[0].Value), len(want))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		sizes[i] = len(want)
		return nil
	})
	total := 0
	for _, n := range sizes {
		total += n
	}
	return total
}

// peak is the most memory that a process had at once, for people.
func peak(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err.Error()
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+ kB)`).FindSubmatch(b)
	if m == nil {
		return "(unknown)"
	}
	return string(m[1])
}
