package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// LoadOptions says where a configuration comes from. Every part may be empty.
type LoadOptions struct {
	// File is the configuration file. It has to exist if it is named.
	File string
	// ConfDir is a folder whose *.yaml and *.yml files are read after File, in
	// the order of their names. It need not exist. Empty: the folder conf.d
	// beside File.
	ConfDir string
	// Env has "NAME=value", as os.Environ gives it. Variables that do not begin
	// with PAIRDB_AGENT_ are none of ours.
	Env []string
	// Flags has what the command line says, by the settings' paths.
	// FlagValues makes it.
	Flags map[string]string
	// Memory is what this process may use, in bytes. The defaults of the
	// engine's memtable and cache are bounded by it. 0: nobody limits it.
	Memory int64
}

// Source says where the value of a setting comes from.
type Source struct {
	// Kind is default, memory, file, env or flag; memory is a default that was
	// bounded by LoadOptions.Memory.
	Kind string
	// Where is the file and line, the variable, the flag, or the bound. Empty
	// for a default.
	Where string
}

// String writes the source for people.
func (s Source) String() string {
	if s.Where == "" {
		return s.Kind
	}
	return s.Where
}

// Sources has the source of every setting, by its path.
type Sources map[string]Source

// maxFileBytes bounds a configuration file.
const maxFileBytes = mib

// Load reads a configuration and validates it. An error that lies in what was
// configured is an *Error with all problems; the other errors are files that
// cannot be read. The configuration is meaningful only without an error.
func Load(opts LoadOptions) (Config, Sources, error) {
	l := loader{config: Defaults(), sources: make(Sources), settings: make(map[string]Setting)}
	for _, s := range settings() {
		l.settings[s.Path] = s
		l.paths = append(l.paths, s.Path)
		l.sources[s.Path] = Source{Kind: "default"}
	}
	files, err := configFiles(opts)
	if err != nil {
		return Config{}, nil, err
	}
	for _, name := range files {
		data, err := readFile(name)
		if err != nil {
			return Config{}, nil, err
		}
		l.file(name, data)
	}
	l.env(opts.Env)
	l.flags(opts.Flags)
	l.fit(opts.Memory)
	for _, p := range l.config.problems() {
		p.Where = l.sources[p.Setting].Where
		l.problems = append(l.problems, p)
	}
	if len(l.problems) > 0 {
		return Config{}, nil, &Error{Problems: l.problems}
	}
	return l.config, l.sources, nil
}

// loader is a configuration while it is put together.
type loader struct {
	config   Config
	sources  Sources
	problems []Problem
	settings map[string]Setting
	paths    []string // of all settings, in the order of the table
}

// set gives a setting a value that was found at a place.
func (l *loader) set(s Setting, value string, src Source) {
	if err := s.set(&l.config, value); err != nil {
		l.problems = append(l.problems, Problem{Setting: s.Path, Where: src.Where, What: err.Error()})
		return
	}
	l.sources[s.Path] = src
}

// unknown records a name that is none of ours.
func (l *loader) unknown(name, where, kind string, candidates []string) {
	p := Problem{
		Setting: name, Where: where, What: "is no " + kind + " of ours",
		Why: "a misspelt one would otherwise be ignored without a word", Next: "see pairdb config defaults for all of them",
	}
	if near := Nearest(name, candidates); near != "" {
		p.Next = "did you mean " + near + "?"
	}
	l.problems = append(l.problems, p)
}

// configFiles lists the files to read, in order.
func configFiles(opts LoadOptions) ([]string, error) {
	var files []string
	dir := opts.ConfDir
	if opts.File != "" {
		files = append(files, opts.File)
		if dir == "" {
			dir = filepath.Join(filepath.Dir(opts.File), "conf.d")
		}
	}
	if dir == "" {
		return files, nil
	}
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read configuration folder: %w", err)
	}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); !e.IsDir() && (ext == ".yaml" || ext == ".yml") {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	return files, nil
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close() // only read from: nothing is lost if closing fails
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("read configuration %s: larger than %s", name, Size(maxFileBytes))
	}
	return data, nil
}

// env takes the settings that the environment gives.
func (l *loader) env(environ []string) {
	byName := make(map[string]Setting, len(l.settings))
	var names []string
	for _, path := range l.paths {
		s := l.settings[path]
		byName[s.Env()] = s
		names = append(names, s.Env())
	}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix) {
			continue
		}
		s, ok := byName[name]
		if !ok {
			l.unknown(name, "environment", "variable", names)
			continue
		}
		l.set(s, value, Source{Kind: "env", Where: name})
	}
}

// flags takes the settings that the command line gives, sorted so that problems
// come in the same order each time.
func (l *loader) flags(values map[string]string) {
	for _, path := range slices.Sorted(maps.Keys(values)) {
		s, ok := l.settings[path]
		if !ok {
			l.unknown(path, "--set", "setting", l.paths)
			continue
		}
		where := "--set " + path
		if s.Flag != "" {
			where = "--" + s.Flag
		}
		l.set(s, values[path], Source{Kind: "flag", Where: where})
	}
}
