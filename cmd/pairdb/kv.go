package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

func (a *app) putCommand() *cobra.Command {
	var f clientFlags
	var cond conditionFlags
	var seenText, idempotencyKey string
	var literal bool
	cmd := &cobra.Command{
		Use:   "put K V|-|@FILE",
		Short: "Store a value under a key",
		Long: `Store a value under a key. The value is V, what stdin has (-), or what a file
has (@FILE); up to 10 MiB. The key is used as it is, // and .. included. A key
that begins with a dash goes after --.`,
		Example: "  pairdb put greeting hello\n  pairdb put photo @me.jpg\n  date | pairdb put now -\n  pairdb put lock me --ttl 30s --if-absent",
		GroupID: groupData,
		Args:    args("the key", "the value (V, - for stdin, or @FILE)"),
	}
	a.clientCommand(cmd, &f)
	tenantFlag(cmd, &f)
	levelFlag(cmd, &f)
	cmd.Flags().StringVar(&seenText, "context", "", "context of an earlier answer, as base64: replaces exactly what that answer had seen")
	cmd.Flags().BoolVar(&literal, "literal", false, "V is the value even if it is - or begins with @")
	idempotencyFlag(cmd, &idempotencyKey)
	cond.register(cmd, true)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		seen, err := parseContext(cmd, "context", seenText)
		if err != nil {
			return err
		}
		opts, err := cond.options(cmd)
		if err != nil {
			return err
		}
		opts = append(opts, once(cmd, idempotencyKey)...)
		value, err := a.readValue(cmd.Context(), args[1], literal)
		if err != nil {
			return err
		}
		return f.withClient(func(c *client.Client) error {
			r, err := c.Put(cmd.Context(), args[0], value, append(opts, client.WithLevel(f.level), client.WithContext(seen))...)
			if err != nil {
				return keyed(err, args[0])
			}
			return a.showWrite(f.output, "stored", args[0], r.Proto(), r.Dot, r.Acks, r.Level, r.Context)
		})
	}
	return cmd
}

func (a *app) deleteCommand() *cobra.Command {
	var f clientFlags
	var cond conditionFlags
	var seenText, idempotencyKey string
	cmd := &cobra.Command{
		Use:     "delete K",
		Short:   "Delete a key; deleting one that is not there succeeds",
		GroupID: groupData,
		Args:    args("the key"),
	}
	a.clientCommand(cmd, &f)
	tenantFlag(cmd, &f)
	levelFlag(cmd, &f)
	cmd.Flags().StringVar(&seenText, "context", "", "context of an earlier answer, as base64: deletes exactly what that answer had seen")
	idempotencyFlag(cmd, &idempotencyKey)
	cond.register(cmd, false)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		seen, err := parseContext(cmd, "context", seenText)
		if err != nil {
			return err
		}
		opts, err := cond.options(cmd)
		if err != nil {
			return err
		}
		opts = append(opts, once(cmd, idempotencyKey)...)
		return f.withClient(func(c *client.Client) error {
			r, err := c.Delete(cmd.Context(), args[0], append(opts, client.WithLevel(f.level), client.WithContext(seen))...)
			if err != nil {
				return keyed(err, args[0])
			}
			return a.showWrite(f.output, "deleted", args[0], r.Proto(), r.Dot, r.Acks, r.Level, r.Context)
		})
	}
	return cmd
}

func (a *app) getCommand() *cobra.Command {
	var f clientFlags
	var all bool
	cmd := &cobra.Command{
		Use:   "get K",
		Short: "Write the value of a key to stdout, byte for byte",
		Long: `Write the value of a key to stdout, byte for byte; only on a terminal a missing
line end is added. Exit code 3 says that there is no value. -o json shows what
else is known: siblings, when they were written, the context.

A key of a tenant that keeps siblings may have several values: get writes the
latest and says so. --all-siblings shows all of them and the context that put,
delete and resolve replace them with; with -o plain a line each, the value in
base64.`,
		GroupID: groupData,
		Args:    args("the key"),
	}
	cmd.Flags().BoolVar(&all, "all-siblings", false, "show all values of the key and their context, not the latest value alone")
	a.clientCommand(cmd, &f)
	tenantFlag(cmd, &f)
	levelFlag(cmd, &f)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return f.withClient(func(c *client.Client) error {
			r, err := c.Get(cmd.Context(), args[0], client.WithLevel(f.level))
			if err != nil {
				return keyed(err, args[0])
			}
			switch {
			case all:
				return a.show(f.output, siblingsView(r, f.output == formatPlain))
			case f.output == "" || f.output == formatPlain:
				return a.writeRaw(r)
			}
			return a.show(f.output, getView(r))
		})
	}
	return cmd
}

func (a *app) writeRaw(r *client.GetResult) error {
	if n := len(r.Siblings); n > 1 {
		a.note("pairdb: the key has %d siblings; this is the latest, --all-siblings shows all", n)
	}
	if err := a.write(r.Value); err != nil {
		return err
	}
	if isTerminal(a.stdout) && !bytes.HasSuffix(r.Value, []byte("\n")) {
		return a.write([]byte("\n"))
	}
	return nil
}

