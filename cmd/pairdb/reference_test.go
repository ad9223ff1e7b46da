package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write docs/cli.md anew")

const cliReference = "../../docs/cli.md"

// TestCLIReferenceIsCurrent compares docs/cli.md with the commands. Write it anew
// with go test ./cmd/pairdb -run Reference -update.
func TestCLIReferenceIsCurrent(t *testing.T) {
	a := &app{getenv: func(string) string { return "" }}
	root := a.rootCommand()
	var b bytes.Buffer
	b.WriteString(`# Command line

<!-- Generated from cmd/pairdb; run make gen after a change there. -->

One binary is node and client. Data goes to stdout, everything else to stderr; progress is shown on a terminal alone, and
NO_COLOR is honoured. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 conflict, 5 consistency not reached, 6 cannot
connect, 7 not allowed, 8 timed out, 9 throttled or over quota, 10 unhealthy, 130 interrupted; [errors.md](errors.md) has the
one of each error code.

`)
	for _, g := range root.Groups() {
		fmt.Fprintf(&b, "%s ", g.Title)
		var names []string
		for _, c := range root.Commands() {
			if c.GroupID == g.ID {
				names = append(names, fmt.Sprintf("[%s](#pairdb-%[1]s)", c.Name()))
			}
		}
		fmt.Fprintf(&b, "%s\n\n", strings.Join(names, ", "))
	}
	for _, c := range root.Commands() {
		describeCommand(&b, c)
	}
	text := []byte(strings.TrimRight(b.String(), "\n") + "\n")
	if *update {
		if err := os.WriteFile(cliReference, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(cliReference)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, text) {
		t.Error("docs/cli.md is not what the commands say; run: make gen")
	}
}

// describeCommand writes a command and those below it.
func describeCommand(b *bytes.Buffer, cmd *cobra.Command) {
	text := cmd.Long
	if text == "" {
		text = cmd.Short + "."
	}
	fmt.Fprintf(b, "## %s\n\n```\n%s\n\n%s\n", cmd.CommandPath(), cmd.UseLine(), text)
	if cmd.Example != "" {
		fmt.Fprintf(b, "\nExamples:\n%s\n", cmd.Example)
	}
	if flags := ownFlags(cmd).FlagUsagesWrapped(100); flags != "" {
		fmt.Fprintf(b, "\nFlags:\n%s", flags)
	}
	b.WriteString("```\n\n")
	for _, c := range cmd.Commands() {
		describeCommand(b, c)
	}
}

// ownFlags are a command's flags without --help.
func ownFlags(cmd *cobra.Command) *pflag.FlagSet {
	own := pflag.NewFlagSet(cmd.Name(), pflag.ContinueOnError)
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" {
			own.AddFlag(f)
		}
	})
	return own
}
