package errcode_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/pairdb/pairdb/api/errcode"
)

var update = flag.Bool("update", false, "write docs/errors.md anew")

const doc = "../../docs/errors.md"

// contract is the list of codes that clients may rely on, kept apart from the
// table so that a code cannot be renamed or dropped by editing one place.
const contract = `OK INVALID_ARGUMENT KEY_NOT_FOUND KEY_TOO_LARGE VALUE_TOO_LARGE INVALID_TENANT_ID INVALID_KEY
CHECKSUM_FAILED INTERNAL UNAVAILABLE DISK_FULL DISK_THROTTLED COMMIT_LOG_FAILED MEMTABLE_FAILED SSTABLE_FAILED
CORRUPTED_DATA RESOURCE_EXHAUSTED INSUFFICIENT_SPACE
TENANT_NOT_FOUND TENANT_EXISTS QUORUM_NOT_REACHED IDEMPOTENCY_KEY_CONFLICT INVALID_REPLICATION_FACTOR NODE_IN_USE
MIGRATION_NOT_FOUND UNAUTHORIZED FORBIDDEN RATE_LIMITED PRECONDITION_FAILED STALE_RING TIMEOUT`

func TestTableHasTheContractsCodes(t *testing.T) {
	var got []string
	for _, info := range errcode.All() {
		got = append(got, string(info.Code))
	}
	if want := strings.Fields(contract); !slices.Equal(got, want) {
		t.Errorf("codes of the table:\n got %q\nwant %q", got, want)
	}
}

func TestRowsAreWhole(t *testing.T) {
	exits := []int{
		errcode.ExitOK, errcode.ExitFailed, errcode.ExitUsage, errcode.ExitNotFound, errcode.ExitConflict,
		errcode.ExitConsistency, errcode.ExitConnect, errcode.ExitUnauthenticated, errcode.ExitTimeout, errcode.ExitThrottled,
	}
	statuses := []int{200, 400, 401, 403, 404, 409, 412, 413, 429, 500, 503, 504}
	word := regexp.MustCompile(`^[A-Z_]+$`)
	for _, info := range errcode.All() {
		if !word.MatchString(string(info.Code)) {
			t.Errorf("%s: a code is capital letters and underscores", info.Code)
		}
		if strings.HasPrefix(codes.Code(info.GRPC).String(), "Code(") {
			t.Errorf("%s: %d is no gRPC code", info.Code, info.GRPC)
		}
		if !slices.Contains(statuses, info.HTTP) {
			t.Errorf("%s: HTTP status %d is not one the API documents", info.Code, info.HTTP)
		}
		if !slices.Contains(exits, info.Exit) {
			t.Errorf("%s: exit code %d is not one the CLI documents", info.Code, info.Exit)
		}
		ok := info.Code == errcode.OK
		if (info.GRPC == 0) != ok || (info.HTTP == 200) != ok || (info.Exit == 0) != ok {
			t.Errorf("%s: gRPC %d, HTTP %d, exit %d: success is OK and nothing else", info.Code, info.GRPC, info.HTTP, info.Exit)
		}
		if !strings.HasSuffix(info.Meaning, ".") || !strings.HasSuffix(info.Action, ".") {
			t.Errorf("%s: meaning and action are sentences", info.Code)
		}
	}
}

func TestLookup(t *testing.T) {
	for _, info := range errcode.All() {
		if got := errcode.Lookup(info.Code); got != info {
			t.Errorf("Lookup(%s) = %+v, want %+v", info.Code, got, info)
		}
	}
	got, want := errcode.Lookup("SOMETHING_NEW"), errcode.Lookup(errcode.Internal)
	want.Code = "SOMETHING_NEW"
	if got != want {
		t.Errorf("Lookup of an unknown code = %+v, want %+v", got, want)
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	var sink errcode.Info
	if n := testing.AllocsPerRun(100, func() { sink = errcode.Lookup(errcode.Timeout) }); n != 0 {
		t.Errorf("Lookup allocates %v times", n)
	}
	if sink.Code != errcode.Timeout {
		t.Errorf("Lookup(TIMEOUT) = %+v", sink)
	}
}

// TestDocIsCurrent compares docs/errors.md with the table. Write it anew with
// go test ./api/errcode -update.
func TestDocIsCurrent(t *testing.T) {
	want := markdown()
	if *update {
		if err := os.WriteFile(doc, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/errors.md is not what the table says; run: make gen")
	}
}

func markdown() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `# Error codes

<!-- Generated from api/errcode; run make gen after a change there. -->

A failed call carries a code that says **why** it failed: over gRPC as the reason of a `+"`google.rpc.ErrorInfo`"+` with the
domain %[1]q, over HTTP as `+"`error_code`"+`. Decide by the code, never by the text of the message.

A failed write also says **what happened**, as %[2]q in the details: %[3]q means that it took no effect and never
will, %[4]q that it may have, or may yet. Beside it stand %[5]q, the replicas that acknowledged, %[6]q, the
acknowledgements the level needs, and %[7]q, what became of the other replicas. A write that was refused because the key
has many siblings is told their context as %[8]q, in base64.

"Retry" says whether the same request can succeed later without anybody stepping in. Exit codes are those of the command line.

| code | gRPC | HTTP | exit | retry | meaning | what to do |
|---|---|---|---|---|---|---|
`, errcode.Domain, errcode.MetaOutcome, string(errcode.NotApplied), string(errcode.Indeterminate),
		errcode.MetaAcks, errcode.MetaNeed, errcode.MetaCauses, errcode.MetaContext)
	for _, info := range errcode.All() {
		retry := "no"
		if info.Retryable {
			retry = "yes"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %d | %d | %s | %s | %s |\n",
			info.Code, codes.Code(info.GRPC), info.HTTP, info.Exit, retry, info.Meaning, info.Action)
	}
	return b.Bytes()
}
