package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/node"
)

// dirJSON is the result of debug verify for programs.
type dirJSON struct {
	Directory      string       `json:"directory"`
	Sound          bool         `json:"sound"`
	Manifest       uint64       `json:"manifest"` // 0: none could be read
	Tables         int          `json:"tables"`
	TableBytes     int64        `json:"table_bytes"`
	Segments       int          `json:"log_segments"`
	LogRecords     int64        `json:"log_records"`
	LogBytes       int64        `json:"log_bytes"`
	TornBytes      int64        `json:"log_torn_bytes"`
	LastSeq        uint64       `json:"last_seq"`
	Damage         []damageJSON `json:"damage"`
	DamageOmitted  int          `json:"damage_omitted"`
	Orphans        []orphanJSON `json:"orphans"`
	OrphansOmitted int          `json:"orphans_omitted"`
}

type damageJSON struct {
	File   string `json:"file"`   // empty: not one file alone
	Offset int64  `json:"offset"` // -1: the whole file
	Reason string `json:"reason"`
}

type orphanJSON struct {
	File   string `json:"file"`
	Bytes  int64  `json:"bytes"`
	Reason string `json:"reason"`
}

func (a *app) debugVerifyCommand() *cobra.Command {
	var f debugFlags
	cmd := a.withDebugFlags(&cobra.Command{
		Use:   "verify DIR",
		Short: "Check the data of a node that does not run",
		Long: `Check everything in a data directory: every block of every table, the manifest against
the files there are, the log up to its end. DIR is the --data-dir of an agent, or the
engine's directory itself, such as DIR/data or a checkpoint. Damage is listed with file
and offset, files that nothing needs as orphans; those are no damage.

Nothing is written. The directory of a running node is refused, since its files change
under the eyes: ask the node itself with pairdb verify. While the check runs the node
cannot be started. Exit code 0 says that all is sound, 1 that something is not, 4 that
the directory is in use.`,
		Args: args("the data directory"),
	}, &f)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		dir, err := engineDir(cmd, args[0])
		if err != nil {
			return err
		}
		line := a.liveLine()
		report, err := engine.VerifyDir(cmd.Context(), vfs.OS(), dir, engine.VerifyOptions{Progress: func(p engine.Progress) {
			line.show("verify: %s of %s", bytesText(uint64(p.Done)), bytesText(uint64(p.Total)))
		}})
		line.clear()
		if err != nil {
			return verifyFailed(cmd, dir, err)
		}
		out := newDirJSON(dir, &report)
		if err := a.show(f.output, dirView(&out, f.limit)); err != nil {
			return err
		}
		var why []string
		for _, d := range out.Damage {
			why = append(why, d.text())
		}
		return foundDamage(dir, len(out.Damage)+out.DamageOmitted, why)
	}
	return cmd
}

// engineDir finds the engine's directory in what the user named.
func engineDir(cmd *cobra.Command, dir string) (string, error) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", &failure{exit: errcode.ExitNotFound, what: fmt.Sprintf("%s: there is no directory %s", cmd.CommandPath(), visible(dir)), err: err}
	case err != nil:
		return "", &failure{exit: errcode.ExitFailed, what: fmt.Sprintf("%s: %v", cmd.CommandPath(), err), err: err}
	case !info.IsDir():
		f := usagef("%s: %s is no directory", cmd.CommandPath(), visible(dir))
		f.next = "Look at a single file with pairdb debug sst, wal or manifest."
		return "", f
	}
	// The folder of an agent has no files of the engine itself.
	if _, err := os.Stat(filepath.Join(dir, "CURRENT")); errors.Is(err, fs.ErrNotExist) {
		below := filepath.Join(dir, node.EngineDir)
		if info, err := os.Stat(below); err == nil && info.IsDir() {
			return below, nil
		}
	}
	return dir, nil
}

func verifyFailed(cmd *cobra.Command, dir string, err error) error {
	err = dirFailed(cmd, dir, "check", err)
	var f *failure
	if errors.As(err, &f) && errors.Is(f.err, engine.ErrInUse) {
		f.next = "Ask the node itself with pairdb verify, or stop it first."
	}
	return err
}

func newDirJSON(dir string, r *engine.DirReport) dirJSON {
	out := dirJSON{
		Directory: dir, Sound: len(r.Damage) == 0, Manifest: r.Manifest, Tables: r.Tables, TableBytes: r.TableBytes,
		Segments: r.Segments, LogRecords: r.LogRecords, LogBytes: r.LogBytes, TornBytes: r.TornBytes, LastSeq: uint64(r.LastSeq),
		Damage: []damageJSON{}, DamageOmitted: r.Omitted, Orphans: []orphanJSON{}, OrphansOmitted: r.OmittedOrphans,
	}
	for _, err := range r.Damage {
		d := damageJSON{Offset: -1, Reason: plainError(err)}
		var ce *base.CorruptError
		if errors.As(err, &ce) {
			d = damageJSON{File: strings.TrimPrefix(ce.File, filepath.Clean(dir)+"/"), Offset: ce.Offset, Reason: plainError(ce.Err)}
		}
		out.Damage = append(out.Damage, d)
	}
	for _, o := range r.Orphans {
		out.Orphans = append(out.Orphans, orphanJSON{File: o.Name, Bytes: o.Bytes, Reason: o.Why})
	}
	return out
}

func (d damageJSON) text() string {
	switch {
	case d.File == "":
		return d.Reason
	case d.Offset < 0:
		return visible(d.File) + ": " + d.Reason
	default:
		return fmt.Sprintf("%s at %d: %s", visible(d.File), d.Offset, d.Reason)
	}
}

func dirView(o *dirJSON, limit int) view {
	verdict := "sound"
	if n := len(o.Damage) + o.DamageOmitted; n > 0 {
		verdict = fmt.Sprintf("DAMAGED in %d places", n)
	}
	manifest := "none can be read: every table and segment was looked at by itself"
	if o.Manifest != 0 {
		manifest = fmt.Sprintf("%06d", o.Manifest)
	}
	v := view{data: o, items: []any{}, head: []string{
		"directory " + visible(o.Directory),
		"verdict   " + verdict,
		"manifest  " + manifest,
		fmt.Sprintf("tables    %d, %s", o.Tables, sizeText(o.TableBytes)),
		fmt.Sprintf("log       %d segments, %d records, %s; unacknowledged tail %d bytes", o.Segments, o.LogRecords, sizeText(o.LogBytes), o.TornBytes),
		fmt.Sprintf("sequence  up to %d", o.LastSeq),
	}}
	if len(o.Damage)+len(o.Orphans) == 0 {
		return v
	}
	v.columns = []string{"FINDING", "FILE", "OFFSET", "BYTES", "WHAT"}
	for _, d := range o.Damage {
		offset, file := "", ""
		if d.Offset >= 0 {
			offset = strconv.FormatInt(d.Offset, 10)
		}
		if d.File != "" {
			file = visible(d.File)
		}
		v.items = append(v.items, d)
		v.rows = append(v.rows, []string{"damage", file, offset, "", d.Reason})
	}
	for _, r := range o.Orphans {
		v.items = append(v.items, r)
		v.rows = append(v.rows, []string{"orphan", visible(r.File), "", strconv.FormatInt(r.Bytes, 10), r.Reason})
	}
	left := o.DamageOmitted + o.OrphansOmitted
	if len(v.rows) > limit {
		left += len(v.rows) - limit
		v.rows, v.items = v.rows[:limit], v.items[:limit]
	}
	if left > 0 {
		v.head = append(v.head, fmt.Sprintf("cut       %d more findings", left))
	}
	return v
}
