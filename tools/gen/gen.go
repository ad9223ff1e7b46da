package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

const (
	// module is cut off the Go import path of a generated file to find its
	// place in the tree.
	module = "github.com/pairdb/pairdb"
	// pins is the module that holds the plugins' versions.
	pins = "tools/pins/go.mod"
)

// plugins lists the plugins in the order they are run, each over all files.
func plugins() []string { return []string{"protoc-gen-go", "protoc-gen-go-grpc"} }

// compiled is what the plugins are asked to generate from.
type compiled struct {
	// names are the files to generate for, sorted, relative to the api folder.
	names []string
	// all has those files and what they import, each after its imports.
	all []*descriptorpb.FileDescriptorProto
}

// compile compiles every .proto file below dir.
func compile(ctx context.Context, dir string) (compiled, error) {
	names, err := protoFiles(dir)
	if err != nil {
		return compiled{}, err
	}
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{dir}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := compiler.Compile(ctx, names...)
	if err != nil {
		return compiled{}, fmt.Errorf("compile %s: %w", dir, err)
	}
	c := compiled{names: names}
	seen := make(map[string]bool)
	for _, f := range files {
		c.add(f, seen)
	}
	return c, nil
}

// add appends f after what it imports, each file once.
func (c *compiled) add(f protoreflect.FileDescriptor, seen map[string]bool) {
	if seen[f.Path()] {
		return
	}
	seen[f.Path()] = true
	imports := f.Imports()
	for i := range imports.Len() {
		c.add(imports.Get(i).FileDescriptor, seen)
	}
	c.all = append(c.all, protodesc.ToFileDescriptorProto(f))
}

// protoFiles lists the .proto files below dir, sorted, relative to it.
func protoFiles(dir string) ([]string, error) {
	var names []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if filepath.Ext(path) != ".proto" {
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		names = append(names, filepath.ToSlash(rel))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list .proto files: %w", err)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("list .proto files: none below %s", dir)
	}
	slices.Sort(names)
	return names, nil
}

// generate runs the plugins and writes what they make below root.
func generate(ctx context.Context, c compiled, root string) error {
	req := &pluginpb.CodeGeneratorRequest{
		FileToGenerate: c.names,
		Parameter:      proto.String("module=" + module),
		ProtoFile:      c.all,
	}
	in, err := proto.Marshal(req)
	if err != nil {
		return fmt.Errorf("encode plugin request: %w", err)
	}
	for _, plugin := range plugins() {
		files, err := runPlugin(ctx, plugin, in)
		if err != nil {
			return err
		}
		if err := writeFiles(root, files); err != nil {
			return err
		}
	}
	return nil
}

// runPlugin hands a request to one plugin and returns the files it makes.
func runPlugin(ctx context.Context, plugin string, in []byte) ([]*pluginpb.CodeGeneratorResponse_File, error) {
	cmd := exec.CommandContext(ctx, "go", "tool", "-modfile="+pins, plugin)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("run %s: %w\n%s", plugin, err, errs.Bytes())
	}
	var resp pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(out.Bytes(), &resp); err != nil {
		return nil, fmt.Errorf("decode answer of %s: %w", plugin, err)
	}
	if resp.Error != nil {
		return nil, fmt.Errorf("run %s: %s", plugin, resp.GetError())
	}
	return resp.File, nil
}

// writeFiles writes generated files below root.
func writeFiles(root string, files []*pluginpb.CodeGeneratorResponse_File) error {
	for _, f := range files {
		if !filepath.IsLocal(f.GetName()) || !strings.HasPrefix(f.GetName(), "api/") {
			return fmt.Errorf("write %s: outside of api/; check its go_package option", f.GetName())
		}
		path := filepath.Join(root, filepath.FromSlash(f.GetName()))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("write generated code: %w", err)
		}
		if err := os.WriteFile(path, []byte(f.GetContent()), 0o644); err != nil {
			return fmt.Errorf("write generated code: %w", err)
		}
	}
	return nil
}
