package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"github.com/lmittmann/tint"
	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/node"
	"github.com/pairdb/pairdb/node/config"
)

func (a *app) agentCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run a node",
		Long: `Run a node until SIGINT or SIGTERM. Every flag can also be given in the
configuration file or the environment; pairdb config defaults shows them all.
SIGHUP reads the configuration again and takes over log.level.`,
		Example: `  pairdb agent --data-dir /var/lib/pairdb --bootstrap
  pairdb agent --bootstrap-expect 3 --join a:7946,b:7946,c:7946`,
		GroupID: groupRun,
		Args:    args(),
	}
	config.RegisterFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		memory, memoryErr := readMemory()
		c, sources, err := loadConfig(cmd, memory.usable)
		if err != nil {
			return err
		}
		manager, err := newServiceManager(a.getenv, os.Getpid())
		if err != nil {
			return err
		}
		var level slog.LevelVar
		if err := setLevel(&level, c); err != nil {
			return err
		}
		logger := a.newLogger(c.Log.Format, &level)
		stop := reloadOnHangup(cmd, logger, &level)
		defer stop()
		useMemory(memory, memoryErr, logger, c, sources)
		tell := func(lines ...string) {
			if err := manager.tell(lines...); err != nil {
				logger.Warn("the service manager does not hear", "lines", lines, "err", err)
			}
		}
		tell("STATUS=starting")
		err = node.Run(cmd.Context(), c, node.Options{
			Logger:  logger,
			Version: readVersion().Version,
			Memory:  memory.usable,
			Ready: func(at node.Addresses) {
				logger.Info("ready", "name", at.Name, "node_id", at.NodeID, "grpc", at.GRPC, "peer", at.Peer, "http", at.HTTP, "gossip", at.Gossip)
				tell("READY=1", "STATUS=serving as "+at.Name+" on "+at.GRPC)
			},
			Pulse:      func() { tell("WATCHDOG=1") },
			PulseEvery: manager.watchdog / 2,
			Stopping:   func(limit time.Duration) { tell(stopping(limit + releaseTime)...) },
		})
		return agentError(cmd.Context(), err)
	}
	return cmd
}

// agentError is what the end of a node means for the exit code. Being asked to
// stop is no failure, but failing to is one, and is said as such.
func agentError(ctx context.Context, err error) error {
	var usage *node.UsageError
	switch {
	case err == nil, errors.As(err, &usage):
		return err
	case ctx.Err() != nil && err == context.Canceled:
		return nil // before it had come up
	}
	return &failure{exit: errcode.ExitFailed, what: "agent: " + err.Error(), err: err}
}

// releaseTime is what a stop may take beyond the node's own limits: memtables
// have to reach a slow disk.
const releaseTime = time.Minute

// useMemory makes the garbage collector keep to the limit and logs, once, how
// much of the machine this process takes for its own.
func useMemory(memory memoryLimit, err error, logger *slog.Logger, c config.Config, sources config.Sources) {
	if err != nil {
		logger.Warn("memory limit", "err", err)
	}
	goLimit := memory.collected(int64(c.Storage.CacheSize), int64(c.Storage.MemtableSize))
	debug.SetMemoryLimit(goLimit)
	percent := os.Getenv("GOGC") // Go has obeyed it already
	if percent == "" {
		debug.SetGCPercent(gcPercent(goLimit))
		percent = strconv.Itoa(gcPercent(goLimit))
	}
	logger.Info("limits", "gomaxprocs", runtime.GOMAXPROCS(0), "gomemlimit", goLimit, "gogc", percent, "usable_memory", memory.usable, "memory_from", memory.from,
		"memtable_size", c.Storage.MemtableSize.String(), "memtable_size_from", sources["storage.memtable_size"].String(),
		"cache_size", c.Storage.CacheSize.String(), "cache_size_from", sources["storage.cache_size"].String())
}

func setLevel(level *slog.LevelVar, c config.Config) error {
	if err := level.UnmarshalText([]byte(c.Log.Level)); err != nil {
		return fmt.Errorf("log level: %w", err)
	}
	return nil
}

// newLogger logs to stderr: for people on a terminal, else JSON.
func (a *app) newLogger(format string, level slog.Leveler) *slog.Logger {
	return slog.New(newHandler(a.stderr, format, level, isTerminal(a.stderr), a.colour()))
}

func newHandler(w io.Writer, format string, level slog.Leveler, terminal, colour bool) slog.Handler {
	if format == "text" || format == "auto" && terminal {
		return tint.NewTextHandler(w, &tint.Options{Level: level, TimeFormat: time.TimeOnly, NoColor: !colour})
	}
	return slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})
}

// reloadOnHangup takes over what SIGHUP reloads, until the returned function is
// called. A configuration that cannot be used changes nothing.
func reloadOnHangup(cmd *cobra.Command, logger *slog.Logger, level *slog.LevelVar) (stop func()) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			case <-hangup:
			}
			c, _, err := loadConfig(cmd, 0) // for what is reloaded the memory does not matter
			if err == nil {
				err = setLevel(level, c)
			}
			if err != nil {
				logger.Error("configuration not reloaded", "error", err)
				continue
			}
			logger.Info("configuration reloaded", "log.level", c.Log.Level)
		}
	}()
	return func() {
		signal.Stop(hangup)
		close(quit)
		<-done
	}
}
