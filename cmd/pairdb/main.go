// Command pairdb is the one binary of PairDB: it runs a node, and it is the
// client of a cluster. Flags go in, data comes out on stdout, everything else
// on stderr, and the exit code says how it went.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// errInterrupted is the cause of a context that a signal ended.
var errInterrupted = errors.New("interrupted")

func main() {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-signals
		// From here on a second signal ends the process at once.
		signal.Stop(signals)
		cancel(errInterrupted)
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// app is one run of the program: where its input comes from and its output
// goes.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	// executable is this program's file, which dev starts as its children.
	executable func() (string, error)
	// session is what the lines of a shell share, nil outside of one.
	session *session
}

// run executes one command line and returns the exit code. The environment is
// the process's.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, getenv: os.Getenv, executable: os.Executable}
	return a.run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) int {
	return a.execute(ctx, a.rootCommand(), args)
}

// execute runs a command line of root's commands and returns the exit code.
func (a *app) execute(ctx context.Context, root *cobra.Command, args []string) int {
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	if err := unknownCommand(root, args); err != nil {
		return a.report(ctx, err)
	}
	return a.report(ctx, root.ExecuteContext(ctx))
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "pairdb",
		Short: "A distributed, multi-tenant key-value store in one binary",
		Long: `PairDB is a distributed, multi-tenant key-value store in one binary.

  pairdb dev                 three nodes on this machine, to play with
  pairdb put greeting hello  store a value
  pairdb get greeting        read it`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(flagError)
	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Run:"},
		&cobra.Group{ID: groupData, Title: "Data:"},
		&cobra.Group{ID: groupCluster, Title: "Cluster:"},
		&cobra.Group{ID: groupUpkeep, Title: "Upkeep:"},
		&cobra.Group{ID: groupLook, Title: "Look:"},
		&cobra.Group{ID: groupTrouble, Title: "Trouble:"},
		&cobra.Group{ID: groupMeta, Title: "More:"},
	)
	for _, cmd := range []*cobra.Command{
		a.agentCommand(), a.devCommand(), a.configCommand(), a.keygenCommand(), a.serviceCommand(),
		a.putCommand(), a.getCommand(), a.deleteCommand(), a.scanCommand(), a.resolveCommand(),
		a.importCommand(), a.exportCommand(), a.shellCommand(), a.tenantCommand(),
		a.statusCommand(), a.membersCommand(), a.ringCommand(), a.healthCommand(), a.clusterCommand(), a.nodeCommand(), a.transfersCommand(),
		a.flushCommand(), a.compactCommand(), a.verifyCommand(), a.repairCommand(), a.hintsCommand(), a.statsCommand(), a.eventsCommand(), a.debugCommand(),
		a.benchCommand(), a.versionCommand(),
	} {
		root.AddCommand(cmd)
	}
	root.SetHelpCommandGroupID(groupMeta)
	root.SetCompletionCommandGroupID(groupMeta)
	return root
}

// The groups of the help text.
const (
	groupRun     = "run"
	groupData    = "data"
	groupCluster = "cluster"
	groupUpkeep  = "upkeep"
	groupLook    = "look"
	groupTrouble = "trouble"
	groupMeta    = "meta"
)

// group returns a command that only has others below it.
func group(use, short, groupID string, below ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, GroupID: groupID,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var names []string
			for _, c := range cmd.Commands() {
				names = append(names, c.Name())
			}
			return usagef("%s needs one of: %s", cmd.CommandPath(), strings.Join(names, ", "))
		},
	}
	cmd.AddCommand(below...)
	return cmd
}

// isTerminal reports whether a person sees what is written to w, or types what
// is read from it.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// colour reports whether stderr takes colours.
func (a *app) colour() bool {
	return a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb" && isTerminal(a.stderr)
}
