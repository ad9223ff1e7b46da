package config_test

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/pairdb/pairdb/node/config"
)

func parse(t *testing.T, args ...string) (config.LoadOptions, error) {
	t.Helper()
	fs := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	config.RegisterFlags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return config.FlagOptions(fs)
}

func TestFlags(t *testing.T) {
	opts, err := parse(t, "--data-dir", "/d", "--insecure", "--join", "a:1,b:2", "--join=c", "--grpc-port=0",
		"--set", "timeouts.read=1s", "--set", "cluster.insecure=true", "--config", "")
	if err != nil {
		t.Fatal(err)
	}
	c, sources, err := config.Load(opts)
	if err != nil {
		t.Fatal(err)
	}
	if c.Node.DataDir != "/d" || !c.Cluster.Insecure || c.Listen.GRPCPort != 0 || c.Timeouts.Read.String() != "1s" {
		t.Errorf("loaded %+v", c)
	}
	if got := strings.Join(c.Cluster.Join, " "); got != "a:1 b:2 c" {
		t.Errorf("join = %q", got)
	}
	if sources["timeouts.read"].Where != "--set timeouts.read" || sources["listen.http_port"].Kind != "default" {
		t.Errorf("sources = %v", sources)
	}
}

func TestFlagProblems(t *testing.T) {
	for _, args := range [][]string{
		{"--set", "node.name"},
		{"--set", "node.name=a", "--name", "b"},
		{"--set", "node.name=a", "--set", "node.name=b"},
	} {
		if opts, err := parse(t, args...); err == nil {
			t.Errorf("%q gave %+v", args, opts)
		}
	}
	opts, err := parse(t, "--capacity=x")
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = config.Load(opts)
	if err == nil || !strings.Contains(err.Error(), `node.capacity (--capacity): "x" is no whole number`) {
		t.Errorf("error = %v", err)
	}
}

// TestDocumentedFlagsExist holds the flags against the list that scripts rely on.
func TestDocumentedFlagsExist(t *testing.T) {
	fs := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	config.RegisterFlags(fs)
	for name := range strings.FieldsSeq(`data-dir name bind advertise grpc-port peer-port http-port gossip-port bootstrap
		bootstrap-expect join zone capacity insecure cluster-name gossip-key-file config set addr-file log-level log-format`) {
		if f := fs.Lookup(name); f == nil || f.Usage == "" {
			t.Errorf("--%s is missing or has no help", name)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"status", "members", "ring", "tenant", "put"}
	for name, want := range map[string]string{
		"statsu": "status", "member": "members", "rng": "ring", "tennant": "tenant", "pt": "put",
		"zzz": "", "": "", "status": "status", "xy": "", "gnir": "", strings.Repeat("s", 10_000): "",
	} {
		if got := config.Nearest(name, names); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]config.Size{
		"0": 0, "4096": 4096, "1B": 1, "1kB": 1000, "64KiB": 64 << 10, "10 MB": 10_000_000, "3GiB": 3 << 30, "2TiB": 2 << 40,
	} {
		if got, err := config.ParseSize(text); got != want || err != nil {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "MiB", "1.5MiB", "-1", "1 2", "1KB", "9223372036854775808", "8388608TiB"} {
		if got, err := config.ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d", text, got)
		}
	}
	for size, want := range map[config.Size]string{0: "0", 1: "1", 1024: "1KiB", 1536: "1536", 3 << 30: "3GiB", 4 << 40: "4TiB"} {
		if got := size.String(); got != want {
			t.Errorf("Size(%d) is written %q, want %q", int64(size), got, want)
		}
	}
}
