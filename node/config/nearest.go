package config

// Nearest returns the candidate that name is most likely a misspelling of: the
// one with the fewest letters to insert, delete, replace or swap, if that is at
// most a third of the longer of both. It returns "" if there is none. Of equally
// near ones the first wins. It is meant for lists of names, not of data: it
// takes time in proportion to the product of the lengths.
func Nearest(name string, candidates []string) string {
	best, bestDistance := "", 0
	for _, c := range candidates {
		longer := max(len(name), len(c))
		limit := max(1, longer/3)
		if longer > maxNameLen || abs(len(name)-len(c)) > limit {
			continue
		}
		d := distance(name, c)
		if d <= limit && d < longer && (best == "" || d < bestDistance) {
			best, bestDistance = c, d
		}
	}
	return best
}

// maxNameLen is the length of a name above which no likeness is looked for.
const maxNameLen = 128

func abs(n int) int { return max(n, -n) }

// distance counts the edits between a and b: the Levenshtein distance, with two
// swapped neighbours as one edit.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
