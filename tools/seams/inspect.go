package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"maps"
	"slices"
	"strings"
)

// finding is one place that reaches around a seam.
type finding struct {
	pos  token.Position
	what string
}

// String writes the finding as compilers do.
func (f finding) String() string { return fmt.Sprintf("%s: %s", f.pos, f.what) }

// marker begins the comment that says why the order of a map cannot be seen.
const marker = "//seams:ordered"

// mark is such a comment.
type mark struct {
	pos    token.Position
	reason string
	used   bool
}

// inspector looks at one file.
type inspector struct {
	fset     *token.FileSet
	info     *types.Info
	ordered  map[int]*mark // by line
	findings []finding
}

// orderedLines finds the marker comments of a file.
func orderedLines(fset *token.FileSet, f *ast.File) map[int]*mark {
	lines := make(map[int]*mark)
	for _, group := range f.Comments {
		for _, c := range group.List {
			if reason, ok := strings.CutPrefix(c.Text, marker); ok {
				pos := fset.Position(c.Pos())
				lines[pos.Line] = &mark{pos: pos, reason: strings.TrimSpace(reason)}
			}
		}
	}
	return lines
}

// visit looks at one node; above are the nodes that it stands in.
func (in *inspector) visit(n ast.Node, above []ast.Node) bool {
	switch n := n.(type) {
	case *ast.GoStmt:
		in.report(n, "starts a goroutine; hand the work to the scheduler")
	case *ast.RangeStmt:
		if _, ok := in.info.Types[n.X].Type.Underlying().(*types.Map); ok && n.Key != nil {
			in.order(n, "ranges over a map")
		}
	case *ast.Ident:
		if obj := in.info.Uses[n]; obj != nil && obj.Pkg() != nil {
			in.use(n, obj, above)
		}
	}
	return true
}

// use looks at a mention of something that another package declares.
func (in *inspector) use(n *ast.Ident, obj types.Object, above []ast.Node) {
	pkg, name := obj.Pkg().Path(), obj.Name()
	if f, ok := obj.(*types.Func); ok && f.Signature().Recv() != nil {
		in.method(n, f)
		return
	}
	if pkg == "maps" && (name == "Keys" || name == "Values" || name == "All") {
		if !sortedAtOnce(above, in.info) {
			in.order(n, "takes a map's entries in random order")
		}
		return
	}
	if why := banned(pkg, name, obj); why != "" {
		in.report(n, fmt.Sprintf("uses %s.%s: %s", pkg, name, why))
	}
}

// method looks at a call of a method that starts a goroutine or has a map's
// order.
func (in *inspector) method(n ast.Node, f *types.Func) {
	switch f.FullName() {
	case "(*sync.WaitGroup).Go", "(*golang.org/x/sync/errgroup.Group).Go", "(*golang.org/x/sync/errgroup.Group).TryGo":
		in.report(n, "starts a goroutine; hand the work to the scheduler")
	case "(*sync.Map).Range":
		in.order(n, "ranges over a map")
	}
}

// banned says why a package-level object must not be used, or "".
func banned(pkg, name string, obj types.Object) string {
	switch pkg {
	case "time":
		switch name {
		case "Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker":
			return "it is real time; ask the clock"
		}
	case "context":
		switch name {
		case "WithTimeout", "WithTimeoutCause", "WithDeadline", "WithDeadlineCause", "AfterFunc":
			return "it runs on real time or a goroutine; ask the clock"
		}
	case "math/rand", "math/rand/v2":
		if _, ok := obj.(*types.Func); ok && !strings.HasPrefix(name, "New") {
			return "it is shared randomness; take a source that was handed in"
		}
	case "crypto/rand":
		return "it cannot be repeated; take a source that was handed in"
	case "net/netip", "net/url", "net/textproto":
		return "" // plain values
	case "syscall", "io/ioutil", "golang.org/x/sys/unix":
		return "it reaches the machine; go through the file system seam"
	}
	if pkg == "os" || strings.HasPrefix(pkg, "os/") {
		return "it reaches the machine; go through the file system seam"
	}
	if pkg == "net" || strings.HasPrefix(pkg, "net/") {
		return "it reaches the network; go through the transport"
	}
	return ""
}

// sortedAtOnce reports whether the nearest calls around a call of maps.Keys are
// one of slices' sorting ones.
func sortedAtOnce(above []ast.Node, info *types.Info) bool {
	calls := 0
	for _, n := range slices.Backward(above) {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			if _, selector := n.(*ast.SelectorExpr); selector {
				continue
			}
			return false
		}
		if calls++; calls == 1 {
			continue // the call of maps.Keys itself
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		f, ok := info.Uses[sel.Sel].(*types.Func)
		return ok && f.Pkg() != nil && f.Pkg().Path() == "slices" && strings.HasPrefix(f.Name(), "Sorted")
	}
	return false
}

// order reports n unless a comment on its line or the one above says why the
// order cannot be seen.
func (in *inspector) order(n ast.Node, what string) {
	line := in.fset.Position(n.Pos()).Line
	for _, l := range []int{line, line - 1} {
		if m, ok := in.ordered[l]; ok {
			m.used = true
			if m.reason == "" {
				in.report(n, marker+" has to say why the order cannot be seen")
			}
			return
		}
	}
	in.report(n, what+"; sort it, or say with "+marker+" why its order cannot be seen")
}

func (in *inspector) report(n ast.Node, what string) {
	in.findings = append(in.findings, finding{pos: in.fset.Position(n.Pos()), what: what})
}

// unused reports each marker that excuses nothing, since it would excuse what is
// written there next.
func (in *inspector) unused() {
	for _, line := range slices.Sorted(maps.Keys(in.ordered)) {
		if m := in.ordered[line]; !m.used {
			in.findings = append(in.findings, finding{pos: m.pos, what: marker + " stands where no map is ranged over"})
		}
	}
}
