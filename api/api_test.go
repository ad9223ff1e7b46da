package api_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

var update = flag.Bool("update", false, "record additions to the contract in testdata")

// recorded is the descriptor set of the contract as it was last released.
const recorded = "testdata/descriptors.binpb"

// TestGeneratedCodeIsCurrent generates into an empty folder and compares.
func TestGeneratedCodeIsCurrent(t *testing.T) {
	out := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "run", "./tools/gen", "-out", out)
	cmd.Dir = ".."
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("generate: %v\n%s", err, msg)
	}
	fresh, committed := generated(t, filepath.Join(out, "api")), generated(t, ".")
	if len(fresh) == 0 {
		t.Fatal("nothing was generated")
	}
	for name, code := range fresh {
		if !bytes.Equal(code, committed[name]) {
			t.Errorf("%s is not what the .proto files say; run: make gen", name)
		}
	}
	for name := range committed {
		if _, ok := fresh[name]; !ok {
			t.Errorf("%s has no .proto file any more; delete it", name)
		}
	}
}

// generated reads all generated files below root, by their path in it.
func generated(t *testing.T, root string) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".pb.go") {
			return err
		}
		files[path], err = os.ReadFile(filepath.Join(root, path))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestContractOnlyGrows compares the contract with the recorded one. Additions
// are recorded with go test ./api -update; anything else breaks clients that
// are out there, and is refused.
func TestContractOnlyGrows(t *testing.T) {
	now := current()
	old, err := os.ReadFile(recorded)
	if errors.Is(err, fs.ErrNotExist) && *update {
		record(t, now)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	set := new(descriptorpb.FileDescriptorSet)
	if err := proto.Unmarshal(old, set); err != nil {
		t.Fatal(err)
	}
	broken, added := compare(facts(set), facts(now))
	for _, fact := range broken {
		t.Errorf("the contract had, and no longer has: %s", fact)
	}
	if t.Failed() || len(added) == 0 {
		return
	}
	if *update {
		record(t, now)
		return
	}
	t.Errorf("additions are not recorded, so nothing guards them; run: make gen\n%s", strings.Join(added, "\n"))
}

// TestContractGuardSees changes the contract in every way that breaks a client
// and expects each to be seen.
func TestContractGuardSees(t *testing.T) {
	field := func(set *descriptorpb.FileDescriptorSet) *descriptorpb.FieldDescriptorProto {
		for _, f := range set.File {
			for _, m := range f.MessageType {
				if f.GetPackage() == "pairdb.v1" && m.GetName() == "PutRequest" {
					return m.Field[2]
				}
			}
		}
		t.Fatal("PutRequest is gone")
		return nil
	}
	breaks := map[string]func(*descriptorpb.FileDescriptorSet){
		"field number": func(s *descriptorpb.FileDescriptorSet) { field(s).Number = proto.Int32(77) },
		"field name":   func(s *descriptorpb.FileDescriptorSet) { field(s).Name = proto.String("worth") },
		"JSON name":    func(s *descriptorpb.FileDescriptorSet) { field(s).JsonName = proto.String("worth") },
		"field type": func(s *descriptorpb.FileDescriptorSet) {
			field(s).Type = descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum()
		},
		"label": func(s *descriptorpb.FileDescriptorSet) {
			field(s).Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
		},
		"presence": func(s *descriptorpb.FileDescriptorSet) { field(s).Proto3Optional = proto.Bool(true) },
		"message":  func(s *descriptorpb.FileDescriptorSet) { s.File[0].MessageType = s.File[0].MessageType[1:] },
		"method":   func(s *descriptorpb.FileDescriptorSet) { s.File[0].Service[0].Method = nil },
		"stream": func(s *descriptorpb.FileDescriptorSet) {
			m := s.File[0].Service[0].Method[0]
			m.ServerStreaming = proto.Bool(!m.GetServerStreaming())
		},
		"enum value": func(s *descriptorpb.FileDescriptorSet) {
			for _, f := range s.File {
				if len(f.EnumType) > 0 {
					f.EnumType[0].Value[1].Number = proto.Int32(9)
				}
			}
		},
	}
	for name, change := range breaks {
		t.Run(name, func(t *testing.T) {
			changed := proto.CloneOf(current())
			change(changed)
			if broken, _ := compare(facts(current()), facts(changed)); len(broken) == 0 {
				t.Error("a changed contract was not seen")
			}
		})
	}
}

// TestEveryFieldIsDocumented reads the .proto files, since comments are no part
// of the compiled descriptors.
func TestEveryFieldIsDocumented(t *testing.T) {
	for _, f := range current().File {
		source, err := os.ReadFile(f.GetName())
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(source), "\n")
		for i, line := range lines {
			line = strings.TrimSpace(line)
			if declares(line) && !strings.HasPrefix(strings.TrimSpace(lines[i-1]), "//") {
				t.Errorf("%s:%d: has no comment: %s", f.GetName(), i+1, line)
			}
		}
	}
}

