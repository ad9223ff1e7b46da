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
	// probe is a command that succeeds where it is there. Nil: it is there if its
	// name is found.
	probe []string
}

// there says where a program is, or why it is not there.
func (p program) there(ctx context.Context) (string, error) {
	if p.probe == nil {
		return exec.LookPath(p.name)
	}
	_, err := output(ctx, p.probe[0], p.probe[1:]...)
	return p.name, err
}

// installTools makes sure that everything the checks need is there.
func installTools(ctx context.Context, out io.Writer) error {
	return errors.Join(
		installCompiler(ctx, out),
		install(ctx, out, program{name: "systemd-analyze", why: "the check of the systemd unit", packages: []string{"systemd"}}),
		install(ctx, out, program{name: "mkfs.ext4", why: "the tests on file systems that fail", packages: []string{"e2fsprogs"}}),
		install(ctx, out, program{name: "losetup", why: "the tests on file systems that fail", packages: []string{"mount"}}),
		install(ctx, out, program{name: "strace", why: "the tests of system calls that fail, kill or hang", packages: []string{"strace"}}),
		install(ctx, out, program{name: "taskset", why: "the tests of nodes that are asked for too much", packages: []string{"util-linux"}}),
		install(ctx, out, program{name: "ip", why: "the tests of networks that are cut", packages: []string{"iproute2"}}),
		install(ctx, out, program{name: "nft", why: "the tests of networks that are cut", packages: []string{"nftables"}}),
		install(ctx, out, program{name: "kill", why: "the systemd unit", packages: []string{"procps"}}),
		installDocker(ctx, out),
		installLanguages(ctx, out),
	)
}

// installLanguages makes sure that the examples in other languages can run.
func installLanguages(ctx context.Context, out io.Writer) error {
	const why = "the examples in other languages"
	return errors.Join(
		install(ctx, out, program{
			name: "gRPC for Python", why: why, packages: []string{"python3-grpcio", "python3-grpc-tools"},
			probe: []string{"/usr/bin/python3", "-c", "import grpc, grpc_tools.protoc"},
		}),
		install(ctx, out, program{name: "node", why: why, packages: []string{"nodejs"}}),
		install(ctx, out, program{name: "npm", why: why, packages: []string{"npm"}}),
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
	return install(ctx, out, program{name: name, why: "the race detector", packages: []string{"gcc", "libc6-dev"}})
}

// installDocker makes sure that there are the programs which the tests in
// containers call, and unless an engine answers one that they can start.
func installDocker(ctx context.Context, out io.Writer) error {
	why := "the test of image and compose cluster"
	err := errors.Join(
		install(ctx, out, program{name: "docker", why: why, packages: []string{"docker.io"}}),
		install(ctx, out, program{name: "docker-compose", why: why, packages: []string{"docker-compose"}}),
	)
	if err != nil {
		return err
	}
	if _, err := output(ctx, "docker", "version"); err == nil {
		return nil
	}
	return install(ctx, out, program{name: "dockerd", why: why, packages: []string{"docker.io"}})
}

// install makes sure that there is a program. Root on Debian gets it installed;
// anybody else is told what to do.
func install(ctx context.Context, out io.Writer, p program) error {
	if where, err := p.there(ctx); err == nil {
		fmt.Fprintln(out, where)
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
	if _, err := p.there(ctx); err != nil {
		return hint
	}
	return nil
}
