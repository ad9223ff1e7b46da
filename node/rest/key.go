package rest

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
)

// jsonKey is a key in a JSON body. encoding/json puts U+FFFD for what is not
// text, and the write would then go to another key than the one that was sent.
type jsonKey string

// UnmarshalJSON refuses a string that does not decode to itself. Its error is a
// *coord.Error with INVALID_KEY, or one of encoding/json for another type.
func (k *jsonKey) UnmarshalJSON(raw []byte) error {
	if !utf8.Valid(raw) {
		return keyError("the key is not UTF-8; use gRPC or /v1/kv for binary keys")
	}
	if at := loneSurrogate(raw); at != "" {
		return keyError("the key has " + at + ", half of a surrogate pair, which is no character")
	}
	return json.Unmarshal(raw, (*string)(k))
}

// escapeLen is the length of an escape like \u00e9, in bytes.
const escapeLen = 6

// loneSurrogate returns the first escape in raw that is half of a surrogate
// pair, "" if there is none.
func loneSurrogate(raw []byte) string {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		r, ok := escaped(raw[i:])
		switch {
		case !ok:
			i++ // another escape: what follows the backslash stands for itself
			continue
		case utf16.IsSurrogate(r):
			low, _ := escaped(raw[i+escapeLen:])
			if utf16.DecodeRune(r, low) == utf8.RuneError {
				return string(raw[i : i+escapeLen])
			}
			i += escapeLen
		}
		i += escapeLen - 1
	}
	return ""
}

// escaped reads the \u escape that b begins with.
func escaped(b []byte) (rune, bool) {
	if len(b) < escapeLen || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[2:escapeLen]), 16, 16)
	return rune(n), err == nil
}

// checkJSONKey refuses what the JSON routes cannot carry both ways. The size
// limits are the coordinator's.
func checkJSONKey(key string) error {
	if !utf8.ValidString(key) {
		return keyError("the key is not UTF-8; use gRPC or /v1/kv for binary keys")
	}
	if i := strings.IndexFunc(key, func(c rune) bool { return c < 0x20 || c == 0x7f }); i >= 0 {
		return keyError(fmt.Sprintf("the key has the control character %q at byte %d; use gRPC or /v1/kv for such keys", key[i], i))
	}
	return nil
}

func keyError(msg string) error {
	return &coord.Error{Code: errcode.InvalidKey, Outcome: errcode.NotApplied, Message: msg}
}
