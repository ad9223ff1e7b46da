package api_test

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/reflect/protoreflect"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

const reference = "../docs/api.md"

// TestReferenceIsCurrent compares docs/api.md with the comments of the .proto
// files. Write it anew with go test ./api -update.
func TestReferenceIsCurrent(t *testing.T) {
	var names []string
	for _, f := range current().File {
		if f.GetPackage() == string(pairdbv1.File_pairdb_v1_kv_proto.Package()) {
			names = append(names, f.GetName())
		}
	}
	slices.Sort(names)
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{"."}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := compiler.Compile(t.Context(), names...)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	b.WriteString(`# gRPC API

<!-- Generated from the comments of api/pairdb/v1; run make gen after a change there. -->

What clients call, in the package ` + "`pairdb.v1`" + `. Every node serves all of it, with health and reflection, on its client
port, 50051 unless configured. Errors carry a code: [errors.md](errors.md). Programs that use it: [clients.md](clients.md).
Numbers and names never change, and additions are made so that older programs go on working; a test compares.
`)
	for _, f := range files {
		fmt.Fprintf(&b, "\n## %s\n\n[%[1]s](../api/%[1]s)\n", f.Path())
		for i := range f.Services().Len() {
			service(&b, f.Services().Get(i))
		}
		messages(&b, f.Messages())
		enums(&b, f.Enums())
	}
	if *update {
		if err := os.WriteFile(reference, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, b.Bytes()) {
		t.Error("docs/api.md is not what the .proto files say; run: make gen")
	}
}

// comment returns what stands above a declaration, as one line.
func comment(d protoreflect.Descriptor) string {
	text := d.ParentFile().SourceLocations().ByDescriptor(d).LeadingComments
	text = strings.Join(strings.Fields(text), " ")
	return strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(text)
}

func service(b *bytes.Buffer, s protoreflect.ServiceDescriptor) {
	fmt.Fprintf(b, "\n### service %s\n\n%s\n\n| call | takes | returns | |\n|---|---|---|---|\n", s.Name(), comment(s))
	for i := range s.Methods().Len() {
		m := s.Methods().Get(i)
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", m.Name(), streamed(m.IsStreamingClient(), m.Input()), streamed(m.IsStreamingServer(), m.Output()), comment(m))
	}
}

func streamed(stream bool, m protoreflect.MessageDescriptor) string {
	if stream {
		return "stream of " + link(m)
	}
	return link(m)
}

func link(d protoreflect.Descriptor) string {
	return fmt.Sprintf("[%s](#%s)", d.Name(), strings.ToLower(string(d.Name())))
}

func messages(b *bytes.Buffer, all protoreflect.MessageDescriptors) {
	for i := range all.Len() {
		m := all.Get(i)
		if m.IsMapEntry() {
			continue
		}
		fmt.Fprintf(b, "\n### %s\n\n%s\n", m.Name(), comment(m))
		if m.Fields().Len() > 0 {
			b.WriteString("\n| number | field | type | |\n|---|---|---|---|\n")
		}
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			fmt.Fprintf(b, "| %d | `%s` | %s | %s |\n", f.Number(), f.Name(), typeText(f), comment(f))
		}
		messages(b, m.Messages())
		enums(b, m.Enums())
	}
}

func typeText(f protoreflect.FieldDescriptor) string {
	var text string
	switch {
	case f.IsMap():
		return fmt.Sprintf("map of %s to %s", typeText(f.MapKey()), typeText(f.MapValue()))
	case f.Message() != nil && f.Message().ParentFile().Package() == "pairdb.v1":
		text = link(f.Message())
	case f.Message() != nil:
		text = string(f.Message().FullName())
	case f.Enum() != nil:
		text = link(f.Enum())
	default:
		text = f.Kind().String()
	}
	switch {
	case f.IsList():
		return "repeated " + text
	case f.ContainingOneof() != nil && !f.ContainingOneof().IsSynthetic():
		return text + ", one of " + string(f.ContainingOneof().Name())
	case f.HasOptionalKeyword():
		return "optional " + text
	}
	return text
}

func enums(b *bytes.Buffer, all protoreflect.EnumDescriptors) {
	for i := range all.Len() {
		e := all.Get(i)
		fmt.Fprintf(b, "\n### %s\n\n%s\n\n| number | value | |\n|---|---|---|\n", e.Name(), comment(e))
		for i := range e.Values().Len() {
			v := e.Values().Get(i)
			fmt.Fprintf(b, "| %d | `%s` | %s |\n", v.Number(), v.Name(), comment(v))
		}
	}
}
