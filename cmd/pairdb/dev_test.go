package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/client/clienttest"
	"github.com/pairdb/pairdb/node"
	"github.com/pairdb/pairdb/node/config"
)

// fakeAgentEnv says how a fake agent behaves; see fakeAgent.
const fakeAgentEnv = "PAIRDB_TEST_FAKE_AGENT"

// fakeAgent is a child of dev that serves from memory. In PATH it is the
// program fakeagent.
func fakeAgent() {
	fs := pflag.NewFlagSet("agent", pflag.ExitOnError)
	config.RegisterFlags(fs)
	fs.Parse(os.Args[2:]) // ends the process on an error
	opts, err := config.FlagOptions(fs)
	if err != nil {
		panic(err)
	}
	c, _, err := config.Load(config.LoadOptions{Flags: opts.Flags, Env: os.Environ()})
	if err != nil {
		panic(err)
	}
	if err := os.MkdirAll(c.Node.DataDir, 0o700); err != nil {
		panic(err)
	}
	switch os.Getenv(fakeAgentEnv) {
	case "crash":
		fmt.Println("something is broken")
		os.Exit(7)
	case "clash": // the first start of each node finds its port taken
		marker := filepath.Join(c.Node.DataDir, "clashed")
		if _, err := os.Stat(marker); err != nil {
			os.WriteFile(marker, nil, 0o600)
			fmt.Println("listen: the port is in use")
			os.Exit(1)
		}
	case "wait":
		fmt.Println("starting\nwaiting for Godot")
	case "hang":
		signal.Ignore(syscall.SIGTERM)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	s, err := clienttest.Start(clienttest.NewStore())
	if err != nil {
		panic(err)
	}
	s.SetServing(os.Getenv(fakeAgentEnv) != "wait")
	// The nodes of a cluster know the same tenants; these do by knowing this one
	// from the start.
	cl, err := client.New(client.Options{Endpoints: []string{s.Addr()}})
	if err != nil {
		panic(err)
	}
	if _, err := cl.CreateTenant(context.Background(), client.NewTenant{ID: devTenant}); err != nil {
		panic(err)
	}
	cl.Close()
	b, err := json.Marshal(node.Addresses{Name: c.Node.Name, GRPC: s.Addr(), GRPCLocal: s.Addr(), HTTP: "127.0.0.1:1"})
	if err != nil {
		panic(err)
	}
	tmp := c.Listen.AddrFile + ".tmp"
	if err := errors.Join(os.WriteFile(tmp, b, 0o600), os.Rename(tmp, c.Listen.AddrFile)); err != nil {
		panic(err)
	}
	if os.Getenv(fakeAgentEnv) == "hang" {
		select {}
	}
	<-stop
	s.Close()
	if os.Getenv(fakeAgentEnv) == "dirty" {
		fmt.Println("the end was not clean")
		os.Exit(3)
	}
}

func fakeAgentPath(t *testing.T) string {
	t.Helper()
	exe, err := exec.LookPath("fakeagent")
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

// devApp is an app whose children are fake agents.
func devApp(t *testing.T, stdout, stderr io.Writer) *app {
	exe := fakeAgentPath(t)
	return &app{
		stdin: strings.NewReader(""), stdout: stdout, stderr: stderr,
		getenv:     func(string) string { return "" },
		executable: func() (string, error) { return exe, nil },
	}
}

func TestDevStartsAgainAfterAPortClash(t *testing.T) {
	t.Setenv(fakeAgentEnv, "clash")
	c := newDevCluster(fakeAgentPath(t), t.TempDir(), 2)
	if err := c.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes {
		if !n.hasEnded() {
			t.Errorf("%s is still there", n.name)
		}
	}
	if err := c.stop(); err != nil { // nothing is left to stop
		t.Fatal(err)
	}
}

func TestDevShowsWhyAChildCrashed(t *testing.T) {
	t.Setenv(fakeAgentEnv, "crash")
	var out, errs lockedBuffer
	a := devApp(t, &out, &errs)
	code := a.report(t.Context(), a.dev(t.Context(), devOptions{nodes: 3, dir: t.TempDir()}))
	if code != 1 || !strings.Contains(errs.String(), "exit status 7") || !strings.Contains(errs.String(), "something is broken") {
		t.Errorf("%d: %s", code, errs.String())
	}
}

func TestDevKillsAChildThatHangs(t *testing.T) {
	t.Setenv(fakeAgentEnv, "hang")
	c := newDevCluster(fakeAgentPath(t), t.TempDir(), 2)
	c.stopTimeout = 50 * time.Millisecond
	if err := c.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := c.stop()
	if err == nil || !strings.Contains(err.Error(), "were killed") {
		t.Fatal(err)
	}
	for _, n := range c.nodes {
		if !n.hasEnded() {
			t.Errorf("%s is still there", n.name)
		}
	}
}

func TestDevSaysWhatANodeWaitsFor(t *testing.T) {
	t.Setenv(fakeAgentEnv, "wait")
	c := newDevCluster(fakeAgentPath(t), t.TempDir(), 1)
	c.startTimeout = 2 * time.Second
	var errs lockedBuffer
	a := &app{stderr: &errs, getenv: func(string) string { return "" }}
	if code := a.report(t.Context(), c.start(t.Context())); code != 1 || !strings.Contains(errs.String(), "n1: waiting for Godot") {
		t.Errorf("%d: %s", code, errs.String())
	}
}

// startDev runs dev until it has greeted, and returns what ends it and what
// waits for its end.
func startDev(t *testing.T, a *app, o devOptions, out *lockedBuffer) (interrupt func(), wait func() error) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	greeted := make(chan struct{})
	a.stdout = writerFunc(func(p []byte) (int, error) {
		defer close(greeted)
		return out.Write(p)
	})
	go func() { done <- a.dev(ctx, o) }()
	select {
	case <-greeted:
	case err := <-done:
		t.Fatalf("dev ended: %v", err)
	}
	return func() { cancel(errInterrupted) }, func() error { return <-done }
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestDevEndsCleanly(t *testing.T) {
	// What is meant for some other agent does not reach the children.
	t.Setenv("PAIRDB_AGENT_NODE__NAME", "somebody else")
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	var out, errs lockedBuffer
	interrupt, wait := startDev(t, devApp(t, nil, &errs), devOptions{nodes: 3}, &out)
	for _, want := range []string{"3 nodes", "tenant demo", "PAIRDB_ENDPOINT=127.0.0.1:", "put greeting hello", "n3  gRPC 127.0.0.1:", "removed at the end"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the greeting lacks %q:\n%s", want, out.String())
		}
	}
	interrupt()
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestDevKeepsItsData(t *testing.T) {
	for _, o := range []devOptions{{nodes: 1, keep: true}, {nodes: 1, dir: "data"}} {
		tmp := t.TempDir()
		t.Setenv("TMPDIR", tmp)
		if o.dir != "" {
			o.dir = filepath.Join(tmp, o.dir)
		}
		for range 2 {
			var out, errs lockedBuffer
			interrupt, wait := startDev(t, devApp(t, nil, &errs), o, &out)
			interrupt()
			if err := wait(); err != nil {
				t.Fatal(err)
			}
		}
		found, err := filepath.Glob(filepath.Join(tmp, "*", "n1"))
		if want := map[bool]int{true: 2, false: 1}[o.keep]; err != nil || len(found) != want {
			t.Errorf("%+v: %v, %v", o, found, err)
		}
	}
}

func TestDevTellsOfACrash(t *testing.T) {
	var out lockedBuffer
	told := make(chan struct{})
	a := devApp(t, nil, writerFunc(func(p []byte) (int, error) {
		if strings.Contains(string(p), "signal: killed") {
			close(told)
		}
		return len(p), nil
	}))
	interrupt, wait := startDev(t, a, devOptions{nodes: 2}, &out)
	var pid int
	at := strings.Index(out.String(), "  pid ")
	if _, err := fmt.Sscanf(out.String()[at:], "  pid %d", &pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-told
	interrupt()
	if err := wait(); err != nil { // the other one is ended as ever
		t.Fatal(err)
	}
}

func TestDevReportsAnUncleanEnd(t *testing.T) {
	t.Setenv(fakeAgentEnv, "dirty")
	var out, errs lockedBuffer
	interrupt, wait := startDev(t, devApp(t, nil, &errs), devOptions{nodes: 2}, &out)
	interrupt()
	err := wait()
	a := &app{stderr: &errs, getenv: func(string) string { return "" }}
	if code := a.report(t.Context(), err); code != 1 || !strings.Contains(errs.String(), "the end was not clean") {
		t.Errorf("%d: %s", code, errs.String())
	}
}

func TestDevImport(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"a": "1", "b/c": "22"})
	var out, errs lockedBuffer
	a := devApp(t, &out, &errs)
	if err := a.dev(t.Context(), devOptions{nodes: 1, importDir: dir}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"imported 2 files, 3 bytes", "verified 2 files, 3 bytes"} {
		if !strings.Contains(errs.String(), want) {
			t.Errorf("%q is missing: %s", want, errs.String())
		}
	}
	// Two fake agents share nothing, so that what went through one cannot be
	// read through the other: the difference is found, and is the exit code.
	err := a.dev(t.Context(), devOptions{nodes: 2, importDir: dir})
	if code := a.report(t.Context(), err); code != 1 || !strings.Contains(errs.String(), "failed b/c: KEY_NOT_FOUND") {
		t.Errorf("%d: %s", code, errs.String())
	}
}
