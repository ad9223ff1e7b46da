package config

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// RegisterFlags adds the agent's flags to fs: one for each setting that has
// one, --config for the file, and --set for any setting. It is called once on a
// flag set; FlagOptions reads what was given.
func RegisterFlags(fs *pflag.FlagSet) {
	for _, s := range settings() {
		if s.Flag == "" {
			continue
		}
		flag := fs.VarPF(&flagValue{setting: s, text: s.Default}, s.Flag, "", s.Help)
		if s.Type() == "bool" {
			flag.NoOptDefVal = "true"
		}
	}
	fs.String("config", "", "configuration file; files of the folder conf.d beside it are read after it")
	fs.StringArray("set", nil, "section.key=value: any setting of the configuration file, may be repeated")
}

// FlagOptions returns what the command line says, for a flag set that
// RegisterFlags was called on. The caller adds the environment. It fails if
// --set has no value, or says something else than the setting's own flag.
func FlagOptions(fs *pflag.FlagSet) (LoadOptions, error) {
	opts := LoadOptions{Flags: make(map[string]string)}
	var err error
	if opts.File, err = fs.GetString("config"); err != nil {
		return LoadOptions{}, fmt.Errorf("read flags: %w", err)
	}
	sets, err := fs.GetStringArray("set")
	if err != nil {
		return LoadOptions{}, fmt.Errorf("read flags: %w", err)
	}
	fs.Visit(func(f *pflag.Flag) {
		if v, ok := f.Value.(*flagValue); ok {
			opts.Flags[v.setting.Path] = v.text
		}
	})
	var problems []Problem
	for _, set := range sets {
		path, value, ok := strings.Cut(set, "=")
		if !ok {
			problems = append(problems, Problem{Setting: set, Where: "--set", What: "has no value", Next: "write section.key=value"})
			continue
		}
		if other, given := opts.Flags[path]; given && other != value {
			problems = append(problems, Problem{
				Setting: path, Where: "--set", What: fmt.Sprintf("is given as %q and as %q", other, value), Next: "keep one of them",
			})
			continue
		}
		opts.Flags[path] = value
	}
	if len(problems) > 0 {
		return LoadOptions{}, &Error{Problems: problems}
	}
	return opts, nil
}

// flagValue keeps what a flag was given as text. Load reads it, so that a wrong
// value is reported in one way wherever it comes from.
type flagValue struct {
	setting Setting
	text    string
	given   bool
}

// Set keeps the text. A list may be given piece by piece.
func (v *flagValue) Set(text string) error {
	if v.given && v.setting.Type() == "list" {
		text = v.text + "," + text
	}
	v.text, v.given = text, true
	return nil
}

// String returns the text.
func (v *flagValue) String() string { return v.text }

// Type names the type in the usage text.
func (v *flagValue) Type() string { return v.setting.Type() }
