package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// installCompiler makes sure that there is a C compiler, which the race detector
// needs. Root on Debian gets one installed; anybody else is told what to do.
func installCompiler(ctx context.Context, out io.Writer) error {
	cc, err := output(ctx, "go", "env", "CC")
	if err != nil {
		return err
	}
	name, _, _ := strings.Cut(strings.TrimSpace(cc), " ")
	if path, err := exec.LookPath(name); err == nil {
		fmt.Fprintln(out, path)
		return nil
	}
	const hint = "the race detector needs a C compiler, and there is no %s; install it (on Debian, as root: apt-get install gcc libc6-dev)"
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return fmt.Errorf(hint, name)
	}
	env := []string{"DEBIAN_FRONTEND=noninteractive"}
	if err := errors.Join(
		stream(ctx, out, env, "apt-get", "-q", "update"),
		stream(ctx, out, env, "apt-get", "-q", "install", "-y", "--no-install-recommends", "gcc", "libc6-dev"),
	); err != nil {
		return err
	}
	if _, err := exec.LookPath(name); err != nil {
		return fmt.Errorf(hint, name)
	}
	return nil
}
