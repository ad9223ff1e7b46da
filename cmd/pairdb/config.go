package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/node/config"
)

func (a *app) configCommand() *cobra.Command {
	return group("config", "Check and show the agent's configuration", groupRun,
		a.configValidateCommand(), a.configDefaultsCommand())
}

func (a *app) configValidateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "validate",
		Short: "Check the configuration that an agent would start with",
		Long: `Check the configuration that pairdb agent would start with if it were given the
same flags and environment. Every problem is reported, with its place and the
nearest known name. Nothing is started.`,
		Example: "  pairdb config validate --config /etc/pairdb/pairdb.yaml",
		Args:    args(),
	}
	config.RegisterFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if _, err := loadConfig(cmd); err != nil {
			return err
		}
		a.note("the configuration is valid")
		return nil
	}
	return cmd
}

func (a *app) configDefaultsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "defaults",
		Short: "Write the reference configuration: every setting, its default and its meaning",
		Args:  args(),
		RunE: func(*cobra.Command, []string) error {
			return a.write(config.Reference())
		},
	}
}

// loadConfig reads the configuration that the flags of cmd and the environment
// give. What was configured wrongly is a *config.Error.
func loadConfig(cmd *cobra.Command) (config.Config, error) {
	opts, err := config.FlagOptions(cmd.Flags())
	if err != nil {
		return config.Config{}, err
	}
	opts.Env = os.Environ()
	c, _, err := config.Load(opts)
	if err != nil {
		return config.Config{}, fmt.Errorf("load configuration: %w", err)
	}
	return c, nil
}
