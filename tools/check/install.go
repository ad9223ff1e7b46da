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
	compiler, err := compiler(ctx)
	if err != nil {
		return err
	}
	const disks, networks, languages = "the tests on file systems that fail", "the tests of networks that are cut", "the examples in other languages"
	all := []program{
		compiler,
		{name: "systemd-analyze", why: "the check of the systemd unit", packages: []string{"systemd"}},
		{name: "mkfs.ext4", why: disks, packages: []string{"e2fsprogs"}},
		{name: "losetup", why: disks, packages: []string{"mount"}},
		{name: "strace", why: "the tests of system calls that fail, kill or hang", packages: []string{"strace"}},
		{name: "taskset", why: "the tests of nodes that are asked for too much", packages: []string{"util-linux"}},
		{name: "ip", why: networks, packages: []string{"iproute2"}},
		{name: "nft", why: networks, packages: []string{"nftables"}},
		{name: "kill", why: "the systemd unit", packages: []string{"procps"}},
		{
			name: "gRPC for Python", why: languages, packages: []string{"python3-grpcio", "python3-grpc-tools"},
			probe: []string{"/usr/bin/python3", "-c", "import grpc, grpc_tools.protoc"},
		},
		{name: "node", why: languages, packages: []string{"nodejs"}},
		{name: "npm", why: languages, packages: []string{"npm"}},
	}
	return install(ctx, out, append(all, containerPrograms(ctx)...)...)
}

// compiler is the C compiler that the race detector needs.
func compiler(ctx context.Context) (program, error) {
	cc, err := output(ctx, "go", "env", "CC")
	if err != nil {
		return program{}, err
	}
	name, _, _ := strings.Cut(strings.TrimSpace(cc), " ")
	return program{name: name, why: "the race detector", packages: []string{"gcc", "libc6-dev"}}, nil
}

// containerPrograms are those which the tests in containers call, and unless an
// engine answers one that they can start.
func containerPrograms(ctx context.Context) []program {
	const why = "the test of image and compose cluster"
	all := []program{
		{name: "docker", why: why, packages: []string{"docker.io"}},
		{name: "docker-compose", why: why, packages: []string{"docker-compose"}},
	}
	if _, err := output(ctx, "docker", "version"); err != nil {
		all = append(all, program{name: "dockerd", why: why, packages: []string{"docker.io"}})
	}
	return all
}

// missing says where the programs are that are there, and returns the others.
func missing(ctx context.Context, out io.Writer, programs []program) (absent []program) {
	for _, p := range programs {
		if where, err := p.there(ctx); err == nil {
			fmt.Fprintln(out, where)
		} else {
			absent = append(absent, p)
		}
	}
	return absent
}

// install makes sure that there are some programs. Root on Debian gets them
// installed, all at once; anybody else is told what to do.
func install(ctx context.Context, out io.Writer, programs ...program) error {
	absent := missing(ctx, out, programs)
	if len(absent) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err == nil && os.Geteuid() == 0 {
		apt := func(args ...string) error {
			return stream(ctx, out, []string{"DEBIAN_FRONTEND=noninteractive"}, "apt-get", append([]string{"-q"}, args...)...)
		}
		packages := []string{"install", "-y", "--no-install-recommends"}
		for _, p := range absent {
			packages = append(packages, p.packages...)
		}
		if err := errors.Join(apt("update"), apt(packages...)); err != nil {
			return err
		}
		absent = missing(ctx, out, absent)
	}
	var errs []error
	for _, p := range absent {
		errs = append(errs, fmt.Errorf("%s needs %s, and there is none; install it (on Debian, as root: apt-get install %s)", p.why, p.name, strings.Join(p.packages, " ")))
	}
	return errors.Join(errs...)
}
