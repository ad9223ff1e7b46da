package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/node/config"
)

const unitFile = "../../configs/systemd/pairdb.service"

// maxExposure is what systemd-analyze security may say at the most, in tenths;
// docs/install.md tells the figure.
const maxExposure = 11

// TestServicePrintsTheUnit: one unit, in the repository and in the binary.
func TestServicePrintsTheUnit(t *testing.T) {
	want, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	code, out, errs := runCLI(t, t.Context(), "", "service", "print", "--systemd")
	if code != 0 || out != string(want) || errs != "" {
		t.Errorf("exit %d, %q; what is printed is not %s:\n%s", code, errs, unitFile, out)
	}
	code, out, _ = runCLI(t, t.Context(), "", "service", "print", "--systemd", "--binary", "/opt/db/pairdb", "--config", "/opt/db/n1.yaml", "--user", "db")
	for _, line := range []string{"ExecStart=/opt/db/pairdb agent --config /opt/db/n1.yaml", "User=db", "Group=db"} {
		if code != 0 || !strings.Contains(out, "\n"+line+"\n") {
			t.Errorf("exit %d, %q is missing in\n%s", code, line, out)
		}
	}
	for _, bad := range [][]string{
		{},
		{"--systemd", "--binary", "pairdb"},
		{"--systemd", "--binary", "/a b"},
		{"--systemd", "--config", "/a/../b"},
		{"--systemd", "--config", "/a\nExecStartPre=/bin/x"},
		{"--systemd", "--config", "/a%i"},
		{"--systemd", "--user", "root:x"},
	} {
		if code, out, errs := runCLI(t, t.Context(), "", append([]string{"service", "print"}, bad...)...); code != 2 || out != "" || errs == "" {
			t.Errorf("%q: exit %d, %q %q", bad, code, out, errs)
		}
	}
}

// TestUnitIsValidAndHardened asks systemd itself.
func TestUnitIsValidAndHardened(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Fatalf("%v; install it with go run ./tools/check -only tools, or as root on Debian: apt-get install systemd", err)
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "pairdb")
	if err := os.WriteFile(binary, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(dir, "pairdb.service")
	if err := os.WriteFile(unit, []byte(systemdUnit(binary, unitConfig, unitUser)), 0o644); err != nil {
		t.Fatal(err)
	}
	// It exits with 0 for some of what it finds, so it must not say anything.
	if out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", unit).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--no-pager", fmt.Sprint("--threshold=", maxExposure), unit).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
	// The figure in the documentation is the real one.
	found := regexp.MustCompile(`Overall exposure level for pairdb.service: ([0-9.]+)`).FindSubmatch(out)
	doc, err := os.ReadFile("../../docs/install.md")
	if err != nil || found == nil || !strings.Contains(string(doc), "exposure level "+string(found[1])) {
		t.Errorf("%v; docs/install.md does not say the exposure level %q", err, found)
	}
}

// TestUnitFitsTheAgent: the unit's figures and the agent's are about the same
// process.
func TestUnitFitsTheAgent(t *testing.T) {
	unit, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	seconds := func(key string) time.Duration {
		m := regexp.MustCompile(`(?m)^` + key + `=(\d+)$`).FindSubmatch(unit)
		if m == nil {
			t.Fatalf("the unit has no %s", key)
		}
		d, err := time.ParseDuration(string(m[1]) + "s")
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	c := config.Defaults()
	if stop, need := seconds("TimeoutStopSec"), c.Timeouts.DrainDelay+c.Timeouts.Shutdown+releaseTime; stop < need {
		t.Errorf("the unit gives a stop %s, and the agent may take %s", stop, need)
	}
	if wd := seconds("WatchdogSec"); wd < 20*time.Second {
		t.Errorf("a watchdog of %s would kill a node on a slow disk", wd)
	}
	if want := "StateDirectory=" + strings.TrimPrefix(c.Node.DataDir, "/var/lib/"); !strings.Contains(string(unit), "\n"+want+"\n") {
		t.Errorf("the unit does not say %s, so the default data directory cannot be written", want)
	}
}
