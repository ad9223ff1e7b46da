package main

import "syscall"

// childAttributes make a child end with its parent, whatever ends that, and
// keep the terminal's Ctrl-C from it: dev ends its children itself, in order.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
