package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/client"
)

// damageKeys is how many keys a damaged cluster is asked for, through each node and
// at two levels.
const damageKeys = 60

// damagedCluster is a cluster of which one node is damaged again and again, and what
// it has to answer.
type damagedCluster struct {
	*cluster
	t       *testing.T
	victim  *agent
	clients []*client.Client
	want    map[string]string
	round   int
}

// TestDamagedFiles kills a node, damages its files and starts it again. Whatever was
// damaged, nobody is given a wrong answer, and the damage is seen and contained.
func TestDamagedFiles(t *testing.T) {
	d := &damagedCluster{cluster: startCluster(t, 3), t: t, want: map[string]string{}}
	d.victim = d.agents[2]
	for i := range d.agents {
		d.clients = append(d.clients, d.client(i))
	}
	engine := func() string { return filepath.Join(d.victim.data, "data") }
	for _, c := range []struct {
		what string
		// flushed says that what was written is in tables, damage what is done.
		flushed bool
		damage  func() error
		event   string
	}{
		{"a bit of each table flipped", true, func() error {
			return eachFile(filepath.Join(engine(), "*.sst"), flipMiddle)
		}, "data on this node's disk is damaged"},
		{"tables removed", true, func() error {
			return eachFile(filepath.Join(engine(), "*.sst"), os.Remove)
		}, "a table is missing or damaged"},
		{"tables cut", true, func() error {
			return eachFile(filepath.Join(engine(), "*.sst"), func(name string) error { return os.Truncate(name, 200) })
		}, "a table is missing or damaged"},
		{"the manifest cut", true, func() error {
			return eachFile(filepath.Join(engine(), "MANIFEST-*"), func(name string) error { return os.Truncate(name, 40) })
		}, "the engine's files are damaged or gone"},
		{"a bit of the log flipped", false, func() error {
			return eachFile(filepath.Join(engine(), "wal", "*.wal"), flipEarly)
		}, "the engine's files are damaged or gone"},
		{"the engine's folder gone", true, func() error {
			return os.Rename(engine(), engine()+".taken")
		}, "the engine's files are damaged or gone"},
	} {
		t.Run(c.what, func(t *testing.T) {
			d.t = t
			d.write(client.LevelAll)
			if c.flushed {
				mustRun(t, "flush", "--endpoint", d.victim.addr.GRPC)
			}
			d.victim.kill()
			d.keep()
			if err := c.damage(); err != nil {
				t.Fatal(err)
			}
			d.victim.start()
			d.victim.waitHealthy(30 * time.Second)
			d.compare()
			d.write(client.LevelQuorum) // the damaged node takes part as a door
			d.compare()
			d.wantQuarantine(c.event)
			d.restore()
		})
	}
}

// write gives every key a new value, through each node in turn.
func (d *damagedCluster) write(level client.Level) {
	d.t.Helper()
	d.round++
	for i := range damageKeys {
		key, value := fmt.Sprint("key", i), fmt.Sprintf("value %d of round %d %s", i, d.round, strings.Repeat("x", i))
		// A node that has just come back may not be known to all others yet.
		err := poll(20*time.Second, func() (bool, error) {
			_, err := d.clients[i%3].Put(d.t.Context(), key, []byte(value), client.WithLevel(level))
			return err == nil, nil
		})
		if err != nil {
			d.t.Fatalf("write %s at %v through %s: %v", key, level, d.agents[i%3].name, err)
		}
		d.want[key] = value
	}
}

// compare reads every key through every node and fails at a wrong answer, or none.
func (d *damagedCluster) compare() {
	d.t.Helper()
	for key, want := range d.want {
		for i, c := range d.clients {
			for _, level := range []client.Level{client.LevelOne, client.LevelQuorum} {
				got, err := c.Get(d.t.Context(), key, client.WithLevel(level))
				if err != nil {
					d.t.Fatalf("%s at %v through %s: %v", key, level, d.agents[i].name, err)
				}
				if len(got.Siblings) != 1 || string(got.Siblings[0].Value) != want {
					d.t.Fatalf("%s at %v through %s: %.200v, want %.60q", key, level, d.agents[i].name, got.Siblings, want)
				}
			}
		}
	}
}

// wantQuarantine looks for the containment in metrics, status and events.
func (d *damagedCluster) wantQuarantine(event string) {
	d.t.Helper()
	err := poll(20*time.Second, func() (bool, error) {
		n, err := d.victim.series("pairdb_quarantined_partitions")
		return n > 0, err
	})
	if err != nil {
		d.t.Fatalf("no partition is under quarantine: %v", err)
	}
	if happened := mustRun(d.t, "events", "--endpoint", d.victim.addr.GRPC).stdout; !strings.Contains(happened, event) {
		d.t.Errorf("no event says %q:\n%s", event, happened)
	}
	if status := mustRun(d.t, "status", "--endpoint", d.agents[0].addr.GRPC).stdout; !strings.Contains(status, "damaged") {
		d.t.Errorf("the status says nothing of it:\n%s", status)
	}
}

// keep copies the engine's folder before it is damaged.
func (d *damagedCluster) keep() {
	d.t.Helper()
	away := filepath.Join(d.victim.dir, "kept")
	if err := errors.Join(os.RemoveAll(away), os.CopyFS(away, os.DirFS(filepath.Join(d.victim.data, "data")))); err != nil {
		d.t.Fatal(err)
	}
}

// restore brings back what keep has kept: a copy that is only old.
func (d *damagedCluster) restore() {
	d.t.Helper()
	d.victim.kill()
	engine := filepath.Join(d.victim.data, "data")
	err := errors.Join(
		os.RemoveAll(engine), os.Rename(filepath.Join(d.victim.dir, "kept"), engine),
		os.Remove(filepath.Join(d.victim.data, "quarantine")),
	)
	if err != nil {
		d.t.Fatal(err)
	}
	d.victim.start()
	d.victim.waitHealthy(30 * time.Second)
}

// eachFile does something to the files that a pattern finds; there has to be one.
func eachFile(pattern string, do func(name string) error) error {
	names, err := filepath.Glob(pattern)
	if err == nil && len(names) == 0 {
		err = fmt.Errorf("there is no %s", pattern)
	}
	for _, name := range names {
		err = errors.Join(err, do(name))
	}
	return err
}

// flipMiddle flips a bit in the first half of a file, where a table has its data.
func flipMiddle(name string) error { return flipAt(name, func(n int) int { return n / 3 }) }

// flipEarly flips a bit in the first records of a log segment.
func flipEarly(name string) error { return flipAt(name, func(int) int { return 300 }) }

func flipAt(name string, at func(n int) int) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	i := at(len(b))
	_, err = f.WriteAt([]byte{b[i] ^ 4}, int64(i))
	return errors.Join(err, f.Close())
}
