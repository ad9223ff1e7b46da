package pairdb_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/pairdb/pairdb"

// layers says which layers a layer may import. A package belongs to the layer
// with the longest path that its own begins with; a layer may always import
// itself.
func layers() map[string][]string {
	pure := []string{"gossip/crdt", "gossip/ring", "gossip/schema"}
	edge := append([]string{
		"api", "api/errcode", "coord", "coord/causal", "coord/peerhealth", "coord/quorum", "gossip", "gossip/meta",
	}, pure...)
	return map[string][]string{
		"api":              {},
		"api/errcode":      {},
		"client":           {"api", "api/errcode", "gossip/ring"},
		"engine":           {},
		"gossip/ring":      {},
		"gossip/schema":    {"gossip/ring"},
		"gossip/crdt":      {"gossip/ring", "gossip/schema"},
		"gossip/meta":      pure,
		"gossip":           append([]string{"gossip/meta", "api/errcode"}, pure...),
		"check":            {"coord/causal", "coord/quorum"},
		"coord/causal":     {},
		"coord/peerhealth": {"gossip/ring", "gossip/schema"},
		"coord/quorum":     {"gossip/ring"},
		"coord":            {"coord/causal", "coord/peerhealth", "coord/quorum", "gossip/ring", "gossip/schema", "api/errcode"},
		"coord/repair":     {"coord", "coord/causal", "coord/quorum", "gossip/ring", "gossip/schema", "api/errcode"},
		"hints":            {"gossip/ring", "api/errcode"},
		"node/config":      {"gossip/ring"},
		"node/replica":     {"engine", "coord", "coord/causal", "coord/repair", "gossip/ring", "gossip/schema", "api/errcode"},
		"node/access":      {},
		"node/admission":   {"coord", "api/errcode"},
		"node/door":        {},
		"node/freeport":    {},
		"node/events":      {},
		"node/hotkeys":     {"gossip/ring"},
		"node/rpc":         append([]string{"node/access", "node/door"}, edge...),
		"node/rest":        append([]string{"node/access", "node/door"}, edge...),
		"node": append([]string{
			"engine", "hints", "coord/repair", "node/admission", "node/config", "node/door", "node/replica", "node/rpc", "node/rest", "node/events", "node/hotkeys",
		}, edge...),
		"configs": {},
		"cmd":     {"node", "node/config", "node/freeport", "client", "api", "api/errcode", "engine", "configs"},
		"docker":  {},
		"tools":   {},
	}
}

// outside says which layers alone may import a module that shapes whoever uses
// it.
func outside() map[string][]string {
	return map[string][]string{
		"google.golang.org/grpc":            {"api", "client", "node/rpc", "node", "cmd"},
		"github.com/anishathalye/porcupine": {"check"},
		"github.com/dgraph-io/badger":       {"gossip", "hints"},
		"github.com/hashicorp/memberlist":   {"gossip"},
	}
}

// pkg is what go list says of a package.
type pkg struct {
	ImportPath, Name, Dir  string
	GoFiles, Imports, Deps []string
	Error                  *struct{ Err string }
}

// path is the package's path in the module: "" for the root.
func (p pkg) path() string { return within(p.ImportPath) }

func within(importPath string) string {
	return strings.TrimPrefix(strings.TrimPrefix(importPath, module), "/")
}

// packages lists the module's packages.
func packages(t *testing.T) []pkg {
	t.Helper()
	var errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Name,Dir,GoFiles,Imports,Deps,Error", "./...")
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list packages: %v\n%s", err, errs.Bytes())
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if p.Error != nil {
			t.Errorf("%s: %s", p.ImportPath, p.Error.Err)
		}
		all = append(all, p)
	}
}

// layerOf returns the layer of a package, or "" if it has none.
func layerOf(path string, layers map[string][]string) string {
	best := ""
	for _, layer := range slices.Sorted(maps.Keys(layers)) {
		if (path == layer || strings.HasPrefix(path, layer+"/")) && len(layer) > len(best) {
			best = layer
		}
	}
	return best
}

// violations returns what a package in path may not import of imports.
func violations(path string, imports []string) []string {
	table := layers()
	layer := layerOf(path, table)
	if layer == "" {
		return []string{path + " is in no layer; give it one in imports_test.go"}
	}
	var found []string
	for _, imp := range imports {
		if imp == module || strings.HasPrefix(imp, module+"/") {
			if to := layerOf(within(imp), table); to != layer && !slices.Contains(table[layer], to) {
				found = append(found, path+" imports "+within(imp)+": "+layer+" may not import "+to)
			}
		}
		for mod, users := range outside() {
			if (imp == mod || strings.HasPrefix(imp, mod+"/")) && !slices.Contains(users, layer) {
				found = append(found, path+" imports "+imp+": "+layer+" may not")
			}
		}
	}
	return found
}

func TestImportsKeepToTheirLayers(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.GoFiles) == 0 {
			continue // tests alone: they may look at anything
		}
		for _, v := range violations(p.path(), p.Imports) {
			t.Error(v)
		}
	}
}

func TestLayersRefuse(t *testing.T) {
	for _, bad := range [][2]string{
		{"engine/wal", "coord"},
		{"engine", "api/errcode"},
		{"coord", "gossip"},
		{"coord", "engine"},
		{"coord/causal", "gossip/ring"},
		{"check", "coord"},
		{"coord", "check"},
		{"gossip/ring", "gossip/schema"},
		{"gossip/ring", "gossip"},
		{"node/rpc", "engine"},
		{"node/rest", "node"},
		{"client", "coord"},
		{"client", "node/config"},
		{"api/errcode", "api"},
		{"cmd/pairdb", "coord"},
		{"elsewhere", "api"},
	} {
		if len(violations(bad[0], []string{module + "/" + bad[1]})) == 0 {
			t.Errorf("%s may import %s", bad[0], bad[1])
		}
	}
	if len(violations("coord", []string{"google.golang.org/grpc/codes"})) == 0 {
		t.Error("coord may import gRPC")
	}
	if v := violations("node", []string{module + "/engine/vfs", module + "/node/rpc", "google.golang.org/grpc"}); len(v) > 0 {
		t.Errorf("node may import everything, but: %q", v)
	}
}

// TestProductionDoesNotImportTesting looks at everything that a binary of ours,
// or a user of the client, compiles in.
func TestProductionDoesNotImportTesting(t *testing.T) {
	all := packages(t)
	compiled := make(map[string]bool)
	for _, p := range all {
		if p.Name == "main" || p.path() == "client" {
			compiled[p.ImportPath] = true
			for _, dep := range p.Deps {
				compiled[dep] = true
			}
		}
	}
	for _, p := range all {
		for _, imp := range p.Imports {
			if compiled[p.ImportPath] && (imp == "testing" || strings.HasPrefix(imp, "testing/")) {
				t.Errorf("%s imports %s and is compiled into a binary", p.path(), imp)
			}
		}
	}
}
