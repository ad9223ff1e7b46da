package pairdb_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// TestEveryPackageIsDocumented wants one package comment in each package, which
// says what it is by its name.
func TestEveryPackageIsDocumented(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.GoFiles) == 0 {
			continue
		}
		var docs []string
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if doc := packageDoc(f); doc != "" {
				docs = append(docs, doc)
			}
		}
		if len(docs) != 1 {
			t.Errorf("%s has %d package comments, want 1", p.path(), len(docs))
			continue
		}
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command " + filepath.Base(p.Dir) + " "
		}
		if !strings.HasPrefix(docs[0], want) {
			t.Errorf("the comment of %s begins %.40q, want %q", p.path(), docs[0], want)
		}
	}
}

// packageDoc returns the package comment of a file without build constraints.
func packageDoc(f *ast.File) string {
	if f.Doc == nil {
		return ""
	}
	return strings.TrimSpace(f.Doc.Text())
}
