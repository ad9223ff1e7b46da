package docker

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

const (
	// healthyWithin is what a start may take until all nodes are healthy.
	healthyWithin = 60 * time.Second
	// caughtUpWithin is what a mended network may take until a node that was cut
	// off serves QUORUM again: a lost peer is tried each 15 s.
	caughtUpWithin = 60 * time.Second
	// changedWithin is what a change of the ring may take with little data.
	changedWithin = 3 * time.Minute
)

// The README's commands that are used more than once.
const (
	up           = "docker-compose up -d"
	disconnect3  = `docker network disconnect ${COMPOSE_PROJECT_NAME}_default "$(docker-compose ps -q pairdb-3)"`
	connect3     = `docker network connect --alias pairdb-3 ${COMPOSE_PROJECT_NAME}_default "$(docker-compose ps -q pairdb-3)"`
	imageCommand = "go run ./tools/image"
)

// TestCompose walks the life of the cluster of compose.yaml with the commands
// that the README shows, and no others where it shows one. Each part goes on
// from where the last left off.
func TestCompose(t *testing.T) {
	r := readReadme(t)
	d := &data{}
	for _, part := range []struct {
		name string
		run  func(*testing.T, *readme, *data)
	}{
		{"Image", image},
		{"Up", firstUp},
		{"Kill", kill},
		{"Cut", cut},
		{"Moved", movedAddress},
		{"StopStart", stopStart},
		{"DownUp", downUp},
		{"Grow", grow},
		{"DownVolumes", downVolumes},
	} {
		begin := time.Now()
		if !t.Run(part.name, func(t *testing.T) { part.run(t, r, d) }) {
			t.FailNow()
		}
		t.Logf("%s took %s", part.name, time.Since(begin).Round(100*time.Millisecond))
	}
	r.finish()
}

func image(t *testing.T, r *readme, _ *data) {
	r.run(t, imageCommand)
	r.run(t, "mkdir -p -m 700 docker/secrets")
	r.run(t, "[ -e docker/secrets/gossip.key ] || docker run --rm $PAIRDB_IMAGE keygen --gossip > docker/secrets/gossip.key")
	r.run(t, "chmod 644 docker/secrets/gossip.key")

	var images []struct {
		Config struct {
			User   string
			Labels map[string]string
		}
		RootFS struct{ Layers []string }
	}
	if err := json.Unmarshal([]byte(must(t, "docker", "image", "inspect", shared.image)), &images); err != nil || len(images) != 1 {
		t.Fatalf("inspect image: %v", err)
	}
	var v struct{ Version, Commit string }
	if err := json.Unmarshal([]byte(must(t, "docker", "run", "--rm", shared.image, "version", "-o", "json")), &v); err != nil {
		t.Fatal(err)
	}
	const label = "org.opencontainers.image."
	c := images[0].Config
	if c.Labels[label+"version"] != v.Version || c.Labels[label+"revision"] != cmp.Or(v.Commit, "unknown") || v.Version == "" {
		t.Errorf("labels %v, while the binary is %+v", c.Labels, v)
	}
	if at, err := time.Parse(time.RFC3339, c.Labels[label+"created"]); err != nil || time.Since(at) > time.Hour {
		t.Errorf("created: %v, %v", at, err)
	}
	// The binary and the data folder, on nothing.
	if c.User != "65534:65534" || len(images[0].RootFS.Layers) != 2 {
		t.Errorf("user %q, %d layers", c.User, len(images[0].RootFS.Layers))
	}
}

