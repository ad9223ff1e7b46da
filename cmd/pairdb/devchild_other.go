//go:build !linux

package main

import "syscall"

// childAttributes keep the terminal's Ctrl-C from a child: dev ends its
// children itself, in order. Only Linux can end them with a parent that was
// killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
