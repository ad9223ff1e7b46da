package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// ballast is the file that fills a disk but for diskLeft bytes: less than what the
// engine keeps free, so that all writes are refused. The last bytes are not taken, since
// the store of the metadata maps its files and does not survive a write to a page that
// has no block.
const (
	ballast  = "ballast"
	diskLeft = 4 << 20
)

// tracer is a process under which the system calls of a node fail.
type tracer struct {
	cmd *exec.Cmd
	out bytes.Buffer
}

// failSyncs has every sync of the node's process fail with EIO from now on.
func (a *agent) failSyncs() (*tracer, error) {
	a.mu.Lock()
	pid := a.cmd.Process.Pid
	a.mu.Unlock()
	tr := &tracer{cmd: exec.Command("strace", "-f", "-qq", "-o", os.DevNull, "-p", strconv.Itoa(pid),
		"-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO")}
	tr.cmd.Stdout, tr.cmd.Stderr = &tr.out, &tr.out
	tr.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return tr, tr.cmd.Start()
}

// end ends the tracer, which lets go of its process, if that has not ended.
func (tr *tracer) end() {
	_ = tr.cmd.Process.Signal(syscall.SIGTERM) // it ends with its process
	// One that does not let go is killed, which lets go, too.
	defer time.AfterFunc(killWait, func() { _ = tr.cmd.Process.Kill() }).Stop()
	_ = tr.cmd.Wait() // an error says only that it ended by a signal, which it was sent
}

// beginPart does a fault of a disk or a port. It reports whether it could.
func (s *storm) beginPart(f fault) bool {
	a := s.agents[f.a]
	switch f.kind {
	case cutGossip, cutPeers:
		port := s.portOf(f)
		if _, ok := s.ports[port]; ok {
			return false
		}
		s.ports[port] = f.a
		s.lan.cutPort(f.a, port)
	case fillDisk:
		if err := s.disks[f.a].Fill(ballast, diskLeft); err != nil {
			s.wrong("%v", err)
		}
	case failSyncs:
		if s.tracers[f.a] != nil {
			return false
		}
		tr, err := a.failSyncs()
		if err != nil {
			s.wrong("strace is needed (apt-get install strace): %v", err)
			return false
		}
		s.tracers[f.a] = tr
	}
	return true
}

// portOf is the port that a fault cuts.
func (s *storm) portOf(f fault) int {
	if f.kind == cutGossip {
		return s.agents[f.a].ports[3]
	}
	return s.agents[f.a].ports[1]
}

// endPart ends such a fault, if no other has done so.
func (s *storm) endPart(f fault) {
	switch f.kind {
	case cutGossip, cutPeers:
		if host, ok := s.ports[s.portOf(f)]; ok && host == f.a {
			s.mendPort(s.portOf(f))
		}
	case fillDisk:
		s.freeDisk(f.a)
	case failSyncs:
		s.endSyncs(f.a)
	}
}

func (s *storm) mendPort(port int) {
	s.lan.mendPort(s.ports[port], port)
	delete(s.ports, port)
}

func (s *storm) freeDisk(i int) {
	if err := os.Remove(filepath.Join(s.disks[i].Dir, ballast)); err != nil && !os.IsNotExist(err) {
		s.wrong("%v", err)
	}
}

// endSyncs starts a node whose syncs failed anew: what it could not write down it is
// never to acknowledge, and a process that was told so once does not trust its files.
func (s *storm) endSyncs(i int) {
	if tr := s.tracers[i]; tr != nil {
		s.tracers[i] = nil
		tr.end()
		s.kill(i)
		s.revive(i)
	}
}

// healParts ends all such faults.
func (s *storm) healParts() {
	for port := range s.ports {
		s.mendPort(port)
	}
	for i := range s.disks {
		s.freeDisk(i)
		s.endSyncs(i)
	}
}
