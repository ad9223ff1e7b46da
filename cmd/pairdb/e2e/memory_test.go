package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// memoryGroup makes a cgroup whose processes have so many bytes of memory, on
// either version of cgroups, and returns its folder. It needs root.
func memoryGroup(t *testing.T, name string, limit int64) (dir string, v2 bool) {
	t.Helper()
	root, file := "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
	if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
		root, file, v2 = "/sys/fs/cgroup", "memory.max", true
		if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+memory"), 0); err != nil {
			t.Fatalf("this test makes memory cgroups, as root: %v", err)
		}
	}
	dir = filepath.Join(root, fmt.Sprintf("pairdb-e2e-%d-%s", os.Getpid(), name))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatalf("this test makes memory cgroups, as root: %v", err)
	}
	t.Cleanup(func() {
		// Once its processes have ended, which the kernel may notice late.
		if err := poll(10*time.Second, func() (bool, error) { return os.Remove(dir) == nil, nil }); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, file), []byte(strconv.FormatInt(limit, 10)), 0); err != nil {
		t.Fatal(err)
	}
	return dir, v2
}

// counter reads one figure of a file: the whole of it, or that behind a name.
func counter(t *testing.T, file, name string) int64 {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if name == "" || len(fields) > 1 && fields[0] == name {
			v, err := strconv.ParseInt(fields[min(1, len(fields)-1)], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("%s has no %s", file, name)
	return 0
}

// TestImportWithinMemoryLimit: three nodes with 512 MiB each, by their cgroups,
// take the real tree and a folder of the largest values, without being killed,
// and have every byte.
func TestImportWithinMemoryLimit(t *testing.T) {
	const limit = 512 << 20
	root := t.TempDir()
	c := &cluster{t: t}
	v2 := false
	for i := range 3 {
		name := fmt.Sprintf("node-%d", i+1)
		a := &agent{t: t, name: name, dir: filepath.Join(root, name), args: []string{"--bootstrap-expect", "3"}}
		if i > 0 {
			a.args = append(a.args, "--join", c.agents[0].addr.Gossip)
		}
		a.cgroup, v2 = memoryGroup(t, name, limit)
		c.agents = append(c.agents, a)
		a.start()
	}
	for _, a := range c.agents {
		a.waitHealthy(60 * time.Second)
		wantLimits(t, a, limit)
	}
	large := filepath.Join(root, "large")
	writeLargeFiles(t, large, 20)
	for _, dir := range []string{importRoot(t), large} {
		r := runFor(t, 5*time.Minute, nil, "import", "--dir", dir, "--verify",
			"--endpoint", c.agents[0].addr.GRPC, "--verify-endpoint", c.agents[1].addr.GRPC)
		if r.code != 0 {
			t.Fatalf("import: exit %d\n%s%s", r.code, r.stdout, r.stderr)
		}
		t.Logf("%s", strings.TrimSpace(r.stdout+r.stderr))
	}
	for _, a := range c.agents {
		peak, kills := filepath.Join(a.cgroup, "memory.max_usage_in_bytes"), filepath.Join(a.cgroup, "memory.oom_control")
		if v2 {
			peak, kills = filepath.Join(a.cgroup, "memory.peak"), filepath.Join(a.cgroup, "memory.events")
		}
		if n := counter(t, kills, "oom_kill"); n != 0 {
			t.Errorf("%s: %d times killed for its memory", a.name, n)
		}
		select {
		case <-a.done:
			t.Fatalf("%s ended: %v", a.name, a.err)
		default:
		}
		rss := counter(t, fmt.Sprintf("/proc/%d/status", a.cmd.Process.Pid), "VmHWM:") // in KiB
		t.Logf("%s: at most %d MiB resident; at most %d MiB of %d taken by the cgroup, with the page cache", a.name, rss>>10, counter(t, peak, "")>>20, limit>>20)
	}
}

// writeLargeFiles makes n files of 10 MiB that do not compress.
func writeLargeFiles(t *testing.T, dir string, n int) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		b := make([]byte, 0, 10<<20)
		for sum := sha256.Sum256([]byte{byte(i)}); len(b) < 10<<20; sum = sha256.Sum256(sum[:]) {
			b = append(b, sum[:]...)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("large-", i)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// wantLimits checks what the agent says that it found.
func wantLimits(t *testing.T, a *agent, limit int64) {
	t.Helper()
	log := tail(filepath.Join(a.dir, "log"), 1<<20)
	for line := range strings.Lines(log) {
		var said struct {
			Msg      string `json:"msg"`
			Limit    int64  `json:"gomemlimit"`
			From     string `json:"memory_from"`
			Memtable string `json:"memtable_size"`
			Cache    string `json:"cache_size"`
		}
		if err := json.Unmarshal([]byte(line), &said); err != nil || said.Msg != "limits" {
			continue
		}
		// The engine's share lies outside the collector's heap.
		collected := limit - (184+82+3*20)<<20
		if said.From != "cgroup" || said.Limit != collected || said.Memtable != "20MiB" || said.Cache != "82MiB" {
			t.Errorf("%s: %s", a.name, line)
		}
		return
	}
	t.Errorf("%s does not say its limits:\n%s", a.name, log)
}
