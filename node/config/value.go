package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes.
type Size int64

// sizeUnits are the units of a size, largest first, with the binary ones before
// the decimal ones. Only binary ones are written.
func sizeUnits() []struct {
	name  string
	bytes int64
} {
	return []struct {
		name  string
		bytes int64
	}{
		{"TiB", 1 << 40},
		{"GiB", gib},
		{"MiB", mib},
		{"KiB", kib},
		{"TB", 1e12},
		{"GB", 1e9},
		{"MB", 1e6},
		{"kB", 1e3},
		{"B", 1},
	}
}

// ParseSize reads a whole number of bytes, with or without a unit: "4096",
// "64MiB", "10 MB".
func ParseSize(text string) (Size, error) {
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	unit := text[len(digits):]
	factor := int64(1)
	if unit != "" {
		factor = 0
		for _, u := range sizeUnits() {
			if u.name == unit {
				factor = u.bytes
				break
			}
		}
		if factor == 0 {
			return 0, fmt.Errorf("%q is no unit of size; use B, KiB, MiB, GiB or TiB", unit)
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is no size; write a whole number and a unit, as in 64MiB", text)
	}
	if n > math.MaxInt64/factor {
		return 0, fmt.Errorf("%q is too large for a size", text)
	}
	return Size(n * factor), nil
}

// String writes the size in the largest binary unit that needs no fraction.
func (s Size) String() string {
	for _, u := range sizeUnits()[:4] {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// formatDuration writes 1m30s as it is, and 1m0s as 1m.
func formatDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// set reads text into the setting's field, and checks the setting's own bounds.
// On an error the field is as before.
func (s Setting) set(c *Config, text string) error {
	switch p := s.field(c).(type) {
	case *string:
		if err := s.checkChoice(text); err != nil {
			return err
		}
		*p = text
	case *[]string:
		*p = splitList(text)
	case *bool:
		if text != "true" && text != "false" {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		*p = text == "true"
	case *int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%q is no whole number", text)
		}
		return store(s, p, n)
	case *Size:
		n, err := ParseSize(text)
		if err != nil {
			return err
		}
		return store(s, p, n)
	case *time.Duration:
		n, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("%q is no duration; write a number and a unit, as in 5s or 500ms", text)
		}
		return store(s, p, n)
	default:
		return errors.New("the setting has no type")
	}
	return nil
}

// store puts a number into its field if it is within the setting's bounds.
func store[T int | Size | time.Duration](s Setting, field *T, n T) error {
	if err := checkBounds(s, n); err != nil {
		return err
	}
	*field = n
	return nil
}

func checkBounds[T int | Size | time.Duration](s Setting, n T) error {
	if (s.min != 0 || s.max != 0) && (int64(n) < s.min || int64(n) > s.max) {
		return fmt.Errorf("%s is not between %s and %s", written(n), written(T(s.min)), written(T(s.max)))
	}
	return nil
}

// written writes a number as one would in the file.
func written(n any) string {
	if d, ok := n.(time.Duration); ok {
		return formatDuration(d)
	}
	return fmt.Sprint(n)
}

func (s Setting) checkChoice(text string) error {
	if len(s.choices) == 0 {
		return nil
	}
	for _, choice := range s.choices {
		if choice == text {
			return nil
		}
	}
	if near := Nearest(text, s.choices); near != "" {
		return fmt.Errorf("%q is none of %s; did you mean %s?", text, strings.Join(s.choices, ", "), near)
	}
	return fmt.Errorf("%q is none of %s", text, strings.Join(s.choices, ", "))
}

// splitList cuts a list at its commas and drops what is empty, so that a
// trailing comma in a script does no harm.
func splitList(text string) []string {
	var items []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}
