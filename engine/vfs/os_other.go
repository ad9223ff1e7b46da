//go:build !linux

package vfs

import (
	"errors"
	"os"
)

// Elsewhere than on Linux the engine is for development only: what has no
// portable equivalent is refused rather than pretended.

func datasync(f *os.File) error { return f.Sync() }

func fallocate(*os.File, int64, int64) error { return errors.ErrUnsupported }

func lockFile(*os.File, bool) error { return errors.ErrUnsupported }

func diskUsage(string) (Usage, error) { return Usage{}, errors.ErrUnsupported }

func link(oldname, newname string) error { return os.Link(oldname, newname) }
