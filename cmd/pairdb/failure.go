package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/node"
	"github.com/pairdb/pairdb/node/config"
)

// failure is an error that knows its exit code and what to do next.
type failure struct {
	exit int
	what string
	why  []string // lines, may be empty
	next string   // may be empty
	err  error    // the cause, may be nil
}

func (f *failure) Error() string { return f.what }
func (f *failure) Unwrap() error { return f.err }

// usagef is a failure of whoever typed the command line.
func usagef(format string, args ...any) *failure {
	return &failure{exit: errcode.ExitUsage, what: fmt.Sprintf(format, args...)}
}

// report prints err as what, why and what next, and returns the exit code.
func (a *app) report(ctx context.Context, err error) int {
	if err == nil {
		return errcode.ExitOK
	}
	// Several things that went wrong are told one by one; the first decides.
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		exit := errcode.ExitOK
		for _, e := range several.Unwrap() {
			if code := a.report(ctx, e); exit == errcode.ExitOK {
				exit = code
			}
		}
		return exit
	}
	var quiet *quietExit
	if errors.As(err, &quiet) {
		return quiet.code
	}
	f := describe(ctx, err)
	label := "pairdb:"
	if a.colour() {
		label = "\x1b[31mpairdb:\x1b[0m"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n", label, f.what)
	for _, line := range f.why {
		fmt.Fprintf(&b, "  why:  %s\n", line)
	}
	if f.next != "" {
		fmt.Fprintf(&b, "  next: %s\n", f.next)
	}
	// If stderr is gone, the exit code is all that is left to say.
	_, _ = a.stderr.Write([]byte(b.String()))
	return f.exit
}

// describe makes a failure of any error.
func describe(ctx context.Context, err error) *failure {
	var f *failure
	var bad *config.Error
	var ce *client.Error
	var usage *node.UsageError
	switch {
	case errors.Is(context.Cause(ctx), errInterrupted) && !errors.As(err, &f):
		out := &failure{exit: errcode.ExitInterrupted, what: "interrupted"}
		if errors.As(err, &ce) && ce.Outcome == errcode.Indeterminate {
			out.what = "interrupted; the write may have been applied"
		}
		return out
	case errors.As(err, &f):
		return f
	case errors.As(err, &bad):
		out := &failure{exit: errcode.ExitUsage, what: "the configuration cannot be used"}
		for _, p := range bad.Problems {
			out.why = append(out.why, p.String())
		}
		return out
	case errors.As(err, &ce):
		return describeClient(ce)
	case errors.As(err, &usage):
		return &failure{exit: errcode.ExitUsage, what: err.Error(), err: err}
	}
	return &failure{exit: errcode.ExitFailed, what: err.Error()}
}

func describeClient(e *client.Error) *failure {
	row := errcode.Lookup(e.Code)
	f := &failure{exit: row.Exit, what: fmt.Sprintf("%s: %s: %s", e.Op, e.Code, e.Message), next: row.Action, err: e}
	switch {
	case e.NotConnected:
		f.what = e.Op + ": " + e.Message
		f.exit = errcode.ExitConnect
		f.next = "Start a node (pairdb agent, or pairdb dev for three), or name one that runs with --endpoint HOST:PORT."
	case e.Code == errcode.TenantNotFound:
		f.next = "See pairdb tenant list, or create it with pairdb tenant create."
	case e.Code == errcode.Timeout:
		f.next = "Retry with a longer --timeout."
	}
	if e.Need > 0 {
		f.why = append(f.why, fmt.Sprintf("%d of the %d replicas needed answered", e.Acks, e.Need))
	}
	f.why = append(f.why, e.Causes...)
	switch e.Outcome {
	case errcode.Indeterminate:
		f.why = append(f.why, "outcome: indeterminate, the write may have been applied")
	case errcode.NotApplied:
		// Where a request was refused at the door nobody wonders.
		if e.Need > 0 || row.Retryable {
			f.why = append(f.why, "outcome: not_applied, nothing was changed")
		}
	}
	return f
}

// flagError explains a flag that cannot be parsed.
func flagError(cmd *cobra.Command, err error) error {
	f := usagef("%s: %v", cmd.CommandPath(), err)
	f.next = "See " + cmd.CommandPath() + " --help."
	var missing *pflag.NotExistError
	if errors.As(err, &missing) && len(missing.GetSpecifiedName()) > 1 {
		var names []string
		cmd.Flags().VisitAll(func(fl *pflag.Flag) { names = append(names, fl.Name) })
		f.what = fmt.Sprintf("%s has no flag --%s", cmd.CommandPath(), missing.GetSpecifiedName())
		if near := config.Nearest(missing.GetSpecifiedName(), names); near != "" {
			f.next = "Did you mean --" + near + "?"
		}
	}
	return f
}

// unknownCommand finds a word that should be a command and is none, before its
// flags are looked at: they belong to the command that was meant.
func unknownCommand(root *cobra.Command, args []string) error {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd(args...)
	if len(args) > 0 && args[0] == "help" {
		args = args[1:]
	}
	cmd := root
	for _, word := range args {
		// The shell's completion scripts call hidden commands.
		if !cmd.HasSubCommands() || strings.HasPrefix(word, "-") || strings.HasPrefix(word, cobra.ShellCompRequestCmd) {
			return nil
		}
		var next *cobra.Command
		var names []string
		for _, c := range cmd.Commands() {
			names = append(names, c.Name())
			if c.Name() == word {
				next = c
			}
		}
		if next == nil {
			f := usagef("%s has no command %q", cmd.CommandPath(), word)
			f.next = "See " + cmd.CommandPath() + " --help."
			if near := config.Nearest(word, names); near != "" {
				f.next = fmt.Sprintf("Did you mean %s %s?", cmd.CommandPath(), near)
			}
			return f
		}
		cmd = next
	}
	return nil
}

// args checks the number of arguments; names are what each one is.
func args(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if len(given) == len(names) {
			return nil
		}
		var f *failure
		switch {
		case len(given) < len(names):
			f = usagef("%s: %s is missing", cmd.CommandPath(), names[len(given)])
		case len(names) == 0:
			f = usagef("%s takes no arguments, and was given %q", cmd.CommandPath(), given[0])
		default:
			f = usagef("%s: %q is one argument too many", cmd.CommandPath(), given[len(names)])
		}
		f.next = "Usage: " + cmd.UseLine()
		return f
	}
}
