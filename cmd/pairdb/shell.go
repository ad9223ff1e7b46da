package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

// maxShellLine bounds a line: the largest value, every byte of it as \xff.
const maxShellLine = 4*client.MaxValueSize + 64<<10

func (a *app) shellCommand() *cobra.Command {
	var f clientFlags
	var keepGoing, noHistory bool
	cmd := &cobra.Command{
		Use:   "shell",
		Short: "Type commands at a prompt, or give them on stdin, a line each",
		Long: `Take commands, a line each: those of the groups data, cluster and look, with their
flags, as on the command line without the word pairdb. The flags given to shell are
what the lines go by that do not say otherwise; all lines share their connections.

At a terminal there is a prompt with history and completion (Tab). The history is kept in
$XDG_STATE_HOME/pairdb/history, or ~/.local/state/pairdb/history, for its owner alone;
--no-history keeps none. Ctrl-C at the prompt ends the shell, and while a command
runs that too.

Otherwise lines are read from stdin until one fails; its exit code is that of the
shell, and its number is said. --keep-going runs the others as well and ends with the
exit code of the first that failed. What they write is as it is outside of the shell: get
writes the bytes of a value and no line end after them; -o jsonl does.

Beside the commands there are:
  use TENANT   the tenant of the lines that follow
  help [VERB]  what there is
  exit         end the shell, as does the end of the input

` + quotingHelp,
		Example: "  pairdb shell --tenant shop\n  printf 'put a 1\\nput b 2\\n' | pairdb shell",
		GroupID: groupData,
		Args:    args(),
	}
	a.clientCommand(cmd, &f)
	tenantFlag(cmd, &f)
	levelFlag(cmd, &f)
	cmd.Flags().BoolVar(&keepGoing, "keep-going", false, "on stdin: go on after a line that failed")
	cmd.Flags().BoolVar(&noHistory, "no-history", false, "at a terminal: remember nothing beyond the end")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s := newShell(a, &f)
		defer s.close()
		if in, ok := a.stdin.(*os.File); ok && isTerminal(in) && isTerminal(a.stdout) {
			return s.interact(cmd.Context(), in, noHistory)
		}
		return s.script(cmd.Context(), a.stdin, keepGoing)
	}
	return cmd
}

// shell runs lines one after the other. It is used by one goroutine.
type shell struct {
	app  *app // what the lines run as
	exit bool // a line asked for the end
}

// newShell returns a shell whose lines go by f unless they say otherwise. The
// caller closes it.
func newShell(a *app, f *clientFlags) *shell {
	inner := *a
	inner.stdin = noStdin{}
	inner.session = &session{flags: f, clients: map[string]*client.Client{}}
	return &shell{app: &inner}
}

// close ends the connections. What may be lost by that was answered before.
func (s *shell) close() {
	for _, c := range s.app.session.clients {
		_ = c.Close()
	}
}

// noStdin is the stdin of a line: the shell's own holds the next line.
type noStdin struct{}

func (noStdin) Read([]byte) (int, error) {
	return 0, errors.New("in the shell stdin holds the lines; give the value itself, or @FILE")
}

// commands returns the commands of the shell: some of the program's own.
func (s *shell) commands() *cobra.Command {
	root := s.app.rootCommand()
	for _, c := range root.Commands() {
		switch {
		case c.Name() == "shell":
			root.RemoveCommand(c)
		case c.GroupID != groupData && c.GroupID != groupCluster && c.GroupID != groupLook:
			root.RemoveCommand(c)
		}
	}
	root.Long = "The commands of the shell. use TENANT changes the tenant, exit ends."
	root.CompletionOptions.DisableDefaultCmd = true
	return root
}

// run executes one line and returns its exit code. Errors are told on stderr.
func (s *shell) run(ctx context.Context, line string) int {
	words, err := splitWords(line)
	if err != nil {
		f := usagef("the line cannot be read: %v", err)
		f.next = "help shows the rules of quoting."
		return s.app.report(ctx, f)
	}
	if len(words) == 0 {
		return errcode.ExitOK
	}
	switch words[0] {
	case "exit", "quit":
		s.exit = true
		return s.app.report(ctx, args()(&cobra.Command{Use: words[0]}, words[1:]))
	case "use":
		return s.app.report(ctx, s.use(ctx, words[1:]))
	case "help":
		if len(words) == 1 {
			s.app.note("%s\n", quotingHelp)
		}
	}
	return s.app.execute(ctx, s.commands(), words)
}

