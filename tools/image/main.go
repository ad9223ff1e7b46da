// Command image builds the container image of PairDB with the Docker engine
// that answers. It is run from the module's root:
//
//	go run ./tools/image [-tag pairdb]
//
// The binary is built here, static and for Linux, and its own build information
// becomes the labels of the image, so that both always say the same.
package main

import (
	"cmp"
	"context"
	"debug/buildinfo"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"time"
)

func main() {
	tag := flag.String("tag", cmp.Or(os.Getenv("PAIRDB_IMAGE"), "pairdb"), "name of the image; $PAIRDB_IMAGE sets it too")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := build(ctx, *tag, time.Now())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// build makes the image in a context of its own, which has nothing of the
// working tree but what goes into the image.
func build(ctx context.Context, tag string, now time.Time) (err error) {
	if _, err := exec.LookPath("docker"); err != nil {
		return errors.New("there is no docker command; install it (on Debian, as root: apt-get install docker.io)")
	}
	dir, err := os.MkdirTemp("", "pairdb-image-")
	if err != nil {
		return fmt.Errorf("make build context: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	binary := filepath.Join(dir, "pairdb")
	if err := run(ctx, []string{"CGO_ENABLED=0", "GOOS=linux"}, "go", "build", "-trimpath", "-o", binary, "./cmd/pairdb"); err != nil {
		return err
	}
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return fmt.Errorf("read version of the binary: %w", err)
	}
	// The folder becomes the data volume: its owner's alone.
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
		return fmt.Errorf("make build context: %w", err)
	}
	args := []string{"build", "-f", filepath.Join("docker", "Dockerfile"), "-t", tag}
	for _, l := range labels(info, now) {
		args = append(args, "--build-arg", l)
	}
	return run(ctx, nil, "docker", append(args, dir)...)
}

// labels gives the arguments of the Dockerfile: what the binary says that it
// was built from, and when the image was made.
func labels(info *buildinfo.BuildInfo, now time.Time) []string {
	version, revision := "devel", "unknown"
	if v := info.Main.Version; v != "" && v != "(devel)" {
		version = v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			revision = s.Value
		}
	}
	return []string{"VERSION=" + version, "REVISION=" + revision, "CREATED=" + now.UTC().Format(time.RFC3339)}
}

func run(ctx context.Context, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, args[0], err)
	}
	return nil
}
