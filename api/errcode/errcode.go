// Package errcode is the one table of PairDB's error codes. A code says why an
// operation failed; it travels as the reason of a google.rpc.ErrorInfo and as
// error_code in an HTTP body, and is never guessed from a message. The table
// gives each code its gRPC status, its HTTP status, the exit code of the CLI,
// whether a retry can help, and what the client should do.
//
// What happened to a write is a second question with a second answer, Outcome.
//
// docs/errors.md is generated from the table.
package errcode

// Code is why an operation failed. Its text is part of the contract.
type Code string

// The codes of a node and its storage.
const (
	OK                Code = "OK"
	InvalidArgument   Code = "INVALID_ARGUMENT"
	KeyNotFound       Code = "KEY_NOT_FOUND"
	KeyTooLarge       Code = "KEY_TOO_LARGE"
	ValueTooLarge     Code = "VALUE_TOO_LARGE"
	InvalidTenantID   Code = "INVALID_TENANT_ID"
	InvalidKey        Code = "INVALID_KEY"
	ChecksumFailed    Code = "CHECKSUM_FAILED"
	Internal          Code = "INTERNAL"
	Unavailable       Code = "UNAVAILABLE"
	DiskFull          Code = "DISK_FULL"
	DiskThrottled     Code = "DISK_THROTTLED"
	CommitLogFailed   Code = "COMMIT_LOG_FAILED"
	MemtableFailed    Code = "MEMTABLE_FAILED"
	SSTableFailed     Code = "SSTABLE_FAILED"
	CorruptedData     Code = "CORRUPTED_DATA"
	ResourceExhausted Code = "RESOURCE_EXHAUSTED"
	InsufficientSpace Code = "INSUFFICIENT_SPACE"
)

// The codes of a cluster.
const (
	TenantNotFound           Code = "TENANT_NOT_FOUND"
	TenantExists             Code = "TENANT_EXISTS"
	QuorumNotReached         Code = "QUORUM_NOT_REACHED"
	IdempotencyKeyConflict   Code = "IDEMPOTENCY_KEY_CONFLICT"
	InvalidReplicationFactor Code = "INVALID_REPLICATION_FACTOR"
	NodeInUse                Code = "NODE_IN_USE"
	MigrationNotFound        Code = "MIGRATION_NOT_FOUND"
	Unauthorized             Code = "UNAUTHORIZED"
	Forbidden                Code = "FORBIDDEN"
	RateLimited              Code = "RATE_LIMITED"
	PreconditionFailed       Code = "PRECONDITION_FAILED"
	StaleRing                Code = "STALE_RING"
	Timeout                  Code = "TIMEOUT"
)

// Outcome is what a failed write did. Success needs no outcome.
type Outcome string

const (
	// NotApplied says that the write took no effect and never will.
	NotApplied Outcome = "not_applied"
	// Indeterminate says that the write may have taken effect, or may yet.
	Indeterminate Outcome = "indeterminate"
)

// Domain is the domain of every google.rpc.ErrorInfo that PairDB sends.
const Domain = "pairdb"

// Keys of the metadata of an ErrorInfo, and of the details in an HTTP body.
const (
	// MetaOutcome has an Outcome. QUORUM_NOT_REACHED, TIMEOUT and UNAVAILABLE
	// always carry it for a write.
	MetaOutcome = "outcome"
	// MetaAcks has the number of replicas that acknowledged, in decimal.
	MetaAcks = "acks"
	// MetaNeed has the number of acknowledgements the level needs, in decimal.
	MetaNeed = "need"
	// MetaCauses says what became of the other replicas: "name: cause", joined
	// by "; ".
	MetaCauses = "causes"
	// MetaContext has the context of what is stored, in base64: a
	// PRECONDITION_FAILED write that carries it would replace all of that.
	MetaContext = "context"
	// MetaLevel has the consistency level: one, quorum or all.
	MetaLevel = "level"
	// MetaTenant has the tenant's name.
	MetaTenant = "tenant_id"
	// MetaNode has the name of the node that failed the operation.
	MetaNode = "node"
	// MetaLimit has the limit that was exceeded, in decimal; bytes for sizes.
	MetaLimit = "limit"
	// MetaActual has the value that exceeded it, in the same unit.
	MetaActual = "actual"
)

// Exit codes of the CLI that a code can lead to.
const (
	ExitOK              = 0
	ExitFailed          = 1
	ExitUsage           = 2
	ExitNotFound        = 3
	ExitConflict        = 4
	ExitConsistency     = 5
	ExitConnect         = 6
	ExitUnauthenticated = 7
	ExitTimeout         = 8
	ExitThrottled       = 9
	ExitUnhealthy       = 10
	ExitInterrupted     = 130
)

// Info is what the table says of a code.
type Info struct {
	Code Code
	// GRPC is the number of the gRPC status code.
	GRPC uint32
	// HTTP is the HTTP status.
	HTTP int
	// Exit is the exit code of the CLI.
	Exit int
	// Retryable says that the same request, sent again unchanged, can succeed
	// without anybody stepping in. A write whose outcome is indeterminate may
	// then be applied twice, as two writes of the same value.
	Retryable bool
	// Meaning and Action are one sentence each: what is wrong, and what the
	// client should do.
	Meaning, Action string
}

// Lookup returns the table's row for code. A code that the table does not have,
// as a newer node may send, is treated as INTERNAL; the row then still carries
// the code that was asked for.
func Lookup(code Code) Info {
	for _, info := range table() {
		if info.Code == code {
			return info
		}
	}
	info := Lookup(Internal)
	info.Code = code
	return info
}

// All returns the table in the order of docs/errors.md. The slice is the
// caller's.
func All() []Info {
	rows := table()
	return append(make([]Info, 0, len(rows)), rows[:]...)
}
