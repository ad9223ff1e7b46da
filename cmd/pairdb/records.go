package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pairdb/pairdb/api/jsontext"
	"github.com/pairdb/pairdb/client"
)

// The formats of a file of records.
const (
	recordsJSONL = "jsonl"
	recordsCSV   = "csv"
	// maxRecordSize bounds one record of a file, in bytes: the largest value with
	// every byte of it as \u00ff, and its key.
	maxRecordSize = 6*client.MaxValueSize + 64<<10
	// base64Word marks a field that is base64.
	base64Word = "base64"
)

// recordFormat is the format of a file: what was asked for, or what its name says.
func recordFormat(asked, name string) string {
	switch {
	case asked != "":
		return asked
	case strings.EqualFold(filepath.Ext(name), ".csv"):
		return recordsCSV
	}
	return recordsJSONL
}

// record is a key and its value in a file.
type record struct {
	line  int // where it begins, from 1
	key   string
	value []byte
	// expires is when the value expires, the zero time for never.
	expires time.Time
}

// lineError is a record that cannot be used, while those behind it can.
type lineError struct {
	line int
	err  error
}

func (e *lineError) Error() string { return fmt.Sprintf("line %d: %v", e.line, e.err) }
func (e *lineError) Unwrap() error { return e.err }

// recordReader reads a file of records. next returns io.EOF at the end, a
// *lineError for a record that is no good, and any other error if it cannot go
// on.
type recordReader interface{ next() (record, error) }

// recordWriter writes one. flush has to be called at the end.
type recordWriter interface {
	write(r record) error
	flush() error
}

func newRecordReader(format string, r io.Reader) recordReader {
	if format == recordsCSV {
		bounded := &boundedReader{r: r}
		c := csv.NewReader(bounded)
		c.ReuseRecord = true
		return &csvRecords{in: c, bound: bounded}
	}
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), maxRecordSize)
	return &jsonRecords{lines: s}
}

func newRecordWriter(format string, w io.Writer) recordWriter {
	if format == recordsCSV {
		return &csvWriter{out: csv.NewWriter(w)}
	}
	return &jsonWriter{out: bufio.NewWriterSize(w, 64<<10)}
}

// jsonRecord is a line of JSON.
type jsonRecord struct {
	Key         *string `json:"key"`
	KeyEncoding string  `json:"key_encoding,omitempty"`
	Value       *string `json:"value"`
	Encoding    string  `json:"encoding,omitempty"`
	ExpiresAt   string  `json:"expires_at,omitempty"`
}

type jsonRecords struct {
	lines *bufio.Scanner
	line  int
}

func (j *jsonRecords) next() (record, error) {
	for j.lines.Scan() {
		j.line++
		text := bytes.TrimSpace(j.lines.Bytes())
		if len(text) == 0 {
			continue
		}
		r, err := parseJSONRecord(text)
		if err != nil {
			return record{line: j.line}, &lineError{j.line, err}
		}
		r.line = j.line
		return r, nil
	}
	switch err := j.lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return record{}, fmt.Errorf("line %d has more than %d bytes", j.line+1, maxRecordSize)
	case err != nil:
		return record{}, fmt.Errorf("behind line %d: %w", j.line, err)
	}
	return record{}, io.EOF
}

// parseJSONRecord refuses what encoding/json would change: the bytes stored are
// those that were written down.
func parseJSONRecord(text []byte) (record, error) {
	if !utf8.Valid(text) {
		return record{}, errors.New("it is not UTF-8; bytes have to be in base64, with the encoding said")
	}
	if at := jsontext.LoneSurrogate(text); at != "" {
		return record{}, fmt.Errorf("it has %s, half of a surrogate pair, which is no character", at)
	}
	var j jsonRecord
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	err := dec.Decode(&j)
	if err == nil {
		if _, err = dec.Token(); errors.Is(err, io.EOF) {
			err = nil
		} else {
			err = errors.New("there is something behind the object")
		}
	}
	switch {
	case err != nil:
		return record{}, fmt.Errorf("it is not the JSON object expected here: %s", strings.TrimPrefix(err.Error(), "json: "))
	case j.Key == nil:
		return record{}, errors.New("it has no key")
	case j.Value == nil:
		return record{}, errors.New("it has no value; a value is a string")
	}
	return decodeRecord(*j.Key, j.KeyEncoding, *j.Value, j.Encoding, j.ExpiresAt)
}

func decodeRecord(key, keyEncoding, value, encoding, expires string) (record, error) {
	k, err := decodeField("key", key, keyEncoding)
	if err != nil {
		return record{}, err
	}
	v, err := decodeField("value", value, encoding)
	if err != nil {
		return record{}, err
	}
	r := record{key: string(k), value: v}
	if expires != "" {
		if r.expires, err = time.Parse(time.RFC3339Nano, expires); err != nil {
			return record{}, fmt.Errorf("expires_at is %.40q; write an instant as in 2027-01-31T12:00:00Z", expires)
		}
	}
	return r, nil
}

