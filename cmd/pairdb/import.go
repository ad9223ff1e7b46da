package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

// maxSkippedShown bounds the lines about entries that are no regular files.
const maxSkippedShown = 20

// importFigures is one pass in the result of an import.
type importFigures struct {
	Endpoint string        `json:"endpoint,omitempty"`
	Files    int64         `json:"files"`
	Bytes    int64         `json:"bytes"`
	Seconds  float64       `json:"seconds"`
	MBPerSec float64       `json:"mb_per_s"`
	Retried  int           `json:"retried"`
	Failed   []importEntry `json:"failed"`
}

// importEntry is a file and what is to be said of it.
type importEntry struct {
	Key    string `json:"key"`
	Reason string `json:"reason"`
}

// importReport is the whole result.
type importReport struct {
	importFigures
	Skipped  []importEntry  `json:"skipped"`
	Verified *importFigures `json:"verified,omitempty"`
}

func (a *app) importCommand() *cobra.Command {
	var f clientFlags
	o := importOptions{concurrency: 64, rounds: 6}
	cmd := a.clientCommand(&cobra.Command{
		Use:   "import --dir D | F|-",
		Short: "Store every file of a folder, or every record of a file (F, - for stdin)",
		Long: `With --dir, store every regular file below a folder. The key is the path below the
folder, with slashes; symbolic links are reported and not followed. Files that fail are
tried again in further rounds, through the other endpoints too; what fails still
is listed, and the exit code is 1. --timeout is for one file.

Otherwise store every record of a file, as pairdb export writes it. A file that ends in
.csv is CSV, any other JSON lines, unless --format says otherwise:

  {"key":"k","value":"v"}
  {"key":"/w==","key_encoding":"base64","value":"/w==","encoding":"base64"}

  key,value,key_encoding,encoding,expires_at
  k,v,,,2100-01-31T12:00:00Z
  /w==,/w==,base64,base64,

key and value are strings, or base64 where their encoding says so: for bytes that are not
UTF-8. A value with expires_at expires then; one that is past already fails. CSV needs the first two columns, in any order. Where a key comes several times the
last value stays. Records that fail are tried again, and listed with their lines if they
fail still; the exit code is then 1. An import that was stopped says the line to go on from,
with --from-line: every record before it is stored, or was listed. In a tenant that keeps
siblings an imported value stands beside what is there, itself included if it is imported
a second time.`,
		Example: "  pairdb import --dir ./photos --verify\n  pairdb import dump.jsonl --tenant shop\n  pairdb export --tenant shop | pairdb import - --tenant copy",
		GroupID: groupData,
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) == 0 {
				return nil
			}
			return args("the file, or - for stdin")(cmd, given)
		},
	}, &f)
	rec := recordOptions{fromLine: 1, maxFailed: 1000}
	tenantFlag(cmd, &f)
	levelFlag(cmd, &f)
	fs := cmd.Flags()
	fs.StringVar(&o.dir, "dir", "", "the folder")
	fs.IntVar(&o.concurrency, "concurrency", o.concurrency, "files or records in flight, 1 to 1024; their bytes are bounded too, at 64 MiB")
	fs.IntVar(&o.rounds, "retries", o.rounds, "further tries of what failed, 0 to 100")
	fs.BoolVar(&o.verify, "verify", false, "with --dir: read every file back and compare it byte for byte")
	fs.StringSliceVar(&o.verifyEndpoints, "verify-endpoint", nil, "with --dir: read back through this node (default: another node than the one written through)")
	rec.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		if len(given) == 1 {
			rec.importOptions, rec.file = o, given[0]
			return a.runRecordImport(cmd, &f, &rec)
		}
		for _, name := range []string{"format", "from-line", "max-failed"} {
			if cmd.Flags().Changed(name) {
				return usagef("pairdb import: --%s is for a file of records, and none is named", name)
			}
		}
		if len(o.verifyEndpoints) > 0 {
			o.verify = true
		}
		if err := o.check(); err != nil {
			return err
		}
		report, err := a.importFolder(cmd.Context(), &f, o)
		if f.output != "" {
			if serr := a.show(f.output, report.view()); serr != nil && err == nil {
				err = serr
			}
		}
		return err
	}
	return cmd
}

// importOptions says what to import, and how.
type importOptions struct {
	dir                 string
	concurrency, rounds int
	verify              bool
	verifyEndpoints     []string
}

func (o *importOptions) check() error {
	if o.dir == "" {
		f := usagef("pairdb import: neither a folder nor a file is named")
		f.next = "Usage: pairdb import --dir D, or pairdb import F, with - for stdin"
		return f
	}
	if err := o.checkBounds(); err != nil {
		return err
	}
	for _, e := range o.verifyEndpoints {
		if _, err := client.NormalizeEndpoint(e); err != nil {
			return usagef("pairdb import: --verify-endpoint: %v", err)
		}
	}
	// A folder that is itself a link is what was asked for.
	dir, err := filepath.EvalSymlinks(o.dir)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("import: %s is no folder", o.dir)
	}
	o.dir = dir
	return nil
}

// checkBounds checks what an import of files and one of records have in common.
func (o *importOptions) checkBounds() error {
	switch {
	case o.concurrency < 1 || o.concurrency > 1024:
		return usagef("pairdb import: --concurrency is %d; it has to be 1 to 1024", o.concurrency)
	case o.rounds < 0 || o.rounds > 100:
		return usagef("pairdb import: --retries is %d; it has to be 0 to 100", o.rounds)
	}
	return nil
}

