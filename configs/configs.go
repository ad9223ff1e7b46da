// Package configs holds the files that a machine which runs PairDB needs, so
// that the binary can write them where there is no copy of the repository.
package configs

import _ "embed"

// SystemdUnit is systemd/pairdb.service.
//
//go:embed systemd/pairdb.service
var SystemdUnit string
