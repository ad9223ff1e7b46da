package engine

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// walk moves an iterator about at random, with bounds and with a budget.
func (mt *meta) walk(r reader, state map[string]string) error {
	rng := mt.rng
	var lower, upper []byte
	keys := slices.Sorted(maps.Keys(state))
	if rng.IntN(2) == 0 {
		lower = []byte(modelKey(rng.IntN(modelKeys)))
		keys = slices.DeleteFunc(keys, func(k string) bool { return k < string(lower) })
	}
	if rng.IntN(2) == 0 {
		upper = []byte(modelKey(rng.IntN(modelKeys)))
		keys = slices.DeleteFunc(keys, func(k string) bool { return k >= string(upper) })
	}
	it, err := r.NewIter(lower, upper)
	if err != nil {
		return err
	}
	defer it.Close()
	if err := mt.budgeted(it, keys); err != nil {
		return err
	}
	pos := -1 // index in keys; -1 and len(keys) are off either end
	for range 60 {
		seek := modelKey(rng.IntN(modelKeys))
		at, _ := slices.BinarySearch(keys, seek)
		var name string
		switch rng.IntN(8) {
		case 0:
			name, pos = "first", 0
			it.First()
		case 1:
			name, pos = "last", len(keys)-1
			it.Last()
		case 2:
			name, pos = "seekGE "+seek, at
			it.SeekGE([]byte(seek))
		case 3:
			name, pos = "seekLT "+seek, at-1
			it.SeekLT([]byte(seek))
		case 4, 5:
			if !it.Valid() {
				continue
			}
			name, pos = "next", pos+1
			it.Next()
		default:
			if !it.Valid() {
				continue
			}
			name, pos = "prev", pos-1
			it.Prev()
		}
		valid := pos >= 0 && pos < len(keys)
		if it.Error() != nil || it.Valid() != valid ||
			valid && (string(it.Key()) != keys[pos] || string(it.Value()) != state[keys[pos]]) {
			return fmt.Errorf("%s in [%s,%s): valid %v at %s, want %d of %v: %v", name, lower, upper, it.Valid(), it.Key(), pos, keys, it.Error())
		}
	}
	return it.Close()
}

// budgeted walks the iterator from one end to the other in small portions.
func (mt *meta) budgeted(it *Iterator, keys []string) error {
	back := mt.rng.IntN(2) == 0
	portion := 2 + mt.rng.IntN(5)
	var got []string
	it.SetBudget(portion)
	ok := false
	if back {
		ok = it.Last()
	} else {
		ok = it.First()
	}
	for range 10_000 {
		switch {
		case ok && back:
			got = append(got, string(it.Key()))
			ok = it.Prev()
		case ok:
			got = append(got, string(it.Key()))
			ok = it.Next()
		case errors.Is(it.Error(), ErrBudget):
			from := slices.Clone(it.ResumeKey())
			it.SetBudget(portion)
			if back {
				ok = it.SeekLT(from)
			} else {
				ok = it.SeekGE(from)
			}
		default:
			if back {
				slices.Reverse(got)
			}
			it.SetBudget(0)
			if !slices.Equal(got, keys) || it.Error() != nil {
				return fmt.Errorf("budget %d, back %v: got %v, want %v: %v", portion, back, got, keys, it.Error())
			}
			return nil
		}
	}
	return fmt.Errorf("budget %d, back %v: no end in sight, %d keys", portion, back, len(got))
}
