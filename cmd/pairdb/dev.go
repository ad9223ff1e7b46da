package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/client"
)

const (
	devTenant   = "demo"
	devMaxNodes = 9
	devMaxRF    = 3
)

// devOptions says what cluster to run.
type devOptions struct {
	nodes     int
	importDir string
	dir       string
	keep      bool
}

func (a *app) devCommand() *cobra.Command {
	o := devOptions{nodes: 3}
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a cluster on this machine, to play with",
		Long: `Run a cluster of child processes on loopback, with free ports and a tenant
"` + devTenant + `", and print how to talk to it. Ctrl-C ends it; the data is removed then,
unless --dir or --keep says otherwise.

With --import the folder is stored through the first node, every file is read
back through another and compared byte for byte, the figures are printed, and
the cluster ends by itself. The exit code says whether all went well.`,
		Example: "  pairdb dev\n  pairdb dev --import ./docs",
		GroupID: groupRun,
		Args:    args(),
	}
	cmd.Flags().IntVar(&o.nodes, "nodes", o.nodes, "number of nodes, 1 to "+strconv.Itoa(devMaxNodes))
	cmd.Flags().StringVar(&o.importDir, "import", "", "store this folder, read it back, compare, and end")
	cmd.Flags().StringVar(&o.dir, "dir", "", "keep the data in this folder, and use it again next time (default: a temporary one)")
	cmd.Flags().BoolVar(&o.keep, "keep", false, "do not remove the temporary folder at the end")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		// A terminal that is closed is a reason to end in order, too.
		ctx, cancel := context.WithCancelCause(cmd.Context())
		defer cancel(nil)
		hangup := make(chan os.Signal, 1)
		signal.Notify(hangup, syscall.SIGHUP)
		defer signal.Stop(hangup)
		go func() {
			select {
			case <-hangup:
				cancel(errInterrupted)
			case <-ctx.Done():
			}
		}()
		return a.dev(ctx, o)
	}
	return cmd
}

// dev runs the cluster until ctx ends or the import is done.
func (a *app) dev(ctx context.Context, o devOptions) (err error) {
	if o.nodes < 1 || o.nodes > devMaxNodes {
		return usagef("pairdb dev: --nodes is %d; it has to be 1 to %d", o.nodes, devMaxNodes)
	}
	imp := importOptions{dir: o.importDir, concurrency: 64, rounds: 6, verify: true}
	if o.importDir != "" {
		if err := imp.check(); err != nil {
			return err
		}
	}
	exe, err := a.executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	dir, remove, err := o.prepareDir()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()

	cluster := newDevCluster(exe, dir, o.nodes)
	a.note("starting %d nodes", o.nodes)
	if err := cluster.start(ctx); err != nil {
		return fmt.Errorf("dev: %w", err)
	}
	defer func() { err = errors.Join(err, cluster.stop()) }()
	if err := createDevTenant(ctx, cluster, min(devMaxRF, o.nodes)); err != nil {
		return err
	}
	if o.importDir != "" {
		return a.devImport(ctx, cluster, imp)
	}
	if err := a.write([]byte(devGreeting(cluster, exe, dir, o))); err != nil {
		return err
	}
	return a.watchDev(ctx, cluster)
}

// prepareDir returns the folder for the data, and what to do with it at the end.
func (o devOptions) prepareDir() (dir string, remove func() error, err error) {
	keep := func() error { return nil }
	if o.dir == "" {
		dir, err = os.MkdirTemp("", "pairdb-dev-")
		if err != nil {
			return "", nil, fmt.Errorf("dev: make a folder for the data: %w", err)
		}
		if o.keep {
			return dir, keep, nil
		}
		return dir, func() error {
			if err := os.RemoveAll(dir); err != nil {
				return fmt.Errorf("dev: remove the data: %w", err)
			}
			return nil
		}, nil
	}
	dir, err = filepath.Abs(o.dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return "", nil, fmt.Errorf("dev: make a folder for the data: %w", err)
	}
	// The layout is fixed at the founding, so that another number of nodes
	// could not serve.
	var there int
	for i := range devMaxNodes {
		if _, err := os.Stat(filepath.Join(dir, "n"+strconv.Itoa(i+1))); err == nil {
			there++
		}
	}
	if there > 0 && there != o.nodes {
		f := usagef("pairdb dev: %s has the data of %d nodes, and --nodes is %d", dir, there, o.nodes)
		f.next = fmt.Sprintf("Use --nodes %d, or another --dir.", there)
		return "", nil, f
	}
	return dir, keep, nil
}

// createDevTenant makes the tenant, unless the data is from an earlier run and
// has it.
func createDevTenant(ctx context.Context, cluster *devCluster, rf int) error {
	c, err := client.New(client.Options{Endpoints: cluster.endpoints(), UserAgent: "pairdb-cli"})
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	factor := uint32(rf)
	_, err = c.CreateTenant(ctx, client.NewTenant{ID: devTenant, ReplicationFactor: &factor})
	if errors.Is(err, client.ErrTenantExists) {
		err = nil
	}
	return errors.Join(err, c.Close())
}

// devImport imports through the first node and reads back through the others.
func (a *app) devImport(ctx context.Context, cluster *devCluster, o importOptions) error {
	all := cluster.endpoints()
	f := &clientFlags{endpoints: all[:1], tenant: devTenant, timeout: client.DefaultTimeout, level: client.LevelQuorum}
	if len(all) > 1 {
		o.verifyEndpoints = all[1:]
	}
	_, err := a.importFolder(ctx, f, o)
	// A node that fell on the way is a failure even if the import survived it.
	for {
		select {
		case n := <-cluster.ended:
			err = errors.Join(err, n.crashed())
		default:
			return err
		}
	}
}

// watchDev waits for the end of ctx, which is a success, and tells of children
// that end before.
func (a *app) watchDev(ctx context.Context, cluster *devCluster) error {
	for left := len(cluster.nodes); ; {
		select {
		case <-ctx.Done():
			a.note("stopping")
			return nil
		case n := <-cluster.ended:
			if left--; left == 0 {
				return n.crashed()
			}
			a.report(ctx, n.crashed())
		}
	}
}

// devGreeting is what there is to know, with commands to paste.
func devGreeting(cluster *devCluster, exe, dir string, o devOptions) string {
	self := "pairdb"
	if strings.Contains(exe, string(filepath.Separator)+"go-build") {
		self = "go run ./cmd/pairdb" // which is how it was started
	}
	rest := "removed at the end"
	if o.dir != "" || o.keep {
		rest = "kept"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "PairDB runs: %d nodes, tenant %s, data in %s (%s)\n\n", len(cluster.nodes), devTenant, dir, rest)
	for _, n := range cluster.nodes {
		fmt.Fprintf(&b, "  %s  gRPC %s  HTTP http://%s  pid %d  log %s\n", n.name, n.at.GRPC, n.at.HTTP, n.cmd.Process.Pid, n.logger)
	}
	query := url.Values{"tenant_id": {devTenant}, "key": {"greeting"}}
	fmt.Fprintf(&b, `
Try this in another terminal:

  export PAIRDB_ENDPOINT=%s PAIRDB_TENANT=%s
  %s put greeting hello
  %s get greeting
  %s status
  %s ring --key greeting
  curl 'http://%s/v1/key-value?%s'

Ctrl-C ends it.
`, strings.Join(cluster.endpoints(), ","), devTenant, self, self, self, self, cluster.nodes[len(cluster.nodes)-1].at.HTTP, query.Encode())
	return b.String()
}