func getView(r *client.GetResult) view {
	v := view{data: r.Proto(), columns: []string{"VALUE", "BYTES", "WRITTEN", "EXPIRES", "DOT"}}
	for _, s := range r.Siblings {
		v.rows = append(v.rows, []string{short(string(s.Value), 40), strconv.Itoa(len(s.Value)), timeText(s.WrittenAt), timeText(s.ExpiresAt), dotText(s.Dot)})
	}
	return v
}

// siblingsView is getView under the context. In the plain format nothing is cut.
func siblingsView(r *client.GetResult, whole bool) view {
	v := getView(r)
	v.head = []string{"context: " + r.Context.String()}
	if whole {
		for i, s := range r.Siblings {
			v.rows[i][0] = base64.StdEncoding.EncodeToString(s.Value)
		}
	}
	return v
}

// showWrite shows what became of a write. Without a format only a person at a
// terminal is told, on stderr: scripts have the exit code.
func (a *app) showWrite(format, verb, key string, wire any, dot client.Dot, acks int, level client.Level, seen client.Context) error {
	if format == "" {
		if isTerminal(a.stderr) {
			a.note("%s %s (%s, %d acks)", verb, visible(key), level, acks)
		}
		return nil
	}
	return a.show(format, view{
		data:    wire,
		columns: []string{"KEY", "DOT", "ACKS", "CONSISTENCY", "CONTEXT"},
		rows:    [][]string{{visible(key), dotText(dot), strconv.Itoa(acks), level.String(), seen.String()}},
	})
}

func dotText(d client.Dot) string { return fmt.Sprintf("%016x:%d", d.Actor, d.Counter) }

func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func idempotencyFlag(cmd *cobra.Command, key *string) {
	cmd.Flags().StringVar(key, "idempotency-key", "", "1 to 256 bytes of your choice: what is repeated with it within 24 hours is done once")
}

// once is the option for the flag of idempotencyFlag, if it was given: an empty
// key, from a variable that is not set, is no way to ask for none.
func once(cmd *cobra.Command, key string) []client.CallOption {
	if !cmd.Flags().Changed("idempotency-key") {
		return nil
	}
	return []client.CallOption{client.WithIdempotencyKey(key)}
}

// parseContext reads a context from the value of a flag.
func parseContext(cmd *cobra.Command, flag, text string) (client.Context, error) {
	seen, err := client.ParseContext(text)
	if err != nil {
		f := usagef("%s: --%s: %v", cmd.CommandPath(), flag, err)
		f.next = "Pass the context of get -o json, put -o json or delete -o json as it is."
		return client.Context{}, f
	}
	return seen, nil
}

// keyed adds the key to the message of a failed operation.
func keyed(err error, key string) error {
	var e *client.Error
	if !errors.As(err, &e) {
		return err
	}
	named := *e
	named.Op = fmt.Sprintf("%s %s", e.Op, short(key, 64))
	return &named
}

// readValue finds the value that the word on the command line stands for.
func (a *app) readValue(ctx context.Context, word string, literal bool) ([]byte, error) {
	switch {
	case literal:
		return []byte(word), nil
	case word == "-":
		return readInput(ctx, "stdin", a.stdin)
	case len(word) > 0 && word[0] == '@':
		info, err := os.Stat(word[1:])
		if err == nil && !info.Mode().IsRegular() {
			// To open a pipe waits for its writer, whatever the signals say.
			err = fmt.Errorf("%s is no regular file; to read from a pipe, use - and redirect stdin", word[1:])
		}
		var file *os.File
		if err == nil {
			file, err = os.Open(word[1:])
		}
		if err != nil {
			f := usagef("put: the value is to come from a file: %v", err)
			f.next = "Correct the name, or use --literal if the value begins with @."
			return nil, f
		}
		defer file.Close() // only read from: nothing is lost if closing fails
		return readInput(ctx, word[1:], file)
	}
	return []byte(word), nil
}

// readInput reads up to the largest value. It does not wait for input that does
// not come after ctx has ended; the goroutine it leaves then ends with the
// process.
func readInput(ctx context.Context, name string, r io.Reader) ([]byte, error) {
	type result struct {
		value []byte
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := io.ReadAll(io.LimitReader(r, client.MaxValueSize+1))
		done <- result{value, err}
	}()
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case res := <-done:
		if res.err != nil {
			return nil, fmt.Errorf("read the value from %s: %w", name, res.err)
		}
		if len(res.value) > client.MaxValueSize {
			return nil, &failure{
				exit: errcode.Lookup(errcode.ValueTooLarge).Exit,
				what: fmt.Sprintf("put: %s: %s has more than %d bytes (10 MiB)", errcode.ValueTooLarge, visible(name), client.MaxValueSize),
				next: errcode.Lookup(errcode.ValueTooLarge).Action,
			}
		}
		return res.value, nil
	}
}
