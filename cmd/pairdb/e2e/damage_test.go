package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
	// older are the values before want, since one that all owners have: a read at ONE
	// may meet an owner that has not got the newest yet.
	older map[string][]string
	round int
}

// quickHealing has a cluster heal within seconds: writes end sooner, so that less time
// is waited for them.
var quickHealing = []string{"--set", "cluster.partitions=64", "--set", "timeouts.write=1s", "--set", "repair.settle=2s"}

func startDamaged(t *testing.T, extra ...string) *damagedCluster {
	d := &damagedCluster{cluster: startCluster(t, 3, append(extra, quickHealing...)...), t: t, want: map[string]string{}, older: map[string][]string{}}
	d.victim = d.agents[2]
	for i := range d.agents {
		d.clients = append(d.clients, d.client(i))
	}
	return d
}

func (d *damagedCluster) file(name ...string) string {
	return filepath.Join(append([]string{d.victim.data}, name...)...)
}

// TestDamagedFiles kills a node, damages its files and starts it again. Whatever was
// damaged, nobody is given a wrong answer, the damage is seen and contained, and what is
// lost is fetched again from the others.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	d := startDamaged(t)
	flushed := func() {
		mustRun(d.t, "flush", "--endpoint", d.victim.addr.GRPC)
	}
	for _, c := range []struct {
		what string
		// prepare runs before the node is killed, damage afterwards.
		prepare func()
		damage  func() error
		event   string
	}{
		// What the node reads when it opens meets this, or else a client does.
		{"a bit of each table flipped", flushed, func() error {
			return eachFile(d.file("data", "*.sst"), flipMiddle)
		}, "its partitions are not served from here"},
		{"tables removed", flushed, func() error {
			return eachFile(d.file("data", "*.sst"), os.Remove)
		}, "a table is missing or damaged"},
		{"tables cut", flushed, func() error {
			return eachFile(d.file("data", "*.sst"), func(name string) error { return os.Truncate(name, 200) })
		}, "a table is missing or damaged"},
		{"the manifest cut", flushed, func() error {
			return eachFile(d.file("data", "MANIFEST-*"), func(name string) error { return os.Truncate(name, 40) })
		}, "the engine's files are damaged or gone"},
		{"a bit of the log flipped", nil, func() error {
			return eachFile(d.file("data", "wal", "*.wal"), flipEarly)
		}, "the engine's files are damaged or gone"},
		{"the engine's folder gone", flushed, func() error {
			return os.Rename(d.file("data"), d.file("data.taken"))
		}, "the engine's files are damaged or gone"},
		{"a bit of the metadata flipped", nil, func() error {
			return eachFile(d.file("meta", "*.mem"), flipEarly)
		}, ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			d.t = t
			d.write(client.LevelAll)
			if c.prepare != nil {
				c.prepare()
			}
			d.victim.kill()
			if err := c.damage(); err != nil {
				t.Fatal(err)
			}
			d.victim.start()
			d.victim.waitHealthy(30 * time.Second)
			d.reach()
			d.compare()
			d.write(client.LevelQuorum) // the damaged node takes part as a door
			d.compare()
			if c.event != "" {
				d.wantHealed(c.event)
			}
			d.write(client.LevelAll) // it votes and counts again
			d.compare()
		})
	}
}

// TestDamagedWhileRunning damages tables of a node that runs: whoever meets it first,
// nobody is given a wrong answer, and it is healed without a restart.
func TestDamagedWhileRunning(t *testing.T) {
	t.Parallel()
	// Blocks in a cache would hide it from reads.
	d := startDamaged(t, "--set", "storage.cache_size=0")
	for _, c := range []struct {
		what   string
		damage func(name string) error
		meet   func()
	}{
		{"a bit of each table flipped", flipMiddle, func() {}},
		{"tables removed", os.Remove, func() {
			mustRunOrDamaged(d.t, "verify", "--cluster", "--endpoint", d.agents[0].addr.GRPC)
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			d.t = t
			before, err := d.victim.series("pairdb_engine_quarantined_tables_total")
			if err != nil {
				t.Fatal(err)
			}
			d.write(client.LevelAll)
			mustRun(t, "flush", "--endpoint", d.victim.addr.GRPC)
			if err := eachFile(d.file("data", "*.sst"), c.damage); err != nil {
				t.Fatal(err)
			}
			c.meet()
			d.compare()
			d.wantHealed("data on this node's disk is damaged")
			after, err := d.victim.series("pairdb_engine_quarantined_tables_total")
			if err != nil || after <= before {
				t.Errorf("%v tables were taken out before, %v after: %v", before, after, err)
			}
			d.write(client.LevelAll)
			d.compare()
		})
	}
}

