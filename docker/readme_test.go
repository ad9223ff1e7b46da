package docker

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// section is the part of the README whose commands the test runs.
const section = "## A cluster in containers\n"

// setting is the README's first command. The test has names of its own in its
// place.
const setting = "export COMPOSE_FILE=docker/compose.yaml COMPOSE_PROJECT_NAME=pairdb PAIRDB_IMAGE=pairdb"

// readme is the commands of the section, and which of them were run.
type readme struct {
	t        *testing.T
	commands []string
	ran      map[string]bool
}

func readReadme(t *testing.T) *readme {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(shared.root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(b), section)
	if !ok {
		t.Fatalf("README.md has no section %q", section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	r := &readme{t: t, commands: shellCommands(text), ran: map[string]bool{}}
	if len(r.commands) == 0 || r.commands[0] != setting {
		t.Fatalf("the commands of the README begin with %q, want %q", r.commands, setting)
	}
	r.ran[setting] = true
	return r
}

// shellCommands gives the lines of the sh blocks of a text, without comments.
func shellCommands(text string) (commands []string) {
	comment := regexp.MustCompile(`(^|\s+)# .*$`)
	inside := false
	for line := range strings.Lines(text) {
		switch line = strings.TrimSpace(line); {
		case strings.HasPrefix(line, "```"):
			inside = line == "```sh"
		case inside:
			if line = comment.ReplaceAllString(line, ""); line != "" {
				commands = append(commands, line)
			}
		}
	}
	return commands
}

// run runs a command that has to stand in the README, and gives what it prints.
// What builds from source is run in the module, the rest in its stand-in.
func (r *readme) run(t *testing.T, command string) string {
	t.Helper()
	if !slices.Contains(r.commands, command) {
		t.Fatalf("the README does not show this command: %s", command)
	}
	r.ran[command] = true
	cmd := shared.command("sh", "-euc", command)
	if strings.HasPrefix(command, "go run ./") {
		cmd.Dir = shared.root
	}
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", command, err, out.String(), errs.String())
	}
	return out.String()
}

// finish fails if the README shows a command that the test has not run.
func (r *readme) finish() {
	for _, c := range r.commands {
		if !r.ran[c] {
			r.t.Errorf("the README shows a command that no test runs: %s", c)
		}
	}
}

func TestShellCommands(t *testing.T) {
	got := shellCommands("words\n```sh\na b   # why\n# all comment\n\nc '#d'\n```\nnot $this\n```\nnor this\n```\n")
	if want := []string{"a b", "c '#d'"}; !slices.Equal(got, want) {
		t.Errorf("commands %q, want %q", got, want)
	}
}
