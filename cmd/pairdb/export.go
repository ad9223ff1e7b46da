package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/client"
)

// exportOptions say what to export, and where to.
type exportOptions struct {
	prefix, format string
	file           string // "-": stdout
	force          bool
}

func (a *app) exportCommand() *cobra.Command {
	var f clientFlags
	o := exportOptions{file: "-"}
	cmd := a.clientCommand(&cobra.Command{
		Use:   "export [F|-]",
		Short: "Write every key and value of a tenant to a file or stdout, for import",
		Long: `Write every key and value of a tenant, or those whose keys begin with --prefix, to a file
or stdout: JSON lines, or CSV for a file that ends in .csv or with --format csv. pairdb
import --help shows both; what import makes of them is the same, byte for byte.

The values are read while others may write: each is one that its key had during the
export. Of a key with siblings the latest value is exported, and their number is said.
A value that was stored through POST /v1/key-value is exported as the text of its JSON.

A file appears under its name once all of it is there and synced; one that is there is
replaced with --force only. --timeout is for the wait for each page of the scan.`,
		Example: "  pairdb export --tenant shop dump.jsonl\n  pairdb export --prefix user/ > users.jsonl",
		GroupID: groupData,
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) == 0 {
				return nil
			}
			return args("the file, or - for stdout")(cmd, given)
		},
	}, &f)
	tenantFlag(cmd, &f)
	levelFlag(cmd, &f)
	formatFlag(cmd, &o.format)
	cmd.Flags().StringVar(&o.prefix, "prefix", "", "only keys that begin with this")
	cmd.Flags().BoolVar(&o.force, "force", false, "replace a file that is there")
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		if len(given) == 1 {
			o.file = given[0]
		}
		if err := checkFormat(cmd, o.format); err != nil {
			return err
		}
		if f.output != "" && o.file == "-" {
			return usagef("pairdb export: the records go to stdout, so that -o has no place; name a file")
		}
		return f.withClient(func(c *client.Client) error {
			report, err := a.export(cmd.Context(), c, &f, o)
			if err != nil {
				return err
			}
			a.note("exported %d records, %d bytes in %.2f s: %.1f MB/s", report.Records, report.Bytes, report.Seconds, report.MBPerSec)
			if report.Siblings > 0 {
				a.note("%d keys have siblings; the latest value of each was exported", report.Siblings)
			}
			if f.output == "" {
				return nil
			}
			return a.show(f.output, report.view())
		})
	}
	return cmd
}

// exportReport is the result of an export.
type exportReport struct {
	Records  int64   `json:"records"`
	Bytes    int64   `json:"bytes"`
	Siblings int64   `json:"keys_with_siblings"`
	Seconds  float64 `json:"seconds"`
	MBPerSec float64 `json:"mb_per_s"`
}

func (r exportReport) view() view {
	return view{
		data: r, columns: []string{"RECORDS", "BYTES", "WITH SIBLINGS", "SECONDS", "MB/S"},
		rows: [][]string{{
			strconv.FormatInt(r.Records, 10), strconv.FormatInt(r.Bytes, 10), strconv.FormatInt(r.Siblings, 10),
			strconv.FormatFloat(r.Seconds, 'f', 2, 64), strconv.FormatFloat(r.MBPerSec, 'f', 1, 64),
		}},
	}
}

// export writes to stdout, or to a file that is whole or not there.
func (a *app) export(ctx context.Context, c *client.Client, f *clientFlags, o exportOptions) (report exportReport, err error) {
	if o.file == "-" {
		return a.exportTo(ctx, c, f, o, a.stdout)
	}
	if _, err := os.Lstat(o.file); err == nil && !o.force {
		fail := usagef("pairdb export: there is a file %s already", o.file)
		fail.next = "Name another, or replace it with --force."
		return report, fail
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return report, fmt.Errorf("export: %w", err)
	}
	part, err := os.CreateTemp(filepath.Dir(o.file), "."+filepath.Base(o.file)+".*")
	if err != nil {
		return report, fmt.Errorf("export: %w", err)
	}
	defer func() {
		if err != nil {
			// What is half a file helps nobody; the error is told already.
			_ = os.Remove(part.Name())
		}
	}()
	report, err = a.exportTo(ctx, c, f, o, part)
	if err == nil {
		err = part.Sync()
	}
	if cerr := part.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(part.Name(), o.file)
	}
	return report, err
}

// expiryOf is when the value that is exported expires, the zero time for never.
func expiryOf(item *client.ScanItem) time.Time {
	if len(item.Siblings) == 0 {
		return time.Time{}
	}
	return item.Siblings[0].ExpiresAt
}

// exportTo scans the tenant with a progress bar, if a person watches.
func (a *app) exportTo(ctx context.Context, c *client.Client, f *clientFlags, o exportOptions, w io.Writer) (exportReport, error) {
	began := time.Now()
	moved := progress{unit: "records"}
	if isTerminal(a.stderr) && !isTerminal(w) {
		defer drawProgress(a.stderr, "exporting", &moved)()
	}
	var report exportReport
	out := newRecordWriter(recordFormat(o.format, o.file), w)
	scan := c.Scan(ctx, client.ScanOptions{Prefix: o.prefix}, client.WithLevel(f.level))
	defer scan.Close()
	for scan.Next() {
		item := scan.Item()
		if err := out.write(record{key: item.Key, value: item.Value, expires: expiryOf(item)}); err != nil {
			return report, fmt.Errorf("export: %w", err)
		}
		if len(item.Siblings) > 1 {
			report.Siblings++
		}
		moved.add(int64(len(item.Value)))
	}
	if err := scan.Err(); err != nil {
		return report, err
	}
	if err := out.flush(); err != nil {
		return report, fmt.Errorf("export: %w", err)
	}
	report.Records, report.Bytes, report.Seconds = moved.files.Load(), moved.bytes.Load(), time.Since(began).Seconds()
	report.MBPerSec = megabytesPerSecond(report.Bytes, time.Since(began))
	return report, nil
}
