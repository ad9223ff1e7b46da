package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

func (a *app) resolveCommand() *cobra.Command {
	var f clientFlags
	var literal bool
	cmd := &cobra.Command{
		Use:   "resolve K V|-|@FILE",
		Short: "Replace all siblings of a key with one value",
		Long: `Replace all siblings of a key with one value, given as for put. It reads the key
and writes with the context of what it read, so that exactly those siblings are
replaced; what they were is said on stderr. What others write in between is kept:
exit code 4 then says that the key has siblings again. Whether to resolve again is
for the caller to decide, since the value may have to take the new ones in.`,
		Example: "  pairdb get --all-siblings cart:7\n  pairdb resolve cart:7 @merged.json",
		GroupID: groupData,
		Args:    args("the key", "the value (V, - for stdin, or @FILE)"),
	}
	a.clientCommand(cmd, &f)
	tenantFlag(cmd, &f)
	cmd.Flags().BoolVar(&literal, "literal", false, "V is the value even if it is - or begins with @")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		value, err := a.readValue(cmd.Context(), args[1], literal)
		if err != nil {
			return err
		}
		return f.withClient(func(c *client.Client) error { return a.resolve(cmd, c, &f, args[0], value) })
	}
	return cmd
}

// resolve reads, writes, and looks whether it was enough, all at QUORUM.
func (a *app) resolve(cmd *cobra.Command, c *client.Client, f *clientFlags, key string, value []byte) error {
	level := client.WithLevel(client.LevelQuorum)
	before, err := c.Get(cmd.Context(), key, level)
	if client.CodeOf(err) == errcode.KeyNotFound {
		return &failure{
			exit: errcode.ExitNotFound, err: err,
			what: fmt.Sprintf("resolve %s: %s: the key has no value", short(key, 64), errcode.KeyNotFound),
			next: "Store a value with pairdb put.",
		}
	}
	if err != nil {
		return keyed(err, key)
	}
	if before.Context.IsZero() {
		return &failure{
			exit: errcode.ExitFailed,
			what: fmt.Sprintf("resolve %s: the read came without a context; nothing was written", short(key, 64)),
			why:  []string{"without one the value would stand beside the siblings"},
			next: "Delete the key, which deletes all it holds, and put the value.",
		}
	}
	r, err := c.Put(cmd.Context(), key, value, level, client.WithContext(before.Context))
	if err != nil {
		return keyed(err, key)
	}
	a.note("pairdb: replaced %s", siblingsText(before.Siblings))
	if err := a.showWrite(f.output, "stored", key, r.Proto(), r.Dot, r.Acks, r.Level, r.Context); err != nil {
		return err
	}
	after, err := c.Get(cmd.Context(), key, level)
	if client.CodeOf(err) == errcode.KeyNotFound {
		a.note("pairdb: the key was deleted since")
		return nil
	}
	if err != nil {
		f := describe(cmd.Context(), keyed(err, key))
		f.what = "the value is stored; whether others wrote in between is not known: " + f.what
		return f
	}
	if n := len(after.Siblings); n > 1 {
		return &failure{
			exit: errcode.ExitConflict,
			what: fmt.Sprintf("resolve %s: the value is stored, and the key has %d siblings again", short(key, 64), n),
			why:  []string{"others wrote in between; what they wrote was not seen and is kept"},
			next: "See pairdb get --all-siblings, and resolve again with a value that takes the new ones in.",
		}
	}
	return nil
}

// siblingsText names siblings for people.
func siblingsText(siblings []client.Sibling) string {
	count := "1 value"
	if n := len(siblings); n > 1 {
		count = fmt.Sprintf("%d siblings", n)
	}
	var names []string
	for _, s := range siblings {
		names = append(names, fmt.Sprintf("%s (%d bytes, written %s)", dotText(s.Dot), len(s.Value), timeText(s.WrittenAt)))
	}
	return count + ": " + strings.Join(names, ", ")
}
