package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// file takes the settings that a file gives: a mapping of sections, each a
// mapping of keys. Anchors, aliases and merges are refused: a setting stands in
// one place, and what is small on disk stays small in memory.
func (l *loader) file(name string, data []byte) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if !errors.Is(err, io.EOF) { // a file of comments says nothing
			l.problems = append(l.problems, Problem{Setting: name, What: "is no YAML: " + strings.TrimPrefix(err.Error(), "yaml: ")})
		}
		return
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		l.problems = append(l.problems, Problem{
			Setting: name, What: "has more than one document", Why: "only the first would count", Next: "drop the line ---",
		})
		return
	}
	l.mapping(name, "", doc.Content[0], func(key string, keyNode, value *yaml.Node) {
		if !l.isSection(key) {
			l.unknown(key, at(name, keyNode), "section", append(l.sectionNames(), l.paths...))
			return
		}
		l.mapping(name, key, value, func(inner string, keyNode, value *yaml.Node) {
			path := key + "." + inner
			s, ok := l.settings[path]
			if !ok {
				l.unknown(path, at(name, keyNode), "setting", l.paths)
				return
			}
			l.node(s, name, value)
		})
	})
}

// mapping calls each for every entry of a mapping. An empty one has none.
func (l *loader) mapping(file, section string, n *yaml.Node, each func(key string, keyNode, value *yaml.Node)) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		what := "is no list of sections"
		if section != "" {
			what = "is a section, and has to hold settings"
		}
		l.problems = append(l.problems, Problem{
			Setting: orFile(section, file), Where: at(file, n), What: what, Next: "see pairdb config defaults for the form",
		})
		return
	}
	seen := make(map[string]bool, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		path := strings.TrimPrefix(section+"."+key.Value, ".")
		if seen[key.Value] {
			l.problems = append(l.problems, Problem{Setting: path, Where: at(file, key), What: "stands twice in the file", Next: "keep one of them"})
			continue
		}
		seen[key.Value] = true
		each(key.Value, key, value)
	}
}

// node takes the value of one setting.
func (l *loader) node(s Setting, file string, n *yaml.Node) {
	src := Source{Kind: "file", Where: at(file, n)}
	bad := func(what, next string) {
		l.problems = append(l.problems, Problem{Setting: s.Path, Where: src.Where, What: what, Next: next})
	}
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		bad("has no value", `give it one, drop the line for the default, or write "" for nothing`)
	case n.Kind == yaml.ScalarNode:
		l.set(s, n.Value, src)
	case n.Kind == yaml.SequenceNode && s.Type() == "list":
		items := make([]string, 0, len(n.Content))
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode {
				bad("has an item that is no plain value", "write one address an item")
				return
			}
			items = append(items, item.Value)
		}
		l.set(s, strings.Join(items, ","), src)
	case n.Kind == yaml.AliasNode:
		bad("refers to another place in the file", "write the value itself")
	default:
		bad("is no plain value", "write a "+s.Type())
	}
}

// isSection reports whether some setting is in the section of that name.
func (l *loader) isSection(name string) bool {
	for _, path := range l.paths {
		if section, _, _ := strings.Cut(path, "."); section == name {
			return true
		}
	}
	return false
}

// sectionNames lists the sections in the order of the table.
func (l *loader) sectionNames() []string {
	var names []string
	for _, path := range l.paths {
		section, _, _ := strings.Cut(path, ".")
		if len(names) == 0 || names[len(names)-1] != section {
			names = append(names, section)
		}
	}
	return names
}

// at says where a node stands.
func at(file string, n *yaml.Node) string {
	return fmt.Sprintf("%s:%d", file, n.Line)
}

func orFile(section, file string) string {
	if section == "" {
		return file
	}
	return section
}
