package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

// maxFailedRecords bounds --max-failed, and so the list of a report.
const maxFailedRecords = 1_000_000

// recordOptions say which records to import, and how.
type recordOptions struct {
	importOptions
	file, format        string
	fromLine, maxFailed int
}

func (o *recordOptions) flags(cmd *cobra.Command) {
	formatFlag(cmd, &o.format)
	fs := cmd.Flags()
	fs.IntVar(&o.fromLine, "from-line", o.fromLine, "leave out the records before this line of the file")
	fs.IntVar(&o.maxFailed, "max-failed", o.maxFailed, "stop once this many records have failed, 1 to 1000000")
}

// formatFlag adds --format, which checkFormat checks.
func formatFlag(cmd *cobra.Command, format *string) {
	words := []string{recordsJSONL, recordsCSV}
	cmd.Flags().StringVar(format, "format", "", "jsonl or csv (default csv for a file that ends in .csv, else jsonl)")
	suggest(cmd, "format", words...)
}

func checkFormat(cmd *cobra.Command, format string) error {
	if words := []string{recordsJSONL, recordsCSV}; format != "" && !slices.Contains(words, format) {
		return wordError(cmd, "--format", format, words)
	}
	return nil
}

func (o *recordOptions) check(cmd *cobra.Command) error {
	for _, name := range []string{"dir", "verify", "verify-endpoint"} {
		if cmd.Flags().Changed(name) {
			return usagef("pairdb import: --%s is for a folder, and a file is named", name)
		}
	}
	if err := checkFormat(cmd, o.format); err != nil {
		return err
	}
	switch {
	case o.fromLine < 1:
		return usagef("pairdb import: --from-line is %d; lines are counted from 1", o.fromLine)
	case o.maxFailed < 1 || o.maxFailed > maxFailedRecords:
		return usagef("pairdb import: --max-failed is %d; it has to be 1 to %d", o.maxFailed, maxFailedRecords)
	}
	return o.checkBounds()
}

// recordReport is the result of an import of records.
type recordReport struct {
	Stored   int64          `json:"stored"`
	Bytes    int64          `json:"bytes"`
	Seconds  float64        `json:"seconds"`
	MBPerSec float64        `json:"mb_per_s"`
	Retried  int64          `json:"retried"`
	Failed   []recordFailed `json:"failed"`
	// NextLine is the line to go on from.
	NextLine int `json:"next_line"`
}

type recordFailed struct {
	Line   int    `json:"line"`
	Key    string `json:"key,omitempty"`
	Reason string `json:"reason"`
}

func (a *app) runRecordImport(cmd *cobra.Command, f *clientFlags, o *recordOptions) error {
	if err := o.check(cmd); err != nil {
		return err
	}
	in := a.stdin
	if o.file != "-" {
		file, err := os.Open(o.file)
		if err != nil {
			return fmt.Errorf("import: %w", err)
		}
		defer file.Close() // only read from: nothing is lost if closing fails
		in = file
	}
	return f.withClient(func(c *client.Client) error {
		// Asked first: a wrong endpoint or tenant is one error, not one a record.
		if _, err := c.GetTenant(cmd.Context(), f.tenant); err != nil {
			return err
		}
		res, err := a.importRecords(cmd.Context(), f, o, c, in)
		report := newRecordReport(res)
		a.note("imported %d records, %d bytes in %.2f s: %.1f MB/s, %d retried, %d failed",
			report.Stored, report.Bytes, report.Seconds, report.MBPerSec, report.Retried, len(report.Failed))
		if f.output != "" {
			err = errors.Join(err, a.show(f.output, report.view()))
		}
		return recordsError(o, res, err)
	})
}

// importRecords imports with a progress bar, if a person watches.
func (a *app) importRecords(ctx context.Context, f *clientFlags, o *recordOptions, to *client.Client, in io.Reader) (recordResult, error) {
	im := newRecordImporter(f.level, o.concurrency, o.rounds, o.maxFailed)
	im.moved.unit = "records"
	if isTerminal(a.stderr) && !isTerminal(a.stdin) {
		defer drawProgress(a.stderr, "importing", &im.moved)()
	}
	im.failed = func(r failedRecord) {
		key := ""
		if r.key != "" {
			key = " (" + short(r.key, 64) + ")"
		}
		a.note("failed line %d%s: %s", r.line, key, reasonText(r.err))
	}
	return im.run(ctx, to, newRecordReader(recordFormat(o.format, o.file), in), o.fromLine)
}

// recordsError says what to do about records that failed, or were not reached.
func recordsError(o *recordOptions, res recordResult, err error) error {
	again := fmt.Sprintf("go on with --from-line %d: every record before it is stored, or listed as failed", res.next)
	switch {
	case errors.Is(err, errTooManyFailed):
		return &failure{
			exit: errcode.ExitFailed, what: fmt.Sprintf("import: stopped, since %d records failed", len(res.failed)),
			next: "Correct them, or raise --max-failed, and " + again + ".",
		}
	case errors.Is(err, errInterrupted):
		return &failure{exit: errcode.ExitInterrupted, what: "interrupted", next: "To finish, " + again + "."}
	case err != nil && res.stored > 0:
		var ce *client.Error
		if errors.As(err, &ce) {
			f := describeClient(ce)
			f.next += " Then " + again + "."
			return f
		}
		return &failure{exit: errcode.ExitFailed, what: "import: " + err.Error(), next: "Correct the file, and " + again + ".", err: err}
	case err != nil:
		return fmt.Errorf("import: %w", err)
	case len(res.failed) > 0:
		return &failure{
			exit: errcode.ExitFailed, what: fmt.Sprintf("import: %d of %d records failed", len(res.failed), res.stored+int64(len(res.failed))),
			next: "Correct those lines and import them; a record that is stored already and imported again makes a difference only where siblings are kept.",
		}
	}
	return nil
}

func newRecordReport(r recordResult) recordReport {
	out := recordReport{
		Stored: r.stored, Bytes: r.bytes, Seconds: r.took.Seconds(), MBPerSec: megabytesPerSecond(r.bytes, r.took),
		Retried: r.retried, Failed: []recordFailed{}, NextLine: r.next,
	}
	for _, f := range r.failed {
		one := recordFailed{Line: f.line, Reason: reasonText(f.err)}
		if f.key != "" {
			one.Key = visible(f.key)
		}
		out.Failed = append(out.Failed, one)
	}
	return out
}

func (r recordReport) view() view {
	return view{
		data: r, columns: []string{"RECORDS", "BYTES", "SECONDS", "MB/S", "RETRIED", "FAILED", "NEXT LINE"},
		rows: [][]string{{
			strconv.FormatInt(r.Stored, 10), strconv.FormatInt(r.Bytes, 10), strconv.FormatFloat(r.Seconds, 'f', 2, 64),
			strconv.FormatFloat(r.MBPerSec, 'f', 1, 64), strconv.FormatInt(r.Retried, 10), strconv.Itoa(len(r.Failed)), strconv.Itoa(r.NextLine),
		}},
	}
}
