package main

import (
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/configs"
)

// What the unit names; the flags of service print put something else there.
const (
	unitBinary = "/usr/local/bin/pairdb"
	unitConfig = "/etc/pairdb/pairdb.yaml"
	unitUser   = "pairdb"
)

var (
	// unitPath leaves out what means something else to systemd: spaces, quotes,
	// percent and dollar signs, backslashes.
	unitPath     = regexp.MustCompile(`^(/[A-Za-z0-9._+@:=,-]+)+$`)
	unitUserName = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,30}$`)
)

func (a *app) serviceCommand() *cobra.Command {
	return group("service", "Run a node as a service of the machine", groupRun, a.servicePrintCommand())
}

func (a *app) servicePrintCommand() *cobra.Command {
	var systemd bool
	var binary, config, user string
	cmd := &cobra.Command{
		Use:   "print --systemd",
		Short: "Write the unit that runs a node under systemd",
		Long: `Write the unit that runs a node under systemd: it waits until the node serves,
ends it when it hangs, and lets it reach its data and the network alone.
How a machine is set up around it stands in docs/install.md.`,
		Example: "  pairdb service print --systemd > /etc/systemd/system/pairdb.service",
		Args:    args(),
	}
	cmd.Flags().BoolVar(&systemd, "systemd", false, "a unit for systemd")
	cmd.Flags().StringVar(&binary, "binary", unitBinary, "where the program is")
	cmd.Flags().StringVar(&config, "config", unitConfig, "where its configuration is")
	cmd.Flags().StringVar(&user, "user", unitUser, "user and group it runs as")
	cmd.RunE = func(*cobra.Command, []string) error {
		if !systemd {
			f := usagef("pairdb service print: which kind of service is missing")
			f.next = "Use pairdb service print --systemd."
			return f
		}
		for flag, path := range map[string]string{"--binary": binary, "--config": config} {
			if !unitPath.MatchString(path) || filepath.Clean(path) != path {
				f := usagef("pairdb service print: %s is %q", flag, path)
				f.next = "Give an absolute path of letters, digits and . _ + @ : = , - without dots for folders."
				return f
			}
		}
		if !unitUserName.MatchString(user) {
			return usagef("pairdb service print: --user is %q, which is no name of a user", user)
		}
		return a.write([]byte(systemdUnit(binary, config, user)))
	}
	return cmd
}

// systemdUnit returns the unit with other names in it.
func systemdUnit(binary, config, user string) string {
	return strings.NewReplacer(
		"ExecStart="+unitBinary+" agent --config "+unitConfig+"\n", "ExecStart="+binary+" agent --config "+config+"\n",
		"User="+unitUser+"\n", "User="+user+"\n",
		"Group="+unitUser+"\n", "Group="+user+"\n",
	).Replace(configs.SystemdUnit)
}
