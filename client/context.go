package client

import (
	"encoding/base64"

	"github.com/pairdb/pairdb/api/errcode"
)

// maxContextSize is the largest context token, in bytes.
const maxContextSize = 4096

// Context is what an answer has seen of a key: an opaque token that the cluster
// made and authenticates, good for the tenant and key it came with. It is a
// value: copy it, compare it with ==, keep it across processes through its text
// form. The zero Context has seen nothing in particular: what a write without one
// supersedes depends on the tenant's conflict policy.
type Context struct{ token string }

// ContextFromBytes takes a token as it is on the wire. One that is too long to be
// a context is refused with an *Error.
func ContextFromBytes(token []byte) (Context, error) {
	if len(token) > maxContextSize {
		return Context{}, badContext("the context has %d bytes, at most %d are possible", len(token), maxContextSize)
	}
	return Context{token: string(token)}, nil
}

// ParseContext reads the text form: base64 with the standard alphabet, as in
// the JSON of the API. The empty text is the zero Context.
func ParseContext(text string) (Context, error) {
	if base64.StdEncoding.DecodedLen(len(text)) > maxContextSize+2 {
		return Context{}, badContext("the context has %d characters, more than are possible", len(text))
	}
	token, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return Context{}, badContext("the context is not base64: %v", err)
	}
	return ContextFromBytes(token)
}

// badContext is the code that a node has for a context it cannot use, too.
func badContext(format string, args ...any) *Error {
	return localError("context", reads, errcode.InvalidArgument, format, args...)
}

// IsZero reports whether the context is empty.
func (c Context) IsZero() bool { return c.token == "" }

// Bytes returns a copy of the token.
func (c Context) Bytes() []byte {
	if c.token == "" {
		return nil
	}
	return []byte(c.token)
}

// String returns the text form that ParseContext reads.
func (c Context) String() string { return base64.StdEncoding.EncodeToString([]byte(c.token)) }

// MarshalText returns the text form, so that a context can be kept as JSON.
func (c Context) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads the text form.
func (c *Context) UnmarshalText(text []byte) error {
	parsed, err := ParseContext(string(text))
	if err != nil {
		return err
	}
	*c = parsed
	return nil
}