func decodeField(name, text, encoding string) ([]byte, error) {
	switch encoding {
	case "":
		return []byte(text), nil
	case base64Word:
		b, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("the %s is not base64: %w", name, err)
		}
		return b, nil
	}
	return nil, fmt.Errorf("the encoding of the %s is %.20q; base64 or nothing is possible", name, encoding)
}

// csvColumns are those that a file of CSV may have; the first two it has to.
func csvColumns() []string { return []string{"key", "value", "key_encoding", "encoding", "expires_at"} }

type csvRecords struct {
	in    *csv.Reader
	bound *boundedReader
	// at is where each column is, -1 for one that is not there. Nil before the
	// header was read.
	at []int
}

func (c *csvRecords) next() (record, error) {
	c.bound.left = maxRecordSize
	if c.at == nil {
		if err := c.header(); err != nil {
			return record{}, err
		}
		c.bound.left = maxRecordSize
	}
	fields, err := c.in.Read()
	line := 0
	if len(fields) > 0 {
		line, _ = c.in.FieldPos(0)
	}
	switch {
	case errors.Is(err, csv.ErrFieldCount):
		return record{line: line}, &lineError{line, fmt.Errorf("it has %d fields, the header has %d", len(fields), c.in.FieldsPerRecord)}
	case c.bound.over:
		return record{}, errRecordSize // whatever the reader makes of it
	case err != nil:
		return record{}, err
	}
	field := func(column int) string {
		if c.at[column] < 0 {
			return ""
		}
		return fields[c.at[column]]
	}
	r, err := decodeRecord(field(0), field(2), field(1), field(3), field(4))
	r.line = line
	if err != nil {
		return r, &lineError{line, err}
	}
	return r, nil
}

func (c *csvRecords) header() error {
	names, err := c.in.Read()
	if errors.Is(err, io.EOF) {
		return errors.New("the file is empty; CSV begins with a header that names the columns key and value")
	}
	if err != nil {
		return err
	}
	names[0] = strings.TrimPrefix(names[0], "\uFEFF") // what some programs write before anything else
	at := []int{-1, -1, -1, -1, -1}
	for i, name := range names {
		n := slices.Index(csvColumns(), name)
		if n < 0 || at[n] >= 0 {
			return fmt.Errorf("line 1: the header names the column %.40q, which is none of %s, or twice", name, strings.Join(csvColumns(), ", "))
		}
		at[n] = i
	}
	if at[0] < 0 || at[1] < 0 {
		return errors.New("line 1: the header has to name the columns key and value")
	}
	c.at = at
	return nil
}

// boundedReader fails when more is read than left says: a quote that does not end
// must not fill the memory with the file.
type boundedReader struct {
	r    io.Reader
	left int
	over bool
}

var errRecordSize = fmt.Errorf("a record has more than %d bytes; a quote may be missing", maxRecordSize)

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		b.over = true
		return 0, errRecordSize
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

type jsonWriter struct{ out *bufio.Writer }

func (j *jsonWriter) write(in record) error {
	r := jsonRecord{ExpiresAt: timeText(in.expires)}
	k, v := in.key, string(in.value)
	if !utf8.ValidString(k) {
		k, r.KeyEncoding = base64.StdEncoding.EncodeToString([]byte(k)), base64Word
	}
	if !utf8.ValidString(v) {
		v, r.Encoding = base64.StdEncoding.EncodeToString(in.value), base64Word
	}
	r.Key, r.Value = &k, &v
	enc := json.NewEncoder(j.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}

func (j *jsonWriter) flush() error { return j.out.Flush() }

type csvWriter struct {
	out   *csv.Writer
	began bool
}

func (c *csvWriter) write(r record) error {
	if err := c.begin(); err != nil {
		return err
	}
	k, kenc := csvField(r.key)
	v, venc := csvField(string(r.value))
	return c.out.Write([]string{k, v, kenc, venc, timeText(r.expires)})
}

// begin writes the header once.
func (c *csvWriter) begin() error {
	if c.began {
		return nil
	}
	c.began = true
	return c.out.Write(csvColumns())
}

// csvField returns a field and its encoding. A carriage return goes in base64
// too: readers of CSV turn it and a line feed into one character.
func csvField(s string) (field, encoding string) {
	if utf8.ValidString(s) && !strings.ContainsAny(s, "\r\x00") {
		return s, ""
	}
	return base64.StdEncoding.EncodeToString([]byte(s)), base64Word
}

func (c *csvWriter) flush() error {
	if err := c.begin(); err != nil {
		return err
	}
	c.out.Flush()
	return c.out.Error()
}
