package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestServiceManagerFromTheEnvironment(t *testing.T) {
	for _, tc := range []struct {
		env  string
		want serviceManager
		bad  string
	}{
		{"", serviceManager{}, ""},
		{"WATCHDOG_USEC=30000000", serviceManager{}, ""}, // nobody to tell
		{"NOTIFY_SOCKET=/run/systemd/notify", serviceManager{socket: "/run/systemd/notify"}, ""},
		{"NOTIFY_SOCKET=@/a/b WATCHDOG_USEC=30000000", serviceManager{"@/a/b", 30 * time.Second}, ""},
		{"NOTIFY_SOCKET=/x WATCHDOG_USEC=1 WATCHDOG_PID=77", serviceManager{"/x", time.Microsecond}, ""},
		{"NOTIFY_SOCKET=/x WATCHDOG_USEC=1 WATCHDOG_PID=78", serviceManager{socket: "/x"}, ""}, // a parent's
		{"NOTIFY_SOCKET=x", serviceManager{}, "NOTIFY_SOCKET"},
		{"NOTIFY_SOCKET=/x WATCHDOG_USEC=0", serviceManager{}, "WATCHDOG_USEC"},
		{"NOTIFY_SOCKET=/x WATCHDOG_USEC=1s", serviceManager{}, "WATCHDOG_USEC"},
		{"NOTIFY_SOCKET=/x WATCHDOG_USEC=99999999999999999", serviceManager{}, "WATCHDOG_USEC"},
	} {
		env := map[string]string{}
		for pair := range strings.FieldsSeq(tc.env) {
			name, value, _ := strings.Cut(pair, "=")
			env[name] = value
		}
		got, err := newServiceManager(func(name string) string { return env[name] }, 77)
		if got != tc.want || (err == nil) != (tc.bad == "") || err != nil && !strings.Contains(err.Error(), tc.bad) {
			t.Errorf("%q: %+v, %v", tc.env, got, err)
		}
	}
}

// TestTell: a message is one datagram, to a path and to an abstract name, and a
// manager that does not read holds nobody up.
func TestTell(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), fmt.Sprintf("@pairdb-test-%d", os.Getpid())} {
		lis, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: name})
		if err != nil {
			t.Fatal(err)
		}
		m := serviceManager{socket: name}
		if err := m.tell(stopping(75 * time.Second)...); err != nil {
			t.Error(err)
		}
		b := make([]byte, 4096)
		n, err := lis.Read(b)
		want := []string{"STOPPING=1", "STATUS=stopping", "EXTEND_TIMEOUT_USEC=75000000"}
		if got := strings.Split(string(b[:n]), "\n"); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		start := time.Now()
		sent := 0
		for ; err == nil && sent < 100_000; sent++ {
			err = m.tell("WATCHDOG=1")
		}
		if took := time.Since(start); err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || took > 10*notifySendTimeout {
			t.Errorf("%d messages to one who does not read: %v after %s", sent, err, took)
		}
		if err := lis.Close(); err != nil {
			t.Error(err)
		}
		if err := m.tell("READY=1"); err == nil {
			t.Error("told one who is not there, without an error")
		}
	}
	if err := (serviceManager{}).tell("READY=1"); err != nil {
		t.Errorf("nobody wants to be told: %v", err)
	}
}
