// Package jsontext finds what encoding/json would change silently: a string that
// is no text is not refused by it but read with U+FFFD in place of the rest, and
// what was to be a key would then be another one.
package jsontext

import (
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// escapeLen is the length of an escape like \u00e9, in bytes.
const escapeLen = 6

// LoneSurrogate returns the first escape in raw that is half of a surrogate
// pair, "" if there is none.
func LoneSurrogate(raw []byte) string {
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
