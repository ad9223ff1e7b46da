package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// The output formats. An empty format is the command's own default.
const (
	formatTable = "table"
	formatJSON  = "json"
	formatJSONL = "jsonl"
	formatYAML  = "yaml"
	formatPlain = "plain"
)

func formats() []string {
	return []string{formatTable, formatJSON, formatJSONL, formatYAML, formatPlain}
}

// outputFlag adds -o to cmd.
func outputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "", "output: "+strings.Join(formats(), ", "))
	suggest(cmd, "output", formats()...)
}

// checkOutput refuses a format that there is not.
func checkOutput(cmd *cobra.Command, output string) error {
	if output != "" && !slices.Contains(formats(), output) {
		return wordError(cmd, "--output", output, formats())
	}
	return nil
}

// suggest has completion offer words for a flag of cmd.
func suggest(cmd *cobra.Command, flag string, words ...string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the command has no such flag: a mistake in this program
	}
}

// view is one result in all the forms it can be shown in.
type view struct {
	// data is the whole result: a proto.Message, or anything that
	// encoding/json takes.
	data any
	// items are what jsonl writes a line for each. Nil: data is the one item.
	items []any
	// head are lines above the table, in the table format only.
	head []string
	// columns and rows are the table; plain writes the rows with tabs between
	// the cells.
	columns []string
	rows    [][]string
}

// show writes v to stdout.
func (a *app) show(format string, v view) error {
	var out bytes.Buffer
	var err error
	switch format {
	case formatJSON:
		err = writeJSON(&out, v.data, "  ")
	case formatJSONL:
		items := v.items
		if items == nil {
			items = []any{v.data}
		}
		for _, item := range items {
			if err = writeJSON(&out, item, ""); err != nil {
				break
			}
		}
	case formatYAML:
		err = writeYAML(&out, v.data)
	case formatPlain:
		for _, row := range v.rows {
			out.WriteString(strings.Join(row, "\t") + "\n")
		}
	default:
		err = writeTable(&out, v)
	}
	if err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return a.write(out.Bytes())
}

// write puts b on stdout whole.
func (a *app) write(b []byte) error {
	if _, err := a.stdout.Write(b); err != nil {
		return fmt.Errorf("write to stdout: %w", err)
	}
	return nil
}

// note tells people something on stderr. It never fails a command.
func (a *app) note(format string, args ...any) {
	_, _ = fmt.Fprintf(a.stderr, format+"\n", args...)
}

// marshal returns v as JSON: a message with the API's names and all fields,
// unset messages as null.
func marshal(v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		err := enc.Encode(v)
		return b.Bytes(), err
	}
	return protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(m)
}

// writeJSON writes v on one line if indent is empty. protojson varies its white
// space on purpose, so that it is always laid out again here.
func writeJSON(out *bytes.Buffer, v any, indent string) error {
	b, err := marshal(v)
	if err != nil {
		return err
	}
	b = bytes.TrimSpace(b)
	if indent == "" {
		err = json.Compact(out, b)
	} else {
		err = json.Indent(out, b, "", indent)
	}
	out.WriteByte('\n')
	return err
}

// writeYAML keeps the order of the fields: JSON is YAML, and only the style of
// its nodes has to change.
func writeYAML(out io.Writer, v any) error {
	b, err := marshal(v)
	if err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return err
	}
	plainStyle(&doc)
	enc := yaml.NewEncoder(out)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return err
	}
	return enc.Close()
}

func plainStyle(n *yaml.Node) {
	if len(n.Content) > 0 || n.Kind == yaml.ScalarNode {
		n.Style = 0 // an empty list or map keeps its brackets
	}
	for _, c := range n.Content {
		plainStyle(c)
	}
}

func writeTable(out io.Writer, v view) error {
	for _, line := range v.head {
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
	if len(v.columns) == 0 {
		return nil
	}
	if len(v.head) > 0 {
		if _, err := fmt.Fprintln(out); err != nil {
			return err
		}
	}
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{v.columns}, v.rows...) {
		cells := make([]string, len(row))
		for i, c := range row {
			if c == "" {
				c = "-"
			}
			cells[i] = c
		}
		if _, err := fmt.Fprintln(tw, strings.Join(cells, "\t")); err != nil {
			return err
		}
	}
	return tw.Flush()
}

// visible returns s as it is if it can stand in a table, quoted otherwise: what
// comes from a cluster or a file name must not drive the terminal.
func visible(s string) string {
	if s == "" || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

// short is visible, cut to about n runes.
func short(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return visible(s)
	}
	return visible(string([]rune(s)[:n])) + "…"
}

// bytesText writes a size for people.
func bytesText(n uint64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n), ""
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"} {
		if v < 1<<10 {
			break
		}
		v, unit = v/(1<<10), u
	}
	return fmt.Sprintf("%.1f %s", v, unit)
}