func firstUp(t *testing.T, r *readme, d *data) {
	begin := time.Now()
	r.run(t, up)
	waitHealthy(t, healthyWithin-time.Since(begin), nodes(t)...)
	t.Logf("%s: all healthy after %s", up, time.Since(begin).Round(100*time.Millisecond))

	all := nodes(t)
	for _, c := range all {
		if !slices.Equal(c.Config.Cmd, all[0].Config.Cmd) {
			t.Errorf("the nodes are configured unlike: %q and %q", c.Config.Cmd, all[0].Config.Cmd)
		}
		h := c.HostConfig
		if !h.ReadonlyRootfs || !slices.Equal(h.CapDrop, []string{"ALL"}) || !slices.Contains(h.SecurityOpt, "no-new-privileges:true") ||
			h.RestartPolicy.Name != "unless-stopped" || c.Config.StopTimeout != 30 {
			t.Errorf("not hardened as compose.yaml says: %+v, stop timeout %d s", h, c.Config.StopTimeout)
		}
		for port, at := range c.NetworkSettings.Ports {
			for _, p := range at {
				if p.HostIp != "127.0.0.1" {
					t.Errorf("port %s is published on %s", port, p.HostIp)
				}
			}
		}
		for _, port := range []string{"7946/tcp", "7946/udp"} {
			if at, ok := c.NetworkSettings.Ports[port]; !ok || len(at) > 0 {
				t.Errorf("port %s: exposed %t, published %v", port, ok, at)
			}
		}
		if !strings.Contains(c.logs(t, begin), `"gossip_encrypted":true`) {
			t.Error("gossip is not encrypted")
		}
	}
	r.run(t, "docker-compose ps")
	r.run(t, "docker-compose run --rm cli put greeting hello")
	if got := r.run(t, "docker-compose exec -T pairdb-2 /pairdb get greeting"); got != "hello" {
		t.Errorf("read %q through another container", got)
	}
	d.write(t, all[0], 2000)
	d.compare(t, all[1], client.LevelQuorum)
	t.Logf("%d keys written through pairdb-1 and compared through pairdb-2", d.n)
}

func kill(t *testing.T, r *readme, d *data) {
	r.run(t, `docker kill "$(docker-compose ps -q pairdb-3)"`)
	one, two, three := node(t, "pairdb-1"), node(t, "pairdb-2"), node(t, "pairdb-3")
	if three.State.Status != "exited" || three.State.ExitCode != 137 {
		t.Fatalf("a killed container is %s with %d", three.State.Status, three.State.ExitCode)
	}
	d.write(t, one, 300)
	d.compare(t, two, client.LevelQuorum)

	begin := time.Now()
	r.run(t, "docker-compose start pairdb-3")
	waitHealthy(t, healthyWithin, three)
	took := time.Since(begin)
	three = node(t, "pairdb-3")
	replayed, bad := three.recovered(t, begin)
	if replayed == 0 || len(bad) > 0 {
		t.Errorf("after a kill %d keys were recovered from the log; errors: %q", replayed, bad)
	}
	d.compare(t, three, client.LevelQuorum)
	// Before a read at ALL answers, this node's own copy has what was written while
	// it was dead; one at QUORUM may have been answered by the others.
	d.awaitAll(t)
	d.compare(t, three, client.LevelAll)
	d.compare(t, three, client.LevelOne)
	t.Logf("300 keys written at QUORUM while one of three was dead; healthy %s after its start, %d keys recovered from its log, all %d compared through it",
		took.Round(100*time.Millisecond), replayed, d.n)
}

func cut(t *testing.T, r *readme, d *data) {
	one, two, before := node(t, "pairdb-1"), node(t, "pairdb-2"), node(t, "pairdb-3")
	r.run(t, disconnect3)
	d.write(t, one, 300)
	d.compare(t, two, client.LevelQuorum)
	_, err := shared.run("docker-compose", "exec", "-T", "pairdb-3", "/pairdb", "get", key(0))
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != errcode.ExitConsistency && exit.ExitCode() != errcode.ExitTimeout {
		t.Errorf("a read at QUORUM through the node that is cut off: %v", err)
	}
	r.run(t, connect3)
	took := d.awaitCaughtUp(t, "pairdb-3")
	three := node(t, "pairdb-3")
	d.compare(t, three, client.LevelQuorum)
	if three.State.StartedAt != before.State.StartedAt {
		t.Logf("the node was started again: %s and then %s", before.address(), three.address())
	}
	t.Logf("300 keys written at QUORUM while one of three was cut off; it serves QUORUM %s after the cut was mended, all %d compared through it",
		took.Round(100*time.Millisecond), d.n)
}

