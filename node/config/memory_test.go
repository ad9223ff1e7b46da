package config_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/node/config"
)

// TestDefaultsFitTheMemory: what nobody has set is bounded by the memory there
// is; what somebody has set is not.
func TestDefaultsFitTheMemory(t *testing.T) {
	const mib = 1 << 20
	for _, tc := range []struct {
		memory          int64
		flags           map[string]string
		memtable, cache config.Size
		bounded         string // sources that say so
	}{
		{0, nil, 64 * mib, 256 * mib, ""},
		{64 << 30, nil, 64 * mib, 256 * mib, ""},
		{1 << 30, nil, 64 * mib, 256 * mib, ""},
		{1<<30 - 1, nil, 63 * mib, 255 * mib, "memtable cache"},
		{460*mib + 7, nil, 28 * mib, 115 * mib, "memtable cache"},
		{100 * mib, nil, 16 * mib, 25 * mib, "memtable cache"},
		{1, nil, 16 * mib, 0, "memtable cache"},
		{460 * mib, map[string]string{"storage.cache_size": "256MiB"}, 28 * mib, 256 * mib, "memtable"},
		{460 * mib, map[string]string{"storage.memtable_size": "1GiB", "storage.cache_size": "0"}, 1 << 30, 0, ""},
	} {
		c, sources, err := config.Load(config.LoadOptions{Memory: tc.memory, Flags: tc.flags})
		if err != nil {
			t.Fatal(err)
		}
		if c.Storage.MemtableSize != tc.memtable || c.Storage.CacheSize != tc.cache {
			t.Errorf("memory %d, %v: memtable %s, cache %s, want %s, %s",
				tc.memory, tc.flags, c.Storage.MemtableSize, c.Storage.CacheSize, tc.memtable, tc.cache)
		}
		for _, what := range []string{"memtable", "cache"} {
			src := sources["storage."+what+"_size"]
			if bounded := strings.Contains(tc.bounded, what); bounded != (src.Kind == "memory") || bounded != strings.Contains(src.String(), "of memory") {
				t.Errorf("memory %d, %v: source of %s is %q", tc.memory, tc.flags, what, src)
			}
		}
	}
}

// TestPrintedLoadsAsItIs: every kind of value survives, also what YAML would
// take for something else.
func TestPrintedLoadsAsItIs(t *testing.T) {
	want, sources, err := config.Load(config.LoadOptions{Memory: 460 << 20, Flags: map[string]string{
		"node.name": "007", "node.zone": "true", "cluster.join": "a:1,[::1]:2", "node.data_dir": `/a "b" #c: d\`,
		"timeouts.read": "1m30s", "cluster.insecure": "true", "storage.bloom_bits_per_key": "0",
	}})
	if err != nil {
		t.Fatal(err)
	}
	text, err := config.Print(want, sources)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "printed.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	got, loaded, err := config.Load(config.LoadOptions{File: file})
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n got %+v\nwant %+v\n%s", err, got, want, text)
	}
	for _, s := range config.Settings() {
		if loaded[s.Path].Kind != "file" {
			t.Errorf("%s is not printed", s.Path)
		}
	}
	for _, line := range []string{
		`  zone: "true" # --zone`, "  cache_size: 115MiB # default, bounded by 460MiB of memory", "  capacity: 100 # default",
		`  join: ["a:1","[::1]:2"] # --join`, "  read: 1m30s # --set timeouts.read",
	} {
		if !strings.Contains(string(text), line+"\n") {
			t.Errorf("%q is missing in\n%s", line, text)
		}
	}
}