// use changes the tenant of the lines that follow, if there is such a tenant.
func (s *shell) use(ctx context.Context, given []string) error {
	cmd := &cobra.Command{Use: "use TENANT"}
	if err := args("the tenant")(cmd, given); err != nil {
		return err
	}
	next := *s.app.session.flags
	next.tenant, next.session = given[0], s.app.session
	err := next.withClient(func(c *client.Client) error {
		_, err := c.GetTenant(ctx, given[0])
		return keyed(err, given[0])
	})
	if err == nil {
		s.app.session.flags.tenant = given[0]
	}
	return err
}

// script runs the lines of a reader.
func (s *shell) script(ctx context.Context, in io.Reader, keepGoing bool) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 64<<10), maxShellLine)
	var first *quietExit
	n := 0
	for !s.exit && lines.Scan() {
		n++
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		code := s.run(ctx, lines.Text())
		if code == errcode.ExitOK {
			continue
		}
		if code == errcode.ExitInterrupted {
			return &quietExit{code}
		}
		s.app.note("pairdb shell: line %d failed", n)
		if first == nil {
			first = &quietExit{code}
		}
		if !keepGoing {
			break
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return usagef("pairdb shell: line %d has more than %d bytes", n+1, maxShellLine)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the commands: %w", err)
	}
	if first != nil {
		return first
	}
	return nil
}

// interact talks to a person until the end of the input.
func (s *shell) interact(ctx context.Context, in *os.File, noHistory bool) error {
	path := ""
	if !noHistory {
		path = s.app.historyFile()
	}
	past, err := openHistory(path)
	if err != nil {
		s.app.note("pairdb shell: %v", err)
	}
	// One editor for all lines: it may have read more than one of a paste.
	t := s.terminal(struct {
		io.Reader
		io.Writer
	}{in, s.app.stdout}, past)
	err = s.converse(ctx, func() (string, error) { return s.readRaw(t, int(in.Fd())) })
	if herr := past.close(); herr != nil {
		s.app.note("pairdb shell: the history is not whole: %v", herr)
	}
	return err
}

// readRaw reads a line from a terminal, which is raw only for that long: the
// Ctrl-C that ends a command is a signal.
func (s *shell) readRaw(t *term.Terminal, fd int) (string, error) {
	state, err := term.MakeRaw(fd)
	if err != nil {
		return "", fmt.Errorf("read from the terminal: %w", err)
	}
	if w, h, err := term.GetSize(fd); err == nil && w > 0 && h > 0 { // some terminals do not know it
		_ = t.SetSize(w, h) // a size it does not like leaves it as it was
	}
	t.SetPrompt(s.prompt())
	line, err := t.ReadLine()
	return line, errors.Join(err, term.Restore(fd, state))
}

// converse runs the lines that read returns until io.EOF.
func (s *shell) converse(ctx context.Context, read func() (string, error)) error {
	for !s.exit {
		line, err := read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if code := s.run(ctx, line); code == errcode.ExitInterrupted {
			return &quietExit{code}
		}
	}
	return nil
}

// terminal returns a line editor with the prompt, the history and completion.
func (s *shell) terminal(rw io.ReadWriter, past *history) *term.Terminal {
	t := term.NewTerminal(rw, s.prompt())
	t.History = past
	t.AutoCompleteCallback = func(line string, pos int, key rune) (string, int, bool) {
		if key != '\t' {
			return "", 0, false
		}
		c := s.complete(line, pos)
		if len(c.choices) > 0 {
			// A terminal that takes no list takes no prompt either.
			_, _ = io.WriteString(t, strings.Join(c.choices, "  ")+"\n")
		}
		return c.line, c.pos, true
	}
	return t
}

func (s *shell) prompt() string { return visible(s.app.session.flags.tenant) + "> " }

// quietExit ends the program with an exit code; everything was said before.
type quietExit struct{ code int }

func (q *quietExit) Error() string { return fmt.Sprintf("exit code %d", q.code) }