// awaitCaughtUp waits until a node serves the key written last.
func (d *data) awaitCaughtUp(t *testing.T, service string) time.Duration {
	t.Helper()
	return poll(t, caughtUpWithin, service+" serves QUORUM", func() (bool, error) {
		c := node(t, service)
		at, err := c.published("50051/tcp")
		if err != nil {
			return false, err
		}
		cl, err := client.New(client.Options{Endpoints: []string{at}, NoRouting: true, Timeout: 2 * time.Second})
		if err != nil {
			return false, err
		}
		res, err := cl.Get(shared.ctx, key(d.n-1), client.WithLevel(client.LevelQuorum))
		if err = errors.Join(err, cl.Close()); err != nil {
			return false, err
		}
		if got := string(res.Siblings[0].Value); got != value(d.n-1) {
			return false, fmt.Errorf("it holds %.40q", got)
		}
		return true, nil
	})
}

// movedAddress cuts a node off again, and has another container take its address
// meanwhile.
func movedAddress(t *testing.T, r *readme, d *data) {
	network := shared.project + "_default"
	before := node(t, "pairdb-3")
	r.run(t, disconnect3)
	other := must(t, "docker", "run", "-d", "--network", network, shared.image, "agent", "--bootstrap")
	d.write(t, node(t, "pairdb-1"), 100)
	r.run(t, connect3)
	if now := node(t, "pairdb-3").address(); now == before.address() {
		t.Fatalf("the engine gave the node its old address %s, although another container was to have it", now)
	}
	begin := time.Now()
	poll(t, caughtUpWithin, "the node is started again", func() (bool, error) {
		return node(t, "pairdb-3").RestartCount > before.RestartCount, nil
	})
	d.awaitCaughtUp(t, "pairdb-3")
	three := node(t, "pairdb-3")
	d.compare(t, three, client.LevelQuorum)
	must(t, "docker", "rm", "-fv", other)
	t.Logf("cut off at %s and mended at %s, the node serves QUORUM after %s and a start of its own", before.address(), three.address(), time.Since(begin).Round(100*time.Millisecond))
	d.awaitAll(t)
}

// awaitAll waits until a write through each of the three nodes reaches all of them:
// one that has just started is healthy before it is connected to the others.
func (d *data) awaitAll(t *testing.T) {
	t.Helper()
	for _, c := range nodes(t) {
		cl := dial(t, c, "")
		poll(t, caughtUpWithin, "a write at ALL", func() (bool, error) {
			_, err := cl.Put(shared.ctx, "all", []byte("here"), client.WithLevel(client.LevelAll))
			return err == nil, err
		})
	}
}

func stopStart(t *testing.T, r *readme, d *data) {
	d.write(t, node(t, "pairdb-2"), 300)
	begin := time.Now()
	r.run(t, "docker-compose stop")
	took := time.Since(begin)
	for _, c := range nodes(t) {
		if c.State.Status != "exited" || c.State.ExitCode != 0 {
			t.Errorf("after docker-compose stop a node is %s with %d:\n%s", c.State.Status, c.State.ExitCode, c.logs(t, begin))
		}
		if _, bad := c.recovered(t, begin); len(bad) > 0 {
			t.Errorf("errors in the log: %q", bad)
		}
		if log := c.logs(t, begin); !strings.Contains(log, `"msg":"stopped"`) {
			t.Errorf("a node does not say that it stopped in order:\n%s", log)
		}
		if grace := time.Duration(c.Config.StopTimeout) * time.Second; took >= grace {
			t.Errorf("docker-compose stop took %s, more than the grace period of %s", took, grace)
		}
	}
	begin = time.Now()
	r.run(t, "docker-compose start")
	waitHealthy(t, healthyWithin, nodes(t)...)
	healthy := time.Since(begin)
	for _, c := range nodes(t) {
		if replayed, bad := c.recovered(t, begin); replayed != 0 || len(bad) > 0 {
			t.Errorf("after a clean stop %d keys were recovered from the log; errors: %q", replayed, bad)
		}
	}
	d.awaitAll(t)
	d.compare(t, node(t, "pairdb-3"), client.LevelAll)
	t.Logf("stopped in %s, all exit codes 0; all healthy %s after the start with nothing to recover; all %d compared", took.Round(100*time.Millisecond), healthy.Round(100*time.Millisecond), d.n)
}

