package access

import "testing"

func TestFromThisMachine(t *testing.T) {
	for _, c := range []struct {
		remote, local string
		want          bool
	}{
		{"127.0.0.1:9", "127.0.0.1:1", true},
		{"127.9.9.9:9", "", true},
		{"[::1]:9", "[::1]:1", true},
		{"[::ffff:127.0.0.1]:9", "[::]:1", true},
		{"192.0.2.1:9", "192.0.2.1:1", true},
		{"192.0.2.1:9", "[::ffff:192.0.2.1]:1", true},
		{"[fe80::1%lo]:9", "[fe80::1%lo]:1", true},
		{"192.0.2.2:9", "192.0.2.1:1", false},
		{"192.0.2.2:9", "127.0.0.1:1", false},
		{"[2001:db8::2]:9", "[2001:db8::1]:1", false},
		{"192.0.2.1:9", "", false},
		{"192.0.2.1:9", "0.0.0.0:1", false},
		{"bufconn", "bufconn", false},
		{"", "", false},
		{"localhost:9", "localhost:1", false},
		{"127.0.0.1", "127.0.0.1", false},
	} {
		if got := FromThisMachine(c.remote, c.local); got != c.want {
			t.Errorf("from %q to %q: %t", c.remote, c.local, got)
		}
	}
}
