package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// buildVersion is what this binary was built from.
type buildVersion struct {
	Version    string `json:"version"`
	Commit     string `json:"commit"`
	CommitTime string `json:"commit_time"`
	Modified   bool   `json:"modified"`
	Go         string `json:"go"`
	OS         string `json:"os"`
	Arch       string `json:"arch"`
}

// readVersion asks the binary itself, so that nothing has to be passed in when
// it is built.
func readVersion() buildVersion {
	v := buildVersion{Version: "devel", Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if m := info.Main.Version; m != "" && m != "(devel)" {
		v.Version = m
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.time":
			v.CommitTime = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

func (a *app) versionCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{Use: "version", Short: "Show what this binary was built from", GroupID: groupMeta, Args: args()}
	outputFlag(cmd, &output)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkOutput(cmd, output); err != nil {
			return err
		}
		v := readVersion()
		text := view{data: v, rows: [][]string{{v.Version}}}
		text.head = []string{"pairdb " + v.Version, v.Go + " " + v.OS + "/" + v.Arch}
		if v.Commit != "" {
			text.head = append(text.head, "commit "+v.Commit+" of "+v.CommitTime)
		}
		return a.show(output, text)
	}
	return cmd
}