// declares reports whether a line of a .proto file declares something that a
// reader needs explained.
func declares(line string) bool {
	word, _, _ := strings.Cut(line, " ")
	switch word {
	case "message", "enum", "service", "rpc":
		return true
	case "syntax", "option":
		return false
	}
	return strings.HasSuffix(line, ";") && strings.Contains(line, " = ")
}

// current returns the contract as it is compiled in: every file of the packages
// pairdb.v1 and pairdb.peer.v1, sorted by path.
func current() *descriptorpb.FileDescriptorSet {
	set := new(descriptorpb.FileDescriptorSet)
	for _, pkg := range []protoreflect.FullName{
		pairdbv1.File_pairdb_v1_kv_proto.Package(), peerv1.File_pairdb_peer_v1_peer_proto.Package(),
	} {
		protoregistry.GlobalFiles.RangeFilesByPackage(pkg, func(f protoreflect.FileDescriptor) bool {
			set.File = append(set.File, protodesc.ToFileDescriptorProto(f))
			return true
		})
	}
	slices.SortFunc(set.File, func(a, b *descriptorpb.FileDescriptorProto) int { return strings.Compare(a.GetName(), b.GetName()) })
	return set
}

func record(t *testing.T, set *descriptorpb.FileDescriptorSet) {
	t.Helper()
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(recorded), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(recorded, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// facts lists what a client may rely on, one line each. The contract of today
// keeps that of yesterday exactly if it has all of its facts.
func facts(set *descriptorpb.FileDescriptorSet) []string {
	var out []string
	for _, f := range set.File {
		for _, m := range f.MessageType {
			out = append(out, messageFacts(f.GetPackage()+"."+m.GetName(), m)...)
		}
		for _, e := range f.EnumType {
			out = append(out, enumFacts(f.GetPackage()+"."+e.GetName(), e)...)
		}
		for _, s := range f.Service {
			for _, m := range s.Method {
				out = append(out, fmt.Sprintf("rpc %s.%s/%s(stream %t %s) returns (stream %t %s)", f.GetPackage(), s.GetName(), m.GetName(),
					m.GetClientStreaming(), m.GetInputType(), m.GetServerStreaming(), m.GetOutputType()))
			}
		}
	}
	return out
}

func messageFacts(name string, m *descriptorpb.DescriptorProto) []string {
	out := []string{"message " + name}
	for _, f := range m.Field {
		oneof := ""
		if f.OneofIndex != nil {
			oneof = m.OneofDecl[f.GetOneofIndex()].GetName()
		}
		out = append(out, fmt.Sprintf("field %s %d %s json %s %s %s %s optional %t oneof %q", name, f.GetNumber(), f.GetName(),
			f.GetJsonName(), f.GetLabel(), f.GetType(), f.GetTypeName(), f.GetProto3Optional(), oneof))
	}
	for _, inner := range m.NestedType {
		out = append(out, messageFacts(name+"."+inner.GetName(), inner)...)
	}
	for _, e := range m.EnumType {
		out = append(out, enumFacts(name+"."+e.GetName(), e)...)
	}
	return out
}

func enumFacts(name string, e *descriptorpb.EnumDescriptorProto) []string {
	out := []string{"enum " + name}
	for _, v := range e.Value {
		out = append(out, fmt.Sprintf("value %s %d %s", name, v.GetNumber(), v.GetName()))
	}
	return out
}

// compare returns the facts that are gone, and those that are new.
func compare(old, now []string) (broken, added []string) {
	for _, fact := range old {
		if !slices.Contains(now, fact) {
			broken = append(broken, fact)
		}
	}
	for _, fact := range now {
		if !slices.Contains(old, fact) {
			added = append(added, fact)
		}
	}
	return broken, added
}