// mustRunOrDamaged runs a command that finds damage, unless the node has met it first
// and is fetching what it lost.
func mustRunOrDamaged(t *testing.T, args ...string) {
	t.Helper()
	if r := run(t, nil, args...); r.code != 1 && (r.code != 0 || !strings.Contains(r.stdout, "but for what is being fetched")) {
		t.Errorf("pairdb %s found no damage: exit %d: %s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
}

// write gives every key a new value, through each node in turn.
func (d *damagedCluster) write(level client.Level) {
	d.t.Helper()
	d.round++
	for i := range damageKeys {
		key, value := fmt.Sprint("key", i), fmt.Sprintf("value %d of round %d %s", i, d.round, strings.Repeat("x", i))
		// A node that has just come back may not be known to all others yet, and a
		// partition that it could not fetch for that is tried again after half a minute.
		err := poll(time.Minute, func() (bool, error) {
			_, err := d.clients[i%len(d.clients)].Put(d.t.Context(), key, []byte(value), client.WithLevel(level))
			return err == nil, nil
		})
		if err != nil {
			d.t.Fatalf("write %s at %v through client %d: %v", key, level, i%len(d.clients), err)
		}
		if level == client.LevelAll {
			d.older[key] = nil
		} else {
			d.older[key] = append(d.older[key], d.want[key])
		}
		d.want[key] = value
	}
}

// reach waits until a quorum without the damaged node is reached from each: one that has
// started is healthy before it has connections to the others.
func (d *damagedCluster) reach() {
	d.t.Helper()
	for i, c := range d.clients {
		var last error
		err := poll(30*time.Second, func() (bool, error) {
			_, last = c.Get(d.t.Context(), "key0", client.WithLevel(client.LevelQuorum))
			return last == nil, nil
		})
		if err != nil {
			d.t.Fatalf("client %d reaches no quorum: %v: %v", i, err, last)
		}
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
					d.t.Fatalf("%s at %v through client %d: %v", key, level, i, err)
				}
				if len(got.Siblings) != 1 {
					d.t.Fatalf("%s at %v through client %d: %d values, want %.60q", key, level, i, len(got.Siblings), want)
				}
				value := string(got.Siblings[0].Value)
				if value != want && (level != client.LevelOne || !slices.Contains(d.older[key], value)) {
					d.t.Fatalf("%s at %v through client %d: %.60q, want %.60q", key, level, i, value, want)
				}
			}
		}
	}
}

// wantHealed waits until the damage was contained and the node has fetched again what
// it lost.
func (d *damagedCluster) wantHealed(event string) {
	d.t.Helper()
	began := time.Now()
	err := poll(20*time.Second, func() (bool, error) {
		return strings.Contains(mustRun(d.t, "events", "--endpoint", d.victim.addr.GRPC).stdout, event), nil
	})
	if err != nil {
		d.t.Fatalf("no event says %q: %v", event, err)
	}
	err = poll(2*time.Minute, func() (bool, error) {
		n, err := d.victim.series("pairdb_quarantined_partitions")
		return n == 0, err
	})
	if err != nil {
		d.t.Fatalf("the damage is not healed: %v\n%s", err, mustRun(d.t, "events", "--endpoint", d.victim.addr.GRPC).stdout)
	}
	d.t.Logf("healed %.1f s after it was met", time.Since(began).Seconds())
	d.victim.waitHealthy(10 * time.Second)
	d.compare()
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

// TestDamagedHints flips bits in the hints that a running node keeps for one that is
// away. Hints only save time: the node goes on, also after a restart, and the other one
// gets what it missed.
func TestDamagedHints(t *testing.T) {
	t.Parallel()
	d := startDamaged(t)
	d.write(client.LevelAll)
	away := d.agents[0]
	away.kill()
	d.clients = d.clients[1:]
	d.write(client.LevelQuorum)
	err := poll(30*time.Second, func() (bool, error) {
		n, err := d.victim.series("pairdb_hints_backlog")
		return n > 0, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := eachFile(d.file("hints", "*", "*.mem"), flipEarly); err != nil {
		t.Fatal(err)
	}
	d.write(client.LevelQuorum)
	d.compare()
	d.victim.kill()
	d.victim.start()
	d.victim.waitHealthy(30 * time.Second)
	d.write(client.LevelQuorum)
	away.start()
	away.waitHealthy(30 * time.Second)
	own, err := client.New(client.Options{Endpoints: []string{away.addr.GRPC}, NoRouting: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := own.Close(); err != nil {
			t.Error(err)
		}
	}()
	missing := ""
	// A round that began before all had met is made again half a minute later.
	err = poll(2*time.Minute, func() (bool, error) {
		for key, want := range d.want {
			got, err := own.Get(t.Context(), key, client.WithLevel(client.LevelOne))
			if err != nil || len(got.Siblings) != 1 || string(got.Siblings[0].Value) != want {
				missing = key
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		t.Fatalf("the node that was away lacks %s: %v", missing, err)
	}
	d.victim.waitHealthy(10 * time.Second)
}