// importFolder imports, verifies if asked to, and tells people on stderr.
func (a *app) importFolder(ctx context.Context, f *clientFlags, o importOptions) (importReport, error) {
	var report importReport
	err := f.withClient(func(c *client.Client) error {
		// Asked first: a wrong endpoint or tenant is one error, not one a file.
		if _, err := c.GetTenant(ctx, f.tenant); err != nil {
			return err
		}
		im := newImporter(o.dir, f.level, o.concurrency, o.rounds)
		im.skipped = func(path, reason string) {
			report.Skipped = append(report.Skipped, importEntry{visible(path), reason})
		}
		up, err := a.pass(ctx, "importing", im, func() (transferResult, error) { return im.upload(ctx, c.Batcher(), o.verify) })
		report.importFigures = figures("", up)
		a.noteSkipped(report.Skipped)
		a.notePass("imported", report.importFigures)
		if err != nil {
			return err
		}
		if !o.verify {
			return failedError("import", up)
		}
		verified, err := a.verifyFolder(ctx, f, o, c, im, up.done)
		report.Verified = verified
		return errors.Join(failedError("import", up), err)
	})
	return report, err
}

// verifyFolder reads back through another node.
func (a *app) verifyFolder(ctx context.Context, f *clientFlags, o importOptions, c *client.Client, im *importer, files []sourceFile) (*importFigures, error) {
	endpoints := o.verifyEndpoints
	if len(endpoints) == 0 {
		var err error
		if endpoints, err = otherEndpoints(ctx, c); err != nil {
			return nil, err
		}
	}
	if len(endpoints) == 0 {
		a.note("there is no other node to read back through; the same is used")
		endpoints = f.endpoints
	}
	reader, err := f.connectTo(endpoints)
	if err != nil {
		return nil, err
	}
	back, err := a.pass(ctx, "verifying", im, func() (transferResult, error) { return im.verify(ctx, reader, files) })
	fig := figures(reader.Endpoint(), back)
	a.notePass("verified", fig)
	return &fig, errors.Join(err, failedError("verify", back), reader.Close())
}

// otherEndpoints returns the client addresses of nodes that are up, other than
// the one c talks to.
func otherEndpoints(ctx context.Context, c *client.Client) ([]string, error) {
	st, err := c.Status(ctx)
	if err != nil {
		return nil, err
	}
	var others []string
	for _, n := range st.GetNodes() {
		at, err := client.NormalizeEndpoint(n.GetAddresses().GetGrpc())
		if err == nil && n.GetState() == "up" && at != c.Endpoint() {
			others = append(others, at)
		}
	}
	return others, nil
}

// pass runs one pass with a progress bar, if a person watches.
func (a *app) pass(ctx context.Context, verb string, im *importer, run func() (transferResult, error)) (transferResult, error) {
	if isTerminal(a.stderr) {
		if !im.moved.known.Load() {
			ctx, cancel := context.WithCancel(ctx)
			var counting sync.WaitGroup
			counting.Go(func() { im.moved.countAhead(ctx, im.dir) })
			defer counting.Wait()
			defer cancel()
		}
		defer drawProgress(a.stderr, verb, &im.moved)()
	}
	return run()
}

func figures(endpoint string, r transferResult) importFigures {
	f := importFigures{
		Endpoint: endpoint, Files: r.files, Bytes: r.bytes, Seconds: r.took.Seconds(),
		MBPerSec: megabytesPerSecond(r.bytes, r.took), Retried: r.retried, Failed: []importEntry{},
	}
	for _, failed := range r.failed {
		f.Failed = append(f.Failed, importEntry{visible(failed.file.key), reasonText(failed.err)})
	}
	return f
}

func reasonText(err error) string {
	var e *client.Error
	if errors.As(err, &e) {
		return string(e.Code) + ": " + e.Message
	}
	return err.Error()
}

func (a *app) noteSkipped(skipped []importEntry) {
	for i, s := range skipped {
		if i == maxSkippedShown {
			a.note("skipped %d more", len(skipped)-i)
			return
		}
		a.note("skipped %s: %s", s.Key, s.Reason)
	}
}

func (a *app) notePass(verb string, f importFigures) {
	for _, failed := range f.Failed {
		a.note("failed %s: %s", failed.Key, failed.Reason)
	}
	through := ""
	if f.Endpoint != "" {
		through = " through " + f.Endpoint
	}
	a.note("%s %d files, %d bytes in %.2f s%s: %.1f MB/s, %d retried, %d failed",
		verb, f.Files, f.Bytes, f.Seconds, through, f.MBPerSec, f.Retried, len(f.Failed))
}

// failedError is nil if nothing failed.
func failedError(op string, r transferResult) error {
	if len(r.failed) == 0 {
		return nil
	}
	return &failure{
		exit: errcode.ExitFailed,
		what: fmt.Sprintf("%s: %d of %d files failed", op, len(r.failed), r.files+int64(len(r.failed))),
		next: "Run it again; files that are stored already are stored again, which does no harm.",
	}
}

func (r importReport) view() view {
	if r.Skipped == nil {
		r.Skipped = []importEntry{}
	}
	if r.Failed == nil {
		r.Failed = []importEntry{}
	}
	v := view{data: r, columns: []string{"PASS", "FILES", "BYTES", "SECONDS", "MB/S", "RETRIED", "FAILED"}}
	v.rows = append(v.rows, r.importFigures.row("import"))
	if r.Verified != nil {
		v.rows = append(v.rows, r.Verified.row("verify"))
	}
	return v
}

func (f importFigures) row(pass string) []string {
	return []string{
		pass, strconv.FormatInt(f.Files, 10), strconv.FormatInt(f.Bytes, 10),
		strconv.FormatFloat(f.Seconds, 'f', 2, 64), strconv.FormatFloat(f.MBPerSec, 'f', 1, 64),
		strconv.Itoa(f.Retried), strconv.Itoa(len(f.Failed)),
	}
}
