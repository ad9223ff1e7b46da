package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/client"
)

// conditionFlags are the flags that say when a value expires and what a write
// asks of what there is.
type conditionFlags struct {
	ttl       time.Duration
	expiresAt string
	absent    bool
	match     string
}

// register adds the flags; put says that the command stores a value.
func (f *conditionFlags) register(cmd *cobra.Command, put bool) {
	flags := cmd.Flags()
	if put {
		flags.DurationVar(&f.ttl, "ttl", 0, "how long the value is to live, 1ms to 100 years, as in 90s or 12h")
		flags.StringVar(&f.expiresAt, "expires-at", "", "until when the value is to live, as in 2027-01-31T12:00:00Z")
		flags.BoolVar(&f.absent, "if-absent", false, "write only if there is no value (not atomic: of several at once more than one may succeed)")
	}
	flags.StringVar(&f.match, "if-match", "", "context of an earlier answer, as base64: write only if nothing was written since that answer")
}

// options are the call options of the flags that were given.
func (f *conditionFlags) options(cmd *cobra.Command) ([]client.CallOption, error) {
	var opts []client.CallOption
	changed := cmd.Flags().Changed
	if changed("ttl") {
		opts = append(opts, client.WithTTL(f.ttl))
	}
	if changed("expires-at") {
		at, err := time.Parse(time.RFC3339Nano, f.expiresAt)
		if err != nil {
			u := usagef("%s: --expires-at: %q is no instant", cmd.CommandPath(), f.expiresAt)
			u.next = "Write it as in 2027-01-31T12:00:00Z or 2027-01-31T13:00:00.250+01:00, or use --ttl."
			return nil, u
		}
		opts = append(opts, client.WithExpiry(at))
	}
	if f.absent {
		opts = append(opts, client.IfAbsent())
	}
	if changed("if-match") {
		seen, err := parseContext(cmd, "if-match", f.match)
		if err != nil {
			return nil, err
		}
		opts = append(opts, client.IfMatch(seen))
	}
	return opts, nil
}
