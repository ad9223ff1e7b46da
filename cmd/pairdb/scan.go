package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/client"
)

// scanRows is how many rows a table has before the next one begins, and
// scanBuffer how many bytes are gathered before they are written.
const (
	scanRows   = 1000
	scanBuffer = 64 << 10
)

func (a *app) scanCommand() *cobra.Command {
	var f clientFlags
	var o client.ScanOptions
	var token string
	cmd := &cobra.Command{
		Use:   "scan",
		Short: "List keys with their values",
		Long: `List the keys of a tenant that have a value: all of them, or those with a
prefix, in a range, or both. A prefix with a whole part in braces, such as
{user1}photo/, asks the replicas of that part alone and comes in the order of
the keys; any other scan visits the whole ring and comes in the order of a hash.
--timeout bounds the wait for each page, not the whole scan.

-o plain writes a line for each key, with the value in base64 behind a tab; keys
that are no plain text are quoted. -o json and jsonl have the siblings, too.`,
		Example: "  pairdb scan --prefix user/ --limit 10\n  pairdb scan --keys-only -o plain | wc -l",
		GroupID: groupData,
		Args:    args(),
	}
	a.clientCommand(cmd, &f)
	tenantFlag(cmd, &f)
	levelFlag(cmd, &f)
	fs := cmd.Flags()
	fs.StringVar(&o.Prefix, "prefix", "", "keys that begin with this")
	fs.StringVar(&o.Start, "start", "", "keys at or behind this one")
	fs.StringVar(&o.End, "end", "", "keys before this one")
	fs.IntVar(&o.Limit, "limit", 0, "how many keys at most; 0: all")
	fs.BoolVar(&o.KeysOnly, "keys-only", false, "keys without their values")
	fs.StringVar(&token, "page-token", "", "goes on where an earlier scan with the same prefix, start, end and --keys-only stopped at its --limit")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var err error
		if o.PageToken, err = parsePageToken(cmd, token); err != nil {
			return err
		}
		if cmd.Flags().Changed("limit") && o.Limit < 1 {
			return usagef("%s: --limit is %d; it has to be at least 1", cmd.CommandPath(), o.Limit)
		}
		return f.withClient(func(c *client.Client) error {
			s := c.Scan(cmd.Context(), o, client.WithLevel(f.level))
			defer s.Close()
			out := &scanOutput{a: a, format: f.output, keysOnly: o.KeysOnly}
			for s.Next() {
				if err := out.item(s.Item()); err != nil {
					return err
				}
			}
			if err := out.end(s); err != nil {
				return err
			}
			return s.Err()
		})
	}
	return cmd
}

// parsePageToken reads a token in either alphabet of base64.
func parsePageToken(cmd *cobra.Command, text string) ([]byte, error) {
	token, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(text), "="))
	if err != nil {
		fail := usagef("%s: --page-token is not base64: %v", cmd.CommandPath(), err)
		fail.next = "Pass the token that the scan before named, as it is."
		return nil, fail
	}
	return token, nil
}

// scanOutput writes keys as they come, in bounded memory.
type scanOutput struct {
	a        *app
	format   string
	keysOnly bool
	buf      bytes.Buffer
	rows     [][]string // of the table that is gathered
	n        int        // keys so far
}

func (o *scanOutput) item(it *client.ScanItem) error {
	var err error
	switch o.format {
	case formatJSON:
		// A line for each, so that the whole need not be held.
		sep := "{\n  \"items\": ["
		if o.n > 0 {
			sep = ","
		}
		o.buf.WriteString(sep + "\n    ")
		if err = writeJSON(&o.buf, it.Proto(), ""); err == nil {
			o.buf.Truncate(o.buf.Len() - 1) // its line end
		}
	case formatJSONL:
		err = writeJSON(&o.buf, it.Proto(), "")
	case formatYAML:
		if o.n == 0 {
			o.buf.WriteString("items:\n")
		}
		err = o.yaml(it)
	case formatPlain:
		o.buf.WriteString(visible(it.Key))
		if !o.keysOnly {
			o.buf.WriteString("\t" + base64.StdEncoding.EncodeToString(it.Value))
		}
		o.buf.WriteByte('\n')
	default:
		o.rows = append(o.rows, o.row(it))
	}
	if err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	o.n++
	if o.buf.Len() > scanBuffer {
		return o.flush()
	}
	if len(o.rows) == scanRows {
		return o.table()
	}
	return nil
}

func (o *scanOutput) row(it *client.ScanItem) []string {
	var s client.Sibling
	if len(it.Siblings) > 0 {
		s = it.Siblings[0]
	}
	if o.keysOnly {
		return []string{visible(it.Key), timeText(s.WrittenAt), timeText(s.ExpiresAt), strconv.Itoa(len(it.Siblings))}
	}
	return []string{visible(it.Key), short(string(it.Value), 40), strconv.Itoa(len(it.Value)), timeText(s.WrittenAt), timeText(s.ExpiresAt), strconv.Itoa(len(it.Siblings))}
}

func (o *scanOutput) table() error {
	v := view{columns: []string{"KEY", "VALUE", "BYTES", "WRITTEN", "EXPIRES", "SIBLINGS"}, rows: o.rows}
	if o.keysOnly {
		v.columns = []string{"KEY", "WRITTEN", "EXPIRES", "SIBLINGS"}
	}
	o.rows = nil
	return o.a.show(formatTable, v)
}

// yaml writes one more element of the list of items.
func (o *scanOutput) yaml(it *client.ScanItem) error {
	var doc bytes.Buffer
	if err := writeYAML(&doc, []any{jsonOf{it}}); err != nil {
		return err
	}
	_, err := doc.WriteTo(&o.buf)
	return err
}

// jsonOf is an item inside of something that is no message.
type jsonOf struct{ it *client.ScanItem }

// MarshalJSON writes the item as the API does.
func (j jsonOf) MarshalJSON() ([]byte, error) { return marshal(j.it.Proto()) }

// end writes what is left, and says where another scan goes on.
func (o *scanOutput) end(s *client.Scanner) error {
	more := base64.RawURLEncoding.EncodeToString(s.PageToken())
	switch o.format {
	case formatJSON:
		if o.n == 0 {
			o.buf.WriteString("{\n  \"items\": [")
		}
		fmt.Fprintf(&o.buf, "\n  ],\n  \"next_page_token\": %q,\n  \"scanned\": \"%d\"\n}\n", more, s.Scanned())
	case formatYAML:
		if o.n == 0 {
			o.buf.WriteString("items: []\n")
		}
		fmt.Fprintf(&o.buf, "next_page_token: %q\nscanned: \"%d\"\n", more, s.Scanned())
	}
	if err := o.flush(); err != nil {
		return err
	}
	if o.format == "" || o.format == formatTable {
		if err := o.table(); err != nil {
			return err
		}
	}
	if more != "" && s.Err() == nil {
		o.a.note("pairdb: there may be more keys; they follow with --page-token=%s", more)
	}
	return nil
}

func (o *scanOutput) flush() error {
	err := o.a.write(o.buf.Bytes())
	o.buf.Reset()
	return err
}
