package errcode

// Numbers of the gRPC status codes, which this package names itself so that it
// imports nothing.
const (
	grpcOK                 = 0
	grpcInvalidArgument    = 3
	grpcDeadlineExceeded   = 4
	grpcNotFound           = 5
	grpcAlreadyExists      = 6
	grpcPermissionDenied   = 7
	grpcResourceExhausted  = 8
	grpcFailedPrecondition = 9
	grpcAborted            = 10
	grpcInternal           = 13
	grpcUnavailable        = 14
	grpcDataLoss           = 15
	grpcUnauthenticated    = 16
)

// table returns the rows: code, gRPC, HTTP, exit, retryable, meaning, action.
// It is an array made of constants, so that a look-up allocates nothing.
func table() [31]Info {
	return [...]Info{
		{OK, grpcOK, 200, ExitOK, false, "The operation succeeded.", "None."},
		{InvalidArgument, grpcInvalidArgument, 400, ExitUsage, false, "A field is missing, malformed or contradicts another.", "Correct the request; the message names the field."},
		{KeyNotFound, grpcNotFound, 404, ExitNotFound, false, "Enough replicas answered, and none has a value for the key.", "Treat the key as absent."},
		{KeyTooLarge, grpcInvalidArgument, 400, ExitUsage, false, "The key is longer than 1024 bytes.", "Use a shorter key."},
		{ValueTooLarge, grpcInvalidArgument, 413, ExitUsage, false, "The value is longer than the node's limit, 10 MiB unless configured lower.", "Split the value over several keys."},
		{InvalidTenantID, grpcInvalidArgument, 400, ExitUsage, false, "The tenant id does not match ^[a-z0-9][a-z0-9_-]{0,62}$.", "Correct the tenant id; capital letters are not folded."},
		{InvalidKey, grpcInvalidArgument, 400, ExitUsage, false, "The key is empty or has bytes that this entry point refuses.", "Correct the key, or send it through gRPC, where any bytes are legal."},
		{ChecksumFailed, grpcDataLoss, 500, ExitFailed, true, "A block read from disk does not match its checksum.", "Retry, another replica may answer; look at the node's log."},
		{Internal, grpcInternal, 500, ExitFailed, false, "The node met a condition it has no answer to.", "Report it with the request id and the node's log."},
		{Unavailable, grpcUnavailable, 503, ExitConnect, true, "The node cannot serve now: it starts, stops, or reaches no owner of the key.", "Retry with back-off, at another node."},
		{DiskFull, grpcResourceExhausted, 503, ExitThrottled, false, "The disk of too many owners is full, so writes are refused; reads and deletes go on.", "Delete data, free space or add disks; the nodes take writes again by themselves."},
		{DiskThrottled, grpcResourceExhausted, 503, ExitThrottled, true, "A disk is nearly full, so the write is held back.", "Retry with back-off; free space."},
		{CommitLogFailed, grpcUnavailable, 503, ExitFailed, true, "The node's log could not be written or synced; the node takes no writes until it is restarted.", "Retry at another node; replace the disk or restart the node."},
		{MemtableFailed, grpcInternal, 500, ExitFailed, false, "The node could not put the write into its memtable.", "Report it with the request id and the node's log."},
		{SSTableFailed, grpcInternal, 500, ExitFailed, false, "The node could not read or write a table.", "Look at the node's log and its disk."},
		{CorruptedData, grpcDataLoss, 500, ExitFailed, false, "Stored data does not decode.", "Look at the node's log; another replica has the data."},
		{ResourceExhausted, grpcResourceExhausted, 429, ExitThrottled, true, "A queue or a budget of the node is full.", "Retry with back-off."},
		{InsufficientSpace, grpcResourceExhausted, 503, ExitThrottled, false, "The operation needs more disk space than there is.", "Free space or add disks."},
		{TenantNotFound, grpcNotFound, 404, ExitNotFound, false, "There is no tenant of that name.", "Create the tenant, or correct the name."},
		{TenantExists, grpcAlreadyExists, 409, ExitConflict, false, "There is a tenant of that name already.", "Use it, or choose another name."},
		{QuorumNotReached, grpcUnavailable, 503, ExitConsistency, true, "Fewer replicas answered than the consistency level needs.", "Retry with back-off, ask for a lower level, or start the nodes that are named; the details list the causes."},
		{IdempotencyKeyConflict, grpcAlreadyExists, 409, ExitConflict, false, "The idempotency key was used with another payload.", "Use a new idempotency key."},
		{InvalidReplicationFactor, grpcInvalidArgument, 400, ExitUsage, false, "The replication factor is not 1 to 7.", "Choose 1 to 7."},
		{NodeInUse, grpcFailedPrecondition, 409, ExitConflict, false, "The node is part of a cluster or of a change, is alive, or its copies are needed: what is asked for cannot be done to it.", "Do what the message says: wait for the change to end, stop the node, join another one first, or use another node or an empty data directory."},
		{MigrationNotFound, grpcNotFound, 404, ExitNotFound, false, "There is no migration of that id.", "Correct the id."},
		{Unauthorized, grpcUnauthenticated, 401, ExitUnauthenticated, false, "The request carries no credential that is valid.", "Send a valid credential."},
		{Forbidden, grpcPermissionDenied, 403, ExitUnauthenticated, false, "The credential does not allow the operation.", "Use another credential, or ask for the right."},
		{RateLimited, grpcResourceExhausted, 429, ExitThrottled, true, "The tenant is over its rate or quota, or the node has more requests than it can answer in time.", "Retry after the time the answer names."},
		{PreconditionFailed, grpcFailedPrecondition, 412, ExitConflict, false, "What is stored, or the ring, is not what the request expects, or there are so many siblings that a write needs their context.", "Read again, or look at pairdb status if it is about the ring, and decide anew."},
		{StaleRing, grpcAborted, 503, ExitFailed, true, "The node that was asked does not own the key at the ring version of the request.", "Retry; the nodes are learning the new layout."},
		{Timeout, grpcDeadlineExceeded, 504, ExitTimeout, true, "The deadline passed before enough replicas answered.", "Retry with a longer deadline; look at the outcome first."},
	}
}
