package config_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/node/config"
)

var update = flag.Bool("update", false, "write configs/pairdb.yaml anew")

const reference = "../../configs/pairdb.yaml"

// TestReferenceFileIsCurrent compares the committed file with the table. Write
// it anew with go test ./node/config -update.
func TestReferenceFileIsCurrent(t *testing.T) {
	want := config.Reference()
	if *update {
		if err := os.WriteFile(reference, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("configs/pairdb.yaml is not what the table says; run: make gen")
	}
}

func TestReferenceFileSaysTheDefaults(t *testing.T) {
	got, sources, err := config.Load(config.LoadOptions{File: reference})
	if err != nil {
		t.Fatal(err)
	}
	if want := config.Defaults(); !reflect.DeepEqual(got, want) {
		t.Errorf("loading the reference file:\n got %+v\nwant %+v", got, want)
	}
	for _, s := range config.Settings() {
		if sources[s.Path].Kind != "file" {
			t.Errorf("%s is missing in the reference file", s.Path)
		}
	}
}

func TestEverySettingHasItsField(t *testing.T) {
	fields := 0
	sections := reflect.TypeFor[config.Config]()
	for i := range sections.NumField() {
		fields += sections.Field(i).Type.NumField()
	}
	if n := len(config.Settings()); n != fields {
		t.Errorf("there are %d settings and %d fields", n, fields)
	}
	paths, flags := make(map[string]bool), make(map[string]bool)
	for _, s := range config.Settings() {
		if paths[s.Path] || s.Flag != "" && flags[s.Flag] {
			t.Errorf("%s (--%s) stands twice in the table", s.Path, s.Flag)
		}
		paths[s.Path], flags[s.Flag] = true, true
		defaults := config.Defaults()
		if got := s.Value(&defaults); got != s.Default {
			t.Errorf("%s: default %q is shown as %q", s.Path, s.Default, got)
		}
		if s.Type() == "list" && s.Default != "" {
			t.Errorf("%s: a list with a default is not written to the reference file", s.Path)
		}
	}
}

func TestDefaultsAreValid(t *testing.T) {
	c := config.Defaults()
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	want := config.Timeouts{Write: 5 * time.Second, Read: 3 * time.Second, Shutdown: 15 * time.Second}
	if c.Timeouts != want {
		t.Errorf("timeouts = %+v, want %+v", c.Timeouts, want)
	}
	if c.Storage.MemtableSize != 64<<20 || c.Limits.MaxValueSize != 10<<20 {
		t.Errorf("sizes = %v, %v", c.Storage.MemtableSize, c.Limits.MaxValueSize)
	}
}

// write puts files into a fresh folder and returns it.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLaterPlaceWins(t *testing.T) {
	dir := write(t, map[string]string{
		"pairdb.yaml":         "node:\n  name: file\n  zone: file\n  data_dir: file\n  capacity: 7\n",
		"conf.d/10-a.yaml":    "node: {zone: first, data_dir: first}\n",
		"conf.d/20-b.yml":     "node: {zone: second, data_dir: second}\ncluster: {join: [a, 'b:1']}\n",
		"conf.d/README":       "no YAML: [",
		"conf.d/30-empty.yml": "# nothing\n",
	})
	file := filepath.Join(dir, "pairdb.yaml")
	got, sources, err := config.Load(config.LoadOptions{
		File:  file,
		Env:   []string{"PAIRDB_AGENT_NODE__DATA_DIR=env", "PAIRDB_AGENT_NODE__ZONE=env", "PAIRDB_TENANT=x", "HOME=/"},
		Flags: map[string]string{"node.data_dir": "flag"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := (config.Node{Name: "file", Zone: "env", DataDir: "flag", Capacity: 7}); got.Node != want {
		t.Errorf("node = %+v, want %+v", got.Node, want)
	}
	for path, want := range map[string]string{
		"node.name":          file + ":2",
		"cluster.join":       filepath.Join(dir, "conf.d/20-b.yml") + ":2",
		"node.zone":          "PAIRDB_AGENT_NODE__ZONE",
		"node.data_dir":      "--data-dir",
		"listen.bind":        "default",
		"node.capacity":      file + ":5",
		"cluster.name":       "default",
		"log.format":         "default",
		"timeouts.write":     "default",
		"storage.cache_size": "default",
	} {
		if got := sources[path].String(); got != want {
			t.Errorf("source of %s = %q, want %q", path, got, want)
		}
	}
	if seeds, want := got.Cluster.Seeds(), []string{"a:7946", "b:1"}; !reflect.DeepEqual(seeds, want) {
		t.Errorf("seeds = %q, want %q", seeds, want)
	}
}

func TestEachTypeInEachPlace(t *testing.T) {
	values := map[string]string{
		"node.name": "n1", "node.capacity": "12", "cluster.insecure": "true", "cluster.join": "a:1,[::1]:2,fe80::1,h",
		"storage.cache_size": "3MiB", "timeouts.read": "1m30s", "log.level": "warn",
	}
	var env []string
	var file, conf strings.Builder
	for _, s := range config.Settings() {
		if v, ok := values[s.Path]; ok {
			env = append(env, s.Env()+"="+v)
			section, key, _ := strings.Cut(s.Path, ".")
			if !strings.Contains(conf.String(), section+":") {
				conf.WriteString(section + ":\n")
			}
			conf.WriteString("  " + key + ": '" + v + "'\n")
		}
	}
	file.WriteString(conf.String())
	dir := write(t, map[string]string{"c.yaml": file.String()})
	for name, opts := range map[string]config.LoadOptions{
		"file":  {File: filepath.Join(dir, "c.yaml")},
		"env":   {Env: env},
		"flags": {Flags: values},
	} {
		t.Run(name, func(t *testing.T) {
			c, sources, err := config.Load(opts)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range config.Settings() {
				want, given := values[s.Path]
				if !given {
					want = s.Default
				}
				if got := s.Value(&c); got != want {
					t.Errorf("%s = %q, want %q", s.Path, got, want)
				}
				if fromDefault := sources[s.Path].Kind == "default"; fromDefault == given {
					t.Errorf("source of %s = %v", s.Path, sources[s.Path])
				}
			}
			seeds := strings.Join(c.Cluster.Seeds(), " ")
			if want := "a:1 [::1]:2 [fe80::1]:7946 h:7946"; seeds != want {
				t.Errorf("seeds = %q, want %q", seeds, want)
			}
		})
	}
}

// load loads one file's text and returns the problems, one a line, with the
// folder cut off.
func load(t *testing.T, text string) string {
	t.Helper()
	dir := write(t, map[string]string{"c.yaml": text})
	_, _, err := config.Load(config.LoadOptions{File: filepath.Join(dir, "c.yaml")})
	if err == nil {
		return ""
	}
	var bad *config.Error
	if !errors.As(err, &bad) {
		t.Fatalf("error is a %T, want a *config.Error: %v", err, err)
	}
	var lines []string
	for _, p := range bad.Problems {
		lines = append(lines, strings.ReplaceAll(p.String(), dir+"/", ""))
	}
	return strings.Join(lines, "\n")
}

func TestBadFiles(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want []string // parts of the message, each in its own line
	}{
		"unknown key":      {"node:\n  name: a\n  capcity: 3\n", []string{"node.capcity (c.yaml:3): is no setting of ours", "did you mean node.capacity?"}},
		"unknown section":  {"\nclutser:\n  name: a\n", []string{"clutser (c.yaml:2): is no section of ours", "did you mean cluster?"}},
		"unlike anything":  {"zzzzzzzzzzzz: 1\n", []string{"zzzzzzzzzzzz (c.yaml:1)", "see pairdb config defaults"}},
		"dotted key":       {"node.name: a\n", []string{"node.name (c.yaml:1): is no section of ours"}},
		"twice":            {"node:\n  name: a\n  name: b\n", []string{"node.name (c.yaml:3): stands twice"}},
		"section twice":    {"node: {}\nnode: {}\n", []string{"node (c.yaml:2): stands twice"}},
		"no value":         {"node:\n  name:\n", []string{"node.name (c.yaml:2): has no value"}},
		"not a section":    {"node: 7\n", []string{"node (c.yaml:1): is a section"}},
		"not a mapping":    {"- node\n", []string{"c.yaml (c.yaml:1): is no list of sections"}},
		"mapping as value": {"node:\n  name: {a: b}\n", []string{"node.name (c.yaml:2): is no plain value; write a string"}},
		"list as value":    {"node:\n  name: [a]\n", []string{"node.name (c.yaml:2): is no plain value"}},
		"nested list":      {"cluster:\n  join: [[a]]\n", []string{"cluster.join (c.yaml:2): has an item"}},
		"alias":            {"node:\n  name: &n a\n  zone: *n\n", []string{"node.zone (c.yaml:3): refers to another place"}},
		"no YAML":          {"node: [\n", []string{"c.yaml: is no YAML: line "}},
		"two documents":    {"node: {}\n---\nnode: {}\n", []string{"c.yaml: has more than one document"}},
		"number":           {"node: {capacity: many}", []string{`node.capacity (c.yaml:1): "many" is no whole number`}},
		"fraction":         {"node: {capacity: 1.5}", []string{`"1.5" is no whole number`}},
		"number low":       {"node: {capacity: 0}", []string{"0 is not between 1 and 10000"}},
		"capacity":         {fmt.Sprintf("node: {capacity: %d}", ring.MaxCapacity+1), []string{"10001 is not between 1 and 10000"}},
		"port":             {"listen: {http_port: 65536}", []string{"65536 is not between 0 and 65535"}},
		"bool":             {"cluster: {insecure: yes}", []string{`"yes" is neither true nor false`}},
		"duration":         {"timeouts: {read: 5}", []string{`"5" is no duration; write a number and a unit, as in 5s`}},
		"duration long":    {"timeouts: {read: 11m}", []string{"11m is not between 10ms and 10m"}},
		"duration minus":   {"timeouts: {read: -1s}", []string{"-1s is not between"}},
		"size":             {"storage: {cache_size: big}", []string{`"big" is no unit of size`}},
		"size unit":        {"storage: {cache_size: 5mib}", []string{`"mib" is no unit of size`}},
		"size minus":       {"storage: {cache_size: -5}", []string{`"-5" is no size`}},
		"size overflow":    {"storage: {cache_size: 99999999TiB}", []string{"is too large"}},
		"value size":       {"limits: {max_value_size: 11MiB}", []string{"11MiB is not between 1 and 10MiB"}},
		"choice":           {"log: {level: wran}", []string{`"wran" is none of debug, info, warn, error; did you mean warn?`}},
		"origin":           {"http: {cors_origins: ['https://a.example', 'a.example']}", []string{`http.cors_origins (c.yaml:1): "a.example" is no origin: it does not begin with http:// or https://`}},
		"every origin":     {"http: {cors_origins: ['*']}", []string{`"*" is no origin`}},
		"origins below":    {"http: {cors_origins: ['https://*.example']}", []string{`it names no host`}},
		"origin and path":  {"http: {cors_origins: ['https://a.example/']}", []string{`it has more than a host and a port`}},
		"origin in caps":   {"http: {cors_origins: ['https://A.example']}", []string{`it has capital letters`}},
		"origin's port":    {"http: {cors_origins: ['https://a.example:443']}", []string{`a browser leaves the port 443 out`}},
		"name":             {"node: {name: 'a b'}", []string{`node.name (c.yaml:1): "a b" is no name`}},
		"cluster name":     {"cluster: {name: ''}", []string{`cluster.name (c.yaml:1): "" is no name`}},
		"data dir":         {"node: {data_dir: ''}", []string{"node.data_dir (c.yaml:1): is empty"}},
		"bind":             {"listen: {bind: 10.0.0.1}", []string{"10.0.0.1 can be reached from other machines", "--insecure"}},
		"bind name":        {"listen: {bind: db1}", []string{"db1 can be reached from other machines"}},
		"bind empty":       {"listen: {bind: ''}", []string{"listen.bind (c.yaml:1): is empty"}},
		"bind with port":   {"listen: {bind: '127.0.0.1:80'}", []string{"is neither an address nor a host name"}},
		"advertise":        {"listen: {advertise: 0.0.0.0}", []string{`"0.0.0.0" is no address that others can reach`}},
		"ports":            {"listen: {peer_port: 8080}", []string{"listen.http_port: 8080 is listen.peer_port already"}},
		"both ways":        {"cluster: {bootstrap: true, bootstrap_expect: 3}", []string{"is set together with cluster.bootstrap_expect"}},
		"partitions":       {"cluster: {partitions: 1000}", []string{"1000 is no power of two"}},
		"join":             {"cluster: {join: ['a:b', 'http://x', '', 'a:0']}", []string{`"a:b" is neither`, `"http://x" is neither`, `"a:0" is neither`}},
		"many seeds":       {"cluster: {join: [" + strings.Repeat("a,", 101) + "]}", []string{"has 101 addresses"}},
		"probe":            {"gossip: {probe_timeout: 2s}", []string{"2s is longer than gossip.probe_interval, 1s"}},
		"settle":           {"repair: {settle: 5s}", []string{"5s is not longer than timeouts.write, 5s"}},
		"several": {"node:\n  capacity: 0\nlog:\n  levle: x\ncluster:\n  partitions: 17\n", []string{
			"node.capacity (c.yaml:2)", "log.levle (c.yaml:4)", "cluster.partitions (c.yaml:6): 17 is no power",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got := load(t, tc.text)
			rest := got
			for _, want := range tc.want {
				_, after, ok := strings.Cut(rest, want)
				if !ok {
					t.Fatalf("problems:\n%s\nlack %q (or not in this order)", got, want)
				}
				rest = after
			}
		})
	}
}

func TestGoodFiles(t *testing.T) {
	for _, text := range []string{
		"", "# nothing\n", "node:\n", "---\nnode: {}\n", "cluster: {join: []}\n", "cluster: {join: ''}\n",
		"listen: {bind: localhost}", "listen: {bind: '::1'}", "listen: {bind: 127.8.8.8}",
		"listen: {bind: 10.0.0.1}\ncluster: {insecure: true}", "listen: {bind: '::'}\ncluster: {insecure: true}",
		"listen: {bind: 0.0.0.0, advertise: db1.example.org}\ncluster: {insecure: true}",
		"listen: {grpc_port: 0, peer_port: 0, http_port: 0, gossip_port: 0}",
		"cluster: {bootstrap: true, join: [a]}", "storage: {cache_size: 0, bloom_bits_per_key: 0}",
	} {
		if got := load(t, text); got != "" {
			t.Errorf("%q: %s", text, got)
		}
	}
}

func TestUnknownVariableAndFlag(t *testing.T) {
	_, _, err := config.Load(config.LoadOptions{
		Env:   []string{"PAIRDB_AGENT_NODE__NAM=x"},
		Flags: map[string]string{"node.nmae": "x"},
	})
	for _, want := range []string{
		"2 problems", "PAIRDB_AGENT_NODE__NAM (environment): is no variable of ours", "did you mean PAIRDB_AGENT_NODE__NAME?",
		"node.nmae (--set): is no setting of ours", "did you mean node.name?",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error = %v\nlacks %q", err, want)
		}
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	dir := write(t, map[string]string{"large.yaml": strings.Repeat("# pad\n", 1<<18), "file": ""})
	for _, opts := range []config.LoadOptions{
		{File: filepath.Join(dir, "absent.yaml")},
		{File: dir},
		{File: filepath.Join(dir, "large.yaml")},
		{ConfDir: filepath.Join(dir, "file")},
	} {
		if _, _, err := config.Load(opts); err == nil {
			t.Errorf("%+v was read", opts)
		}
	}
	if _, _, err := config.Load(config.LoadOptions{ConfDir: filepath.Join(dir, "absent")}); err != nil {
		t.Errorf("conf.d need not exist: %v", err)
	}
}

func TestValidateChecksWhatCodeMade(t *testing.T) {
	for name, change := range map[string]func(*config.Config){
		"number":   func(c *config.Config) { c.Node.Capacity = -1 },
		"size":     func(c *config.Config) { c.Storage.BlockSize = 1 },
		"duration": func(c *config.Config) { c.Timeouts.Write = 0 },
		"choice":   func(c *config.Config) { c.Log.Format = "xml" },
	} {
		c := config.Defaults()
		change(&c)
		if c.Validate() == nil {
			t.Errorf("%s: not seen", name)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(config.Reference(), "PAIRDB_AGENT_NODE__NAME=x")
	f.Add([]byte("node:\n  name: &a [*a]\n"), "PAIRDB_AGENT_=")
	f.Add([]byte("a: !!binary x\n? [b]\n: c\n<<: *d\n"), "=")
	f.Add([]byte("--- \n...\n"), "")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte, env string) {
		file := filepath.Join(dir, "c.yaml")
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
		c, _, err := config.Load(config.LoadOptions{File: file, Env: []string{env}})
		if err != nil {
			return
		}
		if err := c.Validate(); err != nil {
			t.Errorf("loaded without a problem, but: %v", err)
		}
	})
}
