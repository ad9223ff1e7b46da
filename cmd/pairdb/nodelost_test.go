package main

import "testing"

func TestSpansText(t *testing.T) {
	var many []uint32
	for i := range uint32(40) {
		many = append(many, 2*i)
	}
	for want, list := range map[string][]uint32{
		"":            nil,
		"0-2, 5, 7-8": {0, 1, 2, 5, 7, 8},
		"0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30":                                      many[:maxSpans],
		"0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, and 24 more; all with --output json": many,
	} {
		if got := spansText(list); got != want {
			t.Errorf("%v: %q, want %q", list, got, want)
		}
	}
}
