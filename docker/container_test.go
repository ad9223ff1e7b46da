package docker

import (
	"bufio"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// container is what the engine says of one.
type container struct {
	ID           string
	RestartCount int
	State        struct {
		Status    string
		ExitCode  int
		OOMKilled bool
		Pid       int
		StartedAt string
		Health    struct{ Status string }
	}
	Config struct {
		Cmd         []string
		StopTimeout int // seconds
	}
	HostConfig struct {
		Memory               int64
		ReadonlyRootfs       bool
		CapDrop, SecurityOpt []string
		RestartPolicy        struct{ Name string }
	}
	NetworkSettings struct {
		Networks map[string]struct{ IPAddress string }
		Ports    map[string][]struct{ HostIp, HostPort string }
	}
}

// inspect asks the engine about containers.
func inspect(ids ...string) ([]container, error) {
	out, err := shared.run("docker", append([]string{"inspect"}, ids...)...)
	if err != nil {
		return nil, err
	}
	var all []container
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return nil, fmt.Errorf("docker inspect: %w", err)
	}
	if len(all) != len(ids) {
		return nil, fmt.Errorf("docker inspect tells of %d containers, want %d", len(all), len(ids))
	}
	return all, nil
}

// address of a container on the cluster's network, empty if it is cut off.
func (c *container) address() string {
	return c.NetworkSettings.Networks[shared.project+"_default"].IPAddress
}

// published is where this machine reaches a port of a container.
func (c *container) published(port string) (string, error) {
	p := c.NetworkSettings.Ports[port]
	if len(p) != 1 {
		return "", fmt.Errorf("port %s is published %d times", port, len(p))
	}
	return p[0].HostIp + ":" + p[0].HostPort, nil
}

// logs are what a container said since then. The engine notes the time of a start
// when the first lines are there already, so that one is no help.
func (c *container) logs(t *testing.T, since time.Time) string {
	t.Helper()
	cmd := shared.command("docker", "logs", "--since", since.Format(time.RFC3339Nano), c.ID)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("logs of %s: %v\n%s", c.ID, err, out)
	}
	return string(out)
}

// recovered is how many keys a node replayed from its log in the starts since
// then, and what of its messages is an error.
func (c *container) recovered(t *testing.T, since time.Time) (keys int, errors []string) {
	t.Helper()
	lines := bufio.NewScanner(strings.NewReader(c.logs(t, since)))
	for lines.Scan() {
		var l struct {
			Level, Msg string
			Keys       int
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Fatalf("log line %q: %v", lines.Text(), err)
		}
		if l.Msg == "engine recovered its log" {
			keys += l.Keys
		}
		if l.Level == "ERROR" {
			errors = append(errors, lines.Text())
		}
	}
	return keys, errors
}

// node gives the container of a service of the cluster, running or not.
func node(t *testing.T, service string) *container {
	t.Helper()
	id := must(t, "docker", "ps", "-aq", "--no-trunc", "--filter", "label=com.docker.compose.project="+shared.project,
		"--filter", "label=com.docker.compose.service="+service)
	all, err := inspect(strings.Fields(id)...)
	if err != nil || len(all) != 1 {
		t.Fatalf("container of %s: %v, %v", service, id, err)
	}
	return &all[0]
}

func nodes(t *testing.T) []*container {
	t.Helper()
	return []*container{node(t, "pairdb-1"), node(t, "pairdb-2"), node(t, "pairdb-3")}
}

// waitHealthy waits until the engine calls containers healthy.
func waitHealthy(t *testing.T, limit time.Duration, which ...*container) {
	t.Helper()
	var ids []string
	for _, c := range which {
		ids = append(ids, c.ID)
	}
	poll(t, limit, "all healthy", func() (bool, error) {
		all, err := inspect(ids...)
		if err != nil {
			return false, err
		}
		for _, c := range all {
			if c.State.Status != "running" || c.State.Health.Status != "healthy" {
				return false, fmt.Errorf("%s is %s and %s", c.ID[:12], c.State.Status, c.State.Health.Status)
			}
		}
		return true, nil
	})
}
