package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
)

// sumOf is a hash of all that a folder holds.
func sumOf(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		fmt.Fprintln(h, strings.TrimPrefix(path, dir))
		_, err = io.Copy(h, f)
		return errors.Join(err, f.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// wantRefused starts an agent that has to end by itself with code 1, and returns what
// it logged.
func (a *agent) wantRefused(what string) string {
	a.t.Helper()
	log := filepath.Join(a.dir, "log")
	before, err := os.Stat(log)
	if err != nil {
		a.t.Fatal(err)
	}
	if err := a.spawn(); err != nil {
		a.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- a.wait() }()
	select {
	case err = <-ended:
	case <-time.After(time.Minute):
		a.t.Fatalf("%s: the node goes on\n%s", what, a.interrogate())
	}
	b, readErr := os.ReadFile(log)
	if readErr != nil {
		a.t.Fatal(readErr)
	}
	said := string(b[before.Size():])
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != errcode.ExitFailed {
		a.t.Errorf("%s: it ends with %v, want exit code %d\n%s", what, err, errcode.ExitFailed, said)
	}
	return said
}

// TestMetadataLost damages the metadata of one of three nodes that have data, in many
// ways. The node is refused with its own name and what to do, and its data is left as
// it is; or it fetches what it lacks from the others and serves again. A new directory
// in its place is refused by name as well. The others notice nothing, and with its own
// directory the node is back.
func TestMetadataLost(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	ctx := context.Background()
	const keys = 50
	for i := range keys {
		if _, err := c.client(0).Put(ctx, fmt.Sprint("key-", i), []byte(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	mustRun(t, "tenant", "create", "shop", "--endpoint", c.agents[0].addr.GRPC)
	mustRun(t, "put", "k", "v", "--tenant", "shop", "-c", "all", "--endpoint", c.agents[0].addr.GRPC)
	a := c.agents[1]
	id, args := a.addr.NodeID, a.args
	a.kill()
	engineDir, metaDir := filepath.Join(a.data, "data"), filepath.Join(a.data, "meta")
	data := sumOf(t, engineDir)
	sound := filepath.Join(t.TempDir(), "meta")
	if err := os.CopyFS(sound, os.DirFS(metaDir)); err != nil {
		t.Fatal(err)
	}
	witness, err := os.ReadFile(filepath.Join(a.data, "NODE"))
	if err != nil {
		t.Fatal(err)
	}
	restore := func() {
		t.Helper()
		err := errors.Join(os.RemoveAll(metaDir), os.CopyFS(metaDir, os.DirFS(sound)), os.WriteFile(filepath.Join(a.data, "NODE"), witness, 0o600))
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, harm := range []struct {
		what string
		do   func() error
	}{
		{"the folder is gone", func() error { return os.RemoveAll(metaDir) }},
		{"the folder is empty", func() error { return errors.Join(os.RemoveAll(metaDir), os.Mkdir(metaDir, 0o700)) }},
		{"Badger's manifest is gone", func() error { return os.Remove(filepath.Join(metaDir, "MANIFEST")) }},
		{"Badger's log is cut short", func() error { return os.Truncate(filepath.Join(metaDir, "00001.mem"), 30) }},
	} {
		for _, how := range [][]string{args, {"--bootstrap"}} {
			a.args = how
			if err := harm.do(); err != nil {
				t.Fatal(err)
			}
			said := a.wantRefused(harm.what)
			for _, want := range []string{id, "node-2", "left as it is", "has to be replaced"} {
				if !strings.Contains(said, want) {
					t.Errorf("%s: it does not say %q:\n%s", harm.what, want, said)
				}
			}
			if now := sumOf(t, engineDir); now != data {
				t.Errorf("%s: the data has changed", harm.what)
			}
			restore()
		}
	}
	a.args = args

	// A new directory under the name and the addresses of the node.
	own := a.data
	a.data = filepath.Join(t.TempDir(), "data")
	a.args = []string{"--join", c.agents[0].addr.Gossip}
	for _, i := range []int{0, 2} {
		err := poll(time.Minute, func() (bool, error) {
			dead, err := c.agents[i].series("pairdb_members", `state="dead"`)
			return dead == 1, err
		})
		if err != nil {
			t.Errorf("the killed node is not dead to %s: %v", c.agents[i].name, err)
		}
	}
	said := a.wantRefused("a wiped directory")
	for _, want := range []string{id, "node-2", "gone since", "Nothing was changed", "pairdb node replace"} {
		if !strings.Contains(said, want) {
			t.Errorf("joined with a wiped directory it does not say %q:\n%s", want, said)
		}
	}
	if st, err := c.client(0).Status(ctx); err != nil || len(st.GetNodes()) != 3 {
		t.Errorf("after that the cluster has %d nodes, %v", len(st.GetNodes()), err)
	}

	// The founding entry, which lies in the value log, has a flipped bit.
	a.data, a.args = own, args
	harmed := false
	logs, err := filepath.Glob(filepath.Join(metaDir, "*.vlog"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range logs {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if used := len(bytes.TrimRight(b, "\x00")); used > 1000 {
			b[used/2] ^= 4
			harmed = true
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !harmed {
		t.Fatal("there is nothing in the value log")
	}
	a.start()
	began := time.Now()
	a.waitHealthy(time.Minute)
	t.Logf("healthy %s after a start without its log", time.Since(began).Round(time.Millisecond))
	if log := tail(filepath.Join(a.dir, "log"), 1<<20); !strings.Contains(log, "metadata is damaged") || !strings.Contains(log, "complete again") {
		t.Error("the log does not say that metadata was damaged and fetched again")
	}
	c.meet()
	for i := range keys {
		res, err := c.client(1).Get(ctx, fmt.Sprint("key-", i))
		if err != nil || string(res.Siblings[0].Value) != fmt.Sprint(i) {
			t.Errorf("key %d through the node: %v", i, err)
		}
	}
	if r := mustRun(t, "get", "k", "--tenant", "shop", "-c", "all", "--endpoint", a.addr.GRPC); r.stdout != "v" {
		t.Errorf("of the tenant made before it reads %q", r.stdout)
	}
	mustRun(t, "tenant", "create", "late", "--endpoint", a.addr.GRPC)
}
