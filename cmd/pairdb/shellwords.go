package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// splitWords cuts a line of the shell into words, as quotingHelp says. It returns
// an error for a quote that does not end and for an escape that there is not.
func splitWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	open := false // a word has begun, if only with a pair of quotes
	for i := 0; i < len(line); {
		switch c := line[i]; {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			if open {
				words = append(words, word.String())
				word.Reset()
				open = false
			}
			i++
		case c == '#' && !open:
			return words, nil
		case c == '\'':
			end := strings.IndexByte(line[i+1:], '\'')
			if end < 0 {
				return nil, errors.New("a ' has no second one")
			}
			word.WriteString(line[i+1 : i+1+end])
			open, i = true, i+end+2
		case c == '"':
			n, err := unquoteInto(&word, line[i:])
			if err != nil {
				return nil, err
			}
			open, i = true, i+n
		case c == '\\':
			if i+1 == len(line) {
				return nil, errors.New(`the line ends with a \, which says nothing`)
			}
			_, size := utf8.DecodeRuneInString(line[i+1:])
			word.WriteString(line[i+1 : i+1+size])
			open, i = true, i+1+size
		default:
			word.WriteByte(c)
			open, i = true, i+1
		}
	}
	if open {
		words = append(words, word.String())
	}
	return words, nil
}

// unquoteInto adds what the double quotes at the beginning of s hold to word, and
// returns their length.
func unquoteInto(word *strings.Builder, s string) (int, error) {
	rest := s[1:]
	for {
		if rest == "" {
			return 0, errors.New(`a " has no second one`)
		}
		if rest[0] == '"' {
			return len(s) - len(rest) + 1, nil
		}
		r, isRune, tail, err := strconv.UnquoteChar(rest, '"')
		if err != nil {
			return 0, fmt.Errorf("there is no such escape: %.6q", rest)
		}
		switch {
		case rest[0] != '\\':
			word.WriteString(rest[:len(rest)-len(tail)]) // as it is, UTF-8 or not
		case isRune:
			word.WriteRune(r)
		default:
			word.WriteByte(byte(r))
		}
		rest = tail
	}
}

// quotingHelp is the rule of splitWords for people.
const quotingHelp = `Words are separated by blanks. 'single quotes' keep everything as it is; in
"double quotes" \" \\ \n \t \r, \xff for any byte and \u00e9 for a character are understood;
outside of quotes a \ takes the next character as it is. A word that begins with #
begins a comment.`