func downUp(t *testing.T, r *readme, d *data) {
	before := nodes(t)
	subnet := must(t, "docker", "network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", shared.project+"_default")
	r.run(t, "docker-compose down")
	// Nobody gets the address that it had.
	other := must(t, "docker", "network", "create", "--subnet", subnet, shared.project+"-other")
	t.Cleanup(func() { must(t, "docker", "network", "rm", other) })
	begin := time.Now()
	r.run(t, up)
	waitHealthy(t, healthyWithin-time.Since(begin), nodes(t)...)
	healthy := time.Since(begin)
	after := nodes(t)
	for i, c := range after {
		if c.ID == before[i].ID || c.address() == before[i].address() {
			t.Fatalf("container %.12s at %s came back", c.ID, c.address())
		}
	}
	d.awaitAll(t)
	for _, c := range after {
		d.compare(t, c, client.LevelQuorum)
	}
	t.Logf("down and up: all healthy after %s at other addresses, as %s in place of %s; all %d compared through each node",
		healthy.Round(100*time.Millisecond), after[0].address(), before[0].address(), d.n)
}

// grow has two more nodes join under writes, and leave again.
func grow(t *testing.T, r *readme, d *data) {
	one := node(t, "pairdb-1")
	begin := time.Now()
	r.run(t, "docker-compose up -d pairdb-4 pairdb-5")
	d.write(t, one, 300)
	awaitNodes(t, one, 5)
	joined := time.Since(begin)
	r.run(t, "docker-compose exec -T pairdb-1 /pairdb transfers")
	five := node(t, "pairdb-5")
	waitHealthy(t, healthyWithin, node(t, "pairdb-4"), five)
	d.compare(t, five, client.LevelQuorum)
	d.write(t, five, 300)

	begin = time.Now()
	r.run(t, "docker-compose exec -T pairdb-1 /pairdb node decommission pairdb-4 --yes")
	d.write(t, node(t, "pairdb-2"), 300)
	r.run(t, "docker-compose exec -T pairdb-1 /pairdb node decommission pairdb-5 --yes --wait")
	awaitNodes(t, one, 3)
	r.run(t, "docker-compose rm -sf pairdb-4 pairdb-5")
	d.awaitAll(t)
	d.compare(t, node(t, "pairdb-3"), client.LevelAll)
	t.Logf("three containers have become five in %s, and three again in %s; all %d compared", joined.Round(100*time.Millisecond), time.Since(begin).Round(100*time.Millisecond), d.n)
}

// awaitNodes waits until a node sees so many owners, and nothing moves.
func awaitNodes(t *testing.T, at *container, n int) {
	t.Helper()
	cl := dial(t, at, "")
	poll(t, changedWithin, fmt.Sprintf("a ring of %d nodes", n), func() (bool, error) {
		st, err := cl.Status(shared.ctx)
		if err != nil {
			return false, err
		}
		owners := 0
		for _, node := range st.GetNodes() {
			if node.GetPartitions() > 0 {
				owners++
			}
		}
		if owners != n || len(st.GetNodes()) != n || st.GetRing().GetChanging() || st.GetRing().GetOpenIntents() > 0 {
			return false, fmt.Errorf("%d of %d nodes own something, ring %v", owners, len(st.GetNodes()), st.GetRing())
		}
		return true, nil
	})
}

func downVolumes(t *testing.T, r *readme, _ *data) {
	list := []string{"volume", "ls", "-q", "--filter", "label=com.docker.compose.project=" + shared.project}
	if got := strings.Fields(must(t, "docker", list...)); len(got) != 5 {
		t.Errorf("volumes %q, want 5", got)
	}
	r.run(t, "docker-compose down --volumes")
	if got := must(t, "docker", list...); got != "" {
		t.Errorf("volumes are left: %s", got)
	}
}
