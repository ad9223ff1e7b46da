package main

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// notifySendTimeout bounds telling the service manager something: it is told by
// those who have more to do.
const notifySendTimeout = 2 * time.Second

// serviceManager is who started this process and wants to be told how it is, by
// the protocol of systemd's sd_notify: lines of NAME=value in a datagram. It is
// our own because the ready-made libraries wait for ever for a manager that does
// not read.
type serviceManager struct {
	// socket is a path, or a name behind @ that is in no file system. Empty:
	// nobody wants to be told.
	socket string
	// watchdog is how long the manager waits for a sign of life before it ends
	// this process. 0: for ever.
	watchdog time.Duration
}

// newServiceManager reads what a service manager put into the environment of
// the process pid.
func newServiceManager(getenv func(string) string, pid int) (serviceManager, error) {
	m := serviceManager{socket: getenv("NOTIFY_SOCKET")}
	if m.socket != "" && m.socket[0] != '/' && m.socket[0] != '@' {
		return serviceManager{}, fmt.Errorf("NOTIFY_SOCKET is %q; it should be a path, or a name behind @", m.socket)
	}
	limit, whose := getenv("WATCHDOG_USEC"), getenv("WATCHDOG_PID")
	if m.socket == "" || limit == "" || whose != "" && whose != strconv.Itoa(pid) {
		return m, nil
	}
	usec, err := strconv.ParseInt(limit, 10, 64)
	if err != nil || usec <= 0 || usec > int64(24*time.Hour/time.Microsecond) {
		return serviceManager{}, fmt.Errorf("WATCHDOG_USEC is %q; it should be a number of microseconds, at most a day", limit)
	}
	m.watchdog = time.Duration(usec) * time.Microsecond
	return m, nil
}

// tell sends lines as one message. It is safe for concurrent use.
func (m serviceManager) tell(lines ...string) error {
	if m.socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: m.socket})
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	err = conn.SetWriteDeadline(time.Now().Add(notifySendTimeout))
	if err == nil {
		_, err = conn.Write([]byte(strings.Join(lines, "\n")))
	}
	if err = errors.Join(err, conn.Close()); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}

// stopping is what is told of a stop that ends within limit.
func stopping(limit time.Duration) []string {
	return []string{"STOPPING=1", "STATUS=stopping", "EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(limit.Microseconds(), 10)}
}
