package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/node/config"
)

func (a *app) configCommand() *cobra.Command {
	return group("config", "Check and show the agent's configuration", groupRun,
		a.configValidateCommand(), a.configPrintCommand(), a.configDefaultsCommand())
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
		if _, _, err := loadConfig(cmd, 0); err != nil {
			return err
		}
		a.note("the configuration is valid")
		return nil
	}
	return cmd
}

func (a *app) configPrintCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "print",
		Short: "Write the configuration that an agent would start with, and where each value comes from",
		Long: `Write the configuration that pairdb agent would start with here if it were given
the same flags and environment: every setting, and where its value comes from.
Defaults that the memory of this machine or cgroup bounds are shown bounded. It is a
file that can be used, with the places as comments; -o shows a list instead.`,
		Example: "  pairdb config print --config /etc/pairdb/pairdb.yaml",
		Args:    args(),
	}
	config.RegisterFlags(cmd.Flags())
	var output string
	outputFlag(cmd, &output)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkOutput(cmd, output); err != nil {
			return err
		}
		memory, err := readMemory()
		if err != nil {
			a.note("%v", err)
		}
		c, sources, err := loadConfig(cmd, memory.usable)
		if err != nil {
			return err
		}
		if output != "" {
			return a.show(output, configView(&c, sources))
		}
		text, err := config.Print(c, sources)
		if err != nil {
			return err
		}
		return a.write(text)
	}
	return cmd
}

// configValue is one setting and where its value comes from.
type configValue struct {
	Setting string `json:"setting"`
	Value   string `json:"value"`
	Source  string `json:"source"`
}

func configView(c *config.Config, sources config.Sources) view {
	var all struct {
		Settings []configValue `json:"settings"`
	}
	v := view{columns: []string{"SETTING", "VALUE", "SOURCE"}}
	for _, s := range config.Settings() {
		one := configValue{s.Path, s.Value(c), sources[s.Path].String()}
		all.Settings = append(all.Settings, one)
		v.items = append(v.items, one)
		v.rows = append(v.rows, []string{one.Setting, visibleText(one.Value), visibleText(one.Source)})
	}
	v.data = all
	return v
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
// give to a process that may use memory bytes, 0 for any number. What was
// configured wrongly is a *config.Error.
func loadConfig(cmd *cobra.Command, memory int64) (config.Config, config.Sources, error) {
	opts, err := config.FlagOptions(cmd.Flags())
	if err != nil {
		return config.Config{}, nil, err
	}
	opts.Env, opts.Memory = os.Environ(), memory
	c, sources, err := config.Load(opts)
	if err != nil {
		return config.Config{}, nil, fmt.Errorf("load configuration: %w", err)
	}
	return c, sources, nil
}
