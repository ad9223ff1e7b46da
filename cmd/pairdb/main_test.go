package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client/clienttest"
)

// leakChecked fails a run of tests that leaves goroutines behind.
type leakChecked struct{ m *testing.M }

func (l leakChecked) Run() int {
	code := l.m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// TestMain makes this test binary the program as well, under the name pairdb in
// PATH.
func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){"pairdb": main, "fakeagent": fakeAgent})
}

// scriptNodes are the pretended nodes of one script.
type scriptNodes struct {
	store   *clienttest.Store
	servers [2]*clienttest.Server
}

const scriptNodesKey = "nodes"

// TestScripts runs each script against two pretended nodes, $NODE1 and $NODE2,
// of which the first is the default endpoint.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           filepath.Join("testdata", "script"),
		UpdateScripts: os.Getenv("UPDATE") != "",
		Setup: func(env *testscript.Env) error {
			n := &scriptNodes{store: clienttest.NewStore()}
			for i := range n.servers {
				s, err := clienttest.Start(n.store)
				if err != nil {
					return err
				}
				env.Defer(s.Close)
				n.servers[i] = s
				env.Setenv(fmt.Sprintf("NODE%d", i+1), s.Addr())
			}
			env.Setenv("PAIRDB_ENDPOINT", n.servers[0].Addr())
			env.Values[scriptNodesKey] = n
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"cli":     scriptCLI,
			"exits":   scriptExits,
			"fails":   scriptFails,
			"stop":    scriptStop,
			"serving": scriptServing,
			"bytes":   scriptBytes,

			"damaged":   scriptDamaged,
			"enginedir": scriptEngineDir,
			"objectdir": scriptObjectDir,
			"only":      scriptOnly,
			"flip":      scriptFlip,
		},
	})
}

// cli CODE [NAME=VALUE]… ARGS… runs pairdb in this process and checks its exit
// code: sooner done than exits, for what needs neither stdin nor files of the
// script. The environment has the first node and what is given.
func scriptCLI(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: cli CODE [ARGS]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	env := map[string]string{"PAIRDB_ENDPOINT": ts.Value(scriptNodesKey).(*scriptNodes).servers[0].Addr()}
	for args = args[1:]; len(args) > 0; args = args[1:] {
		name, value, ok := strings.Cut(args[0], "=")
		if !ok || !strings.HasPrefix(name, "PAIRDB_") {
			break
		}
		env[name] = value
	}
	a := &app{
		stdin: strings.NewReader(""), stdout: ts.Stdout(), stderr: ts.Stderr(),
		getenv: func(name string) string { return env[name] }, executable: os.Executable,
	}
	if got := a.run(context.Background(), args); got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// exits CODE COMMAND… runs a command and checks its exit code.
func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARGS]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// fails [first] METHOD CODE [OUTCOME ACKS NEED] makes the nodes, or the first one,
// refuse a method from now on; METHOD "none" ends that.
func scriptFails(ts *testscript.TestScript, neg bool, args []string) {
	nodes := ts.Value(scriptNodesKey).(*scriptNodes)
	// A client that has made a few calls finds the second node by itself.
	servers := nodes.servers[:]
	if len(args) > 1 && args[0] == "first" {
		servers, args = servers[:1], args[1:]
	}
	if len(args) == 1 && args[0] == "none" {
		for _, srv := range servers {
			srv.SetHook(nil)
		}
		return
	}
	if neg || len(args) != 2 && len(args) != 5 {
		ts.Fatalf("usage: fails [first] METHOD CODE [OUTCOME ACKS NEED]")
	}
	err := clienttest.Fail(errcode.Code(args[1]), "made to fail", nil)
	if len(args) == 5 {
		acks, aerr := strconv.Atoi(args[3])
		need, nerr := strconv.Atoi(args[4])
		ts.Check(errors.Join(aerr, nerr))
		err = clienttest.FailWrite(errcode.Code(args[1]), errcode.Outcome(args[2]), acks, need, "made to fail")
	}
	for _, srv := range servers {
		srv.SetHook(func(_ context.Context, method string, req any) error {
			// A put fails alike by itself and in a batch.
			if _, put := req.(*pairdbv1.PutRequest); strings.HasSuffix(method, "/"+args[0]) || put && args[0] == "Put" {
				return err
			}
			return nil
		})
	}
}

// stop ends the first node.
func scriptStop(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Value(scriptNodesKey).(*scriptNodes).servers[0].Close()
}

// serving true|false sets what the first node answers to a health check.
func scriptServing(ts *testscript.TestScript, _ bool, args []string) {
	serving, err := strconv.ParseBool(strings.Join(args, " "))
	ts.Check(err)
	ts.Value(scriptNodesKey).(*scriptNodes).servers[0].SetServing(serving)
}

// damaged makes the first node find damage from now on.
func scriptDamaged(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Value(scriptNodesKey).(*scriptNodes).servers[0].SetDamage(
		&pairdbv1.Damage{File: "000007.sst", Offset: 512, Reason: "block checksum mismatch"},
		&pairdbv1.Damage{Offset: -1, Reason: "levels \x1b[31moverlap"})
}

// bytes FILE N makes a file of N bytes, FILE QUOTED one with those bytes.
func scriptBytes(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: bytes FILE N|QUOTED")
	}
	var data []byte
	if n, err := strconv.Atoi(args[1]); err == nil {
		data = make([]byte, n)
	} else {
		text, err := strconv.Unquote(`"` + args[1] + `"`)
		ts.Check(err)
		data = []byte(text)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o600))
}

// runCLI runs a command line in this process.
func runCLI(t *testing.T, ctx context.Context, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs lockedBuffer
	code = run(ctx, args, strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

// lockedBuffer takes writes from several goroutines.
type lockedBuffer struct {
	mu struct {
		sync.Mutex
		b strings.Builder
	}
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.b.String()
}
