package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/node/config"
)

// clientFlags are the flags of a command that talks to a cluster.
type clientFlags struct {
	endpoints []string
	tenant    string
	timeout   time.Duration
	level     client.Level
	levelText string
	output    string
	// plain makes a client that does nothing about nodes that are slow or refuse.
	plain bool
	// session is that of the shell whose line this is, nil for none.
	session *session
}

// session is what the lines of a shell share. It is used by one goroutine.
type session struct {
	// flags hold for lines that do not say otherwise.
	flags *clientFlags
	// clients stay open, by what they were made from.
	clients map[string]*client.Client
}

// fill takes what cmd was not told from the shell.
func (s *session) fill(cmd *cobra.Command, f *clientFlags) {
	given := cmd.Flags().Changed
	f.session = s
	if !given("endpoint") {
		f.endpoints = s.flags.endpoints
	}
	if !given("tenant") {
		f.tenant = s.flags.tenant
	}
	if !given("timeout") {
		f.timeout = s.flags.timeout
	}
	if !given("consistency") {
		f.levelText = s.flags.levelText
	}
	if !given("output") {
		f.output = s.flags.output
	}
}

// clientCommand adds the flags that every client command has to cmd, and checks
// them before it runs.
func (a *app) clientCommand(cmd *cobra.Command, f *clientFlags) *cobra.Command {
	fs := cmd.Flags()
	fs.StringSliceVar(&f.endpoints, "endpoint", nil, "client address of a node, host:port; repeat it to survive the loss of one (default $PAIRDB_ENDPOINT, else "+client.DefaultEndpoint+")")
	fs.DurationVar(&f.timeout, "timeout", client.DefaultTimeout, "how long one operation may take")
	outputFlag(cmd, &f.output)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { return a.checkClientFlags(cmd, f) }
	return cmd
}

// tenantFlag adds --tenant.
func tenantFlag(cmd *cobra.Command, f *clientFlags) {
	cmd.Flags().StringVar(&f.tenant, "tenant", "", "whose data (default $PAIRDB_TENANT, else "+client.DefaultTenant+")")
}

// levelFlag adds -c.
func levelFlag(cmd *cobra.Command, f *clientFlags) {
	cmd.Flags().StringVarP(&f.levelText, "consistency", "c", "", "replicas that have to answer: one, quorum or all (default quorum)")
	suggest(cmd, "consistency", "one", "quorum", "all")
}

func (a *app) checkClientFlags(cmd *cobra.Command, f *clientFlags) error {
	// An empty flag or a variable without an address is a script's mistake: it
	// must not reach whatever listens on this machine.
	env := a.getenv("PAIRDB_ENDPOINT")
	given := cmd.Flags().Changed("endpoint")
	if a.session != nil {
		a.session.fill(cmd, f)
	} else if !given && env != "" {
		f.endpoints, given = splitList(env), true
	}
	if len(f.endpoints) == 0 && given {
		fail := usagef("%s: --endpoint or PAIRDB_ENDPOINT is given and names no address", cmd.CommandPath())
		fail.next = "Name a node's client gRPC address, such as --endpoint " + client.DefaultEndpoint + "."
		return fail
	}
	if len(f.endpoints) == 0 {
		f.endpoints = []string{client.DefaultEndpoint}
	}
	for _, e := range f.endpoints {
		if _, err := client.NormalizeEndpoint(e); err != nil {
			fail := usagef("%s: %v", cmd.CommandPath(), err)
			fail.next = "Name a node's client gRPC address, such as --endpoint " + client.DefaultEndpoint + "."
			return fail
		}
	}
	if f.tenant == "" && !cmd.Flags().Changed("tenant") {
		f.tenant = a.getenv("PAIRDB_TENANT")
		if f.tenant == "" {
			f.tenant = client.DefaultTenant
		}
	}
	if f.timeout <= 0 {
		return usagef("%s: --timeout is %s; it has to be more than 0", cmd.CommandPath(), f.timeout)
	}
	var err error
	if f.level, err = client.ParseLevel(f.levelText); err != nil {
		return wordError(cmd, "--consistency", f.levelText, []string{"one", "quorum", "all"})
	}
	return checkOutput(cmd, f.output)
}

// wordError refuses a word that is none of those a flag takes.
func wordError(cmd *cobra.Command, flag, word string, words []string) error {
	fail := usagef("%s: %s %q is none of %s", cmd.CommandPath(), flag, word, strings.Join(words, ", "))
	if near := config.Nearest(word, words); near != "" {
		fail.next = "Did you mean " + near + "?"
	}
	return fail
}

func splitList(s string) []string {
	var list []string
	for _, part := range strings.Split(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}

// connect makes the client; the caller closes it.
func (f *clientFlags) connect() (*client.Client, error) {
	return f.connectTo(f.endpoints)
}

func (f *clientFlags) connectTo(endpoints []string) (*client.Client, error) {
	// An empty tenant was asked for in so many words; the SDK would take it for
	// none and use the default, so that it is refused here.
	if f.tenant == "" {
		fail := usagef("the tenant is empty")
		fail.next = "Leave --tenant out for the tenant " + client.DefaultTenant + "."
		return nil, fail
	}
	c, err := client.New(client.Options{
		Endpoints: endpoints, Tenant: f.tenant, Timeout: f.timeout, UserAgent: "pairdb-cli",
		NoNodeHealth: f.plain, NoHedging: f.plain, NoThrottling: f.plain,
	})
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return c, nil
}

// shared returns the shell's client for these flags, which the shell closes.
func (f *clientFlags) shared() (*client.Client, error) {
	key := fmt.Sprintf("%q %q %s", f.endpoints, f.tenant, f.timeout)
	if c := f.session.clients[key]; c != nil {
		return c, nil
	}
	c, err := f.connect()
	if err != nil {
		return nil, err
	}
	if len(f.session.clients) == maxShellClients {
		for k, old := range f.session.clients {
			delete(f.session.clients, k)
			_ = old.Close() // its lines were answered
			break
		}
	}
	f.session.clients[key] = c
	return c, nil
}

// maxShellClients bounds the connections that a shell keeps open.
const maxShellClients = 16

// withClient runs do with a client and closes it, unless it is a shell's.
func (f *clientFlags) withClient(do func(*client.Client) error) error {
	if f.session != nil {
		c, err := f.shared()
		if err != nil {
			return err
		}
		return do(c)
	}
	c, err := f.connect()
	if err != nil {
		return err
	}
	err = do(c)
	if cerr := c.Close(); cerr != nil && err == nil {
		err = fmt.Errorf("close connections: %w", cerr)
	}
	return err
}
