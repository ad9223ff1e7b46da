package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// referenceWidth is where the comments of the reference file are wrapped.
const referenceWidth = 100

// Reference returns the reference file: every setting with its default, and
// what it means as a comment. Loading it changes nothing.
func Reference() []byte {
	var b bytes.Buffer
	b.WriteString(`# The configuration of a PairDB agent: every setting with its default.
#
# Where several places give a setting, the later wins: defaults, the file, conf.d/*.yaml beside it,
# the environment, flags. Any setting can be given as --set section.key=value, or in the environment
# as PAIRDB_AGENT_SECTION__KEY. Sizes are bytes or have a unit, as in 64MiB; durations have a unit,
# as in 5s. A setting that is not listed here is an error. Generated; see it with
# pairdb config defaults.
`)
	section := ""
	for _, s := range settings() {
		name, key, _ := strings.Cut(s.Path, ".")
		if name != section {
			section = name
			fmt.Fprintf(&b, "\n%s:\n", name)
		} else {
			b.WriteByte('\n')
		}
		for _, line := range wrap(s.describe(), referenceWidth-len("  # ")) {
			fmt.Fprintf(&b, "  # %s\n", line)
		}
		fmt.Fprintf(&b, "  %s: %s\n", key, s.yamlDefault())
	}
	return b.Bytes()
}

// Print returns the configuration c as a file that loads as c, each setting with
// where its value comes from.
func Print(c Config, sources Sources) ([]byte, error) {
	var b bytes.Buffer
	section := ""
	for _, s := range settings() {
		name, key, _ := strings.Cut(s.Path, ".")
		if name != section {
			section = name
			fmt.Fprintf(&b, "%s:\n", name)
		}
		value, err := s.yamlValue(&c)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "  %s: %s # %s\n", key, value, sources[s.Path])
	}
	return b.Bytes(), nil
}

// yamlValue writes what c says for the setting as one line of YAML.
func (s Setting) yamlValue(c *Config) (string, error) {
	var value any = s.Value(c)
	switch p := s.field(c).(type) {
	case *[]string:
		// JSON, which is YAML on one line.
		value = append([]string{}, *p...)
	case *string:
	default:
		return s.Value(c), nil
	}
	text, err := json.Marshal(value)
	if err != nil {
		return "", fmt.Errorf("write %s: %w", s.Path, err)
	}
	return string(text), nil
}

// describe returns the comment of a setting.
func (s Setting) describe() string {
	text := s.Help
	switch {
	case len(s.choices) > 0:
		text += " One of " + strings.Join(s.choices, ", ") + "."
	case s.min != 0 || s.max != 0:
		text += " " + s.bounds() + "."
	}
	if s.Flag != "" {
		text += " Flag --" + s.Flag + "."
	}
	if s.Reloadable {
		text += " Reloaded on SIGHUP."
	}
	return text
}

// bounds writes the setting's bounds with its unit.
func (s Setting) bounds() string {
	var low, high string
	switch s.field(new(Config)).(type) {
	case *Size:
		low, high = Size(s.min).String(), Size(s.max).String()
	case *time.Duration:
		low, high = formatDuration(time.Duration(s.min)), formatDuration(time.Duration(s.max))
	default:
		low, high = fmt.Sprint(s.min), fmt.Sprint(s.max)
	}
	text := low + " to " + high
	if s.Unit != "" {
		text += " " + s.Unit
	}
	return text
}

// yamlDefault writes the default as a YAML value.
func (s Setting) yamlDefault() string {
	switch {
	case s.Type() == "list":
		return "[]" // no list has a default; a test says so
	case s.Type() == "string" && s.Default == "":
		return `""`
	}
	return s.Default
}

// wrap cuts text into lines of at most width bytes, between words.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return append(lines, line)
}
