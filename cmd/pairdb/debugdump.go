package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/zeebo/xxh3"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/node"
)

// dumpJSON is a line of debug dump: an object as a node holds it.
type dumpJSON struct {
	Partition uint16        `json:"partition"`
	Tenant    uint32        `json:"tenant_number"`
	Token     string        `json:"token"`
	Key       string        `json:"key_hex"`
	Context   []dumpDot     `json:"context"`
	Siblings  []dumpSibling `json:"siblings"`
}

// dumpSpanJSON is another: what the node knows of a partition beside its objects.
type dumpSpanJSON struct {
	Partition uint16        `json:"partition"`
	Owners    int           `json:"owners,omitempty"`
	Tenant    uint32        `json:"tenant,omitempty"`
	Confirmed dumpConfirmed `json:"confirmed"`
	Released  dumpConfirmed `json:"released"`
}

type dumpConfirmed struct {
	Seen    []dumpDot `json:"seen"`
	Expired int64     `json:"expired_unix_ms"`
}

// dumpDot is a dot; an actor has more digits than some readers of JSON take.
type dumpDot struct {
	Actor   string `json:"actor"`
	Counter uint64 `json:"counter"`
}

type dumpSibling struct {
	dumpDot
	HLC       uint64   `json:"hlc"`
	Flags     []string `json:"flags"`
	ExpiresAt int64    `json:"expires_at_unix_ms,omitempty"`
	Key       string   `json:"idempotency_key_hex,omitempty"`
	Bytes     int      `json:"value_bytes"`
	Hash      string   `json:"value_xxh3,omitempty"`
}

func (a *app) debugDumpCommand() *cobra.Command {
	var partitions string
	cmd := &cobra.Command{
		Use:   "dump DIR",
		Short: "Print all that a node that does not run holds, a line of JSON for each key",
		Long: `Print everything that a data directory holds of its objects: a line of JSON for each key,
in the order of partition, tenant number, token and key, with causal context and siblings,
deletes and expired values included; values as their length and their xxh3-128. Behind the
objects of a partition is what is confirmed of it, which all owners have had: of that, deletes
and expired values are collected. The dumps of two owners of a partition show what they
differ in. DIR is the --data-dir of an agent, or
the engine's directory itself, such as DIR/data or a checkpoint.

Nothing is written. The directory of a running node is refused. While the command runs the
node cannot be started. Exit code 1 says that something is damaged, 4 that the directory is
in use.`,
		Args: args("the data directory"),
	}
	cmd.Flags().StringVar(&partitions, "range", "", "partitions: one number, or the first and the last, such as 16-31 (default all)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		opts := node.DumpOptions{Last: math.MaxUint16}
		if cmd.Flags().Changed("range") {
			r, err := parsePartitions(partitions)
			if err == nil && r.GetLast() > math.MaxUint16 {
				err = fmt.Errorf("%d is no partition", r.GetLast())
			}
			if err != nil {
				fail := usagef("%s: --range %q: %v", cmd.CommandPath(), partitions, err)
				fail.next = "Name one partition, or the first and the last, such as --range 16-31."
				return fail
			}
			opts.First, opts.Last = uint16(r.GetFirst()), uint16(r.GetLast())
		}
		dir, err := engineDir(cmd, args[0])
		if err != nil {
			return err
		}
		out := bufio.NewWriter(a.stdout)
		d := dumper{out: out, lines: json.NewEncoder(out)}
		opts.Object, opts.Span = d.object, d.span
		err = errors.Join(node.Dump(cmd.Context(), dir, opts), out.Flush())
		if errors.Is(err, engine.ErrCorrupt) || errors.Is(err, engine.ErrFormat) {
			return debugFailed(dir, err)
		}
		if err != nil {
			return dirFailed(cmd, dir, "dump", err)
		}
		return nil
	}
	return cmd
}

// dumper writes lines.
type dumper struct {
	out   io.Writer
	lines *json.Encoder
}

func (d *dumper) object(k node.StorageKey, o *node.Object) error {
	line := dumpJSON{
		Partition: uint16(k.Partition), Tenant: uint32(k.Tenant), Token: fmt.Sprintf("%016x", uint64(k.Token)), Key: hex.EncodeToString(k.Key),
		Context: []dumpDot{}, Siblings: []dumpSibling{},
	}
	for _, dot := range o.Context {
		line.Context = append(line.Context, newDumpDot(dot.Actor, dot.Counter))
	}
	for i := range o.Siblings {
		s := &o.Siblings[i]
		j := dumpSibling{dumpDot: newDumpDot(s.Dot.Actor, s.Dot.Counter), HLC: s.HLC, Flags: s.Flags.Names(), Key: hex.EncodeToString(s.IdempotencyKey), Bytes: len(s.Value)}
		if at, ok := s.Expiry(); ok {
			j.ExpiresAt = at.UnixMilli()
		}
		if len(s.Value) > 0 {
			h := xxh3.Hash128(s.Value).Bytes()
			j.Hash = hex.EncodeToString(h[:])
		}
		line.Siblings = append(line.Siblings, j)
	}
	return d.lines.Encode(line)
}

func (d *dumper) span(s node.Span) error {
	return d.lines.Encode(dumpSpanJSON{s.Partition, s.RF, s.Tenant, newDumpConfirmed(&s.Confirmed), newDumpConfirmed(&s.Released)})
}

func newDumpConfirmed(c *node.Confirmed) dumpConfirmed {
	out := dumpConfirmed{Seen: []dumpDot{}, Expired: c.Expired}
	for _, dot := range c.Seen {
		out.Seen = append(out.Seen, newDumpDot(dot.Actor, dot.Counter))
	}
	return out
}

func newDumpDot(actor, counter uint64) dumpDot {
	return dumpDot{Actor: strconv.FormatUint(actor, 16), Counter: counter}
}

// dirFailed is what became of a command that reads the directory of a node.
func dirFailed(cmd *cobra.Command, dir, what string, err error) error {
	switch {
	case cmd.Context().Err() != nil:
		return cmd.Context().Err()
	case errors.Is(err, engine.ErrInUse):
		return &failure{
			exit: errcode.ExitConflict, what: fmt.Sprintf("%s: a running process has %s open", cmd.CommandPath(), visible(dir)), err: err,
			next: "Stop the node first.",
		}
	case errors.Is(err, engine.ErrNoDB):
		return &failure{
			exit: errcode.ExitNotFound, what: fmt.Sprintf("%s: %s holds no data of pairdb", cmd.CommandPath(), visible(dir)), err: err,
			next: "Name the --data-dir of an agent, or the engine's directory.",
		}
	}
	return &failure{exit: errcode.ExitFailed, what: fmt.Sprintf("%s: the %s did not come to its end", cmd.CommandPath(), what), why: []string{plainError(err)}, err: err}
}
