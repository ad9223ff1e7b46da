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

// program is one that the checks need beside Go.
type program struct {
	name string
	// why says in a few words what it is needed for.
	why string
	// packages of Debian that have it.
	packages []string
}

// installTools makes sure that everything the checks need is there.
func installTools(ctx context.Context, out io.Writer) error {
	return errors.Join(
		installCompiler(ctx, out),
		install(ctx, out, program{"systemd-analyze", "the check of the systemd unit", []string{"systemd"}}),
		install(ctx, out, program{"mkfs.ext4", "the tests on file systems that fail", []string{"e2fsprogs"}}),
		install(ctx, out, program{"losetup", "the tests on file systems that fail", []string{"mount"}}),
		install(ctx, out, program{"strace", "the tests of system calls that fail, kill or hang", []string{"strace"}}),
		install(ctx, out, program{"ip", "the tests of networks that are cut", []string{"iproute2"}}),
		install(ctx, out, program{"nft", "the tests of networks that are cut", []string{"nftables"}}),
		install(ctx, out, program{"kill", "the systemd unit", []string{"procps"}}),
		installDocker(ctx, out),
	)
}

// installCompiler makes sure that there is the C compiler that the race detector
// needs.
func installCompiler(ctx context.Context, out io.Writer) error {
	cc, err := output(ctx, "go", "env", "CC")
	if err != nil {
		return err
	}
	name, _, _ := strings.Cut(strings.TrimSpace(cc), " ")
	return install(ctx, out, program{name, "the race detector", []string{"gcc", "libc6-dev"}})
}

// installDocker makes sure that there are the programs which the tests in
// containers call, and unless an engine answers one that they can start.
func installDocker(ctx context.Context, out io.Writer) error {
	why := "the test of image and compose cluster"
	err := errors.Join(
		install(ctx, out, program{"docker", why, []string{"docker.io"}}),
		install(ctx, out, program{"docker-compose", why, []string{"docker-compose"}}),
	)
	if err != nil {
		return err
	}
	if _, err := output(ctx, "docker", "version"); err == nil {
		return nil
	}
	return install(ctx, out, program{"dockerd", why, []string{"docker.io"}})
}

// install makes sure that there is a program. Root on Debian gets it installed;
// anybody else is told what to do.
func install(ctx context.Context, out io.Writer, p program) error {
	if path, err := exec.LookPath(p.name); err == nil {
		fmt.Fprintln(out, path)
		return nil
	}
	hint := fmt.Errorf("%s needs %s, and there is none; install it (on Debian, as root: apt-get install %s)", p.why, p.name, strings.Join(p.packages, " "))
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return hint
	}
	env := []string{"DEBIAN_FRONTEND=noninteractive"}
	if err := errors.Join(
		stream(ctx, out, env, "apt-get", "-q", "update"),
		stream(ctx, out, env, "apt-get", append([]string{"-q", "install", "-y", "--no-install-recommends"}, p.packages...)...),
	); err != nil {
		return err
	}
	if _, err := exec.LookPath(p.name); err != nil {
		return hint
	}
	return nil
}
