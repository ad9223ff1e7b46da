package jsontext_test

import (
	"testing"

	"github.com/pairdb/pairdb/api/jsontext"
)

func TestLoneSurrogate(t *testing.T) {
	for raw, want := range map[string]string{
		``: "", `"a"`: "", `"\ud83d\ude00"`: "", `"\\ud800"`: "", `"\n\u00e9"`: "", `"\u12`: "", `\`: "",
		`"\ud800"`: `\ud800`, `"\uDFFFa"`: `\uDFFF`, `"\ud83d\ud83d\ude00"`: `\ud83d`, `"\ud83d\n\ude00"`: `\ud83d`, `{"a":"b","c":"\udc00"}`: `\udc00`,
	} {
		if got := jsontext.LoneSurrogate([]byte(raw)); got != want {
			t.Errorf("%s: %q, want %q", raw, got, want)
		}
	}
}
