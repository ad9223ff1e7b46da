package rest

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/api/jsontext"
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
	if at := jsontext.LoneSurrogate(raw); at != "" {
		return keyError("the key has " + at + ", half of a surrogate pair, which is no character")
	}
	return json.Unmarshal(raw, (*string)(k))
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
