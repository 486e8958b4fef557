package spec

import "strings"

// Nearest is the known name that name was probably meant to be, "" if none is
// near: at most a third of it differs (one to three letters; two swapped ones
// count once). Case does not matter. Of equally near ones it is the first.
func Nearest(name string, known []string) string {
	name = strings.ToLower(name)
	limit := min(max(len(name)/3, 1), 3)
	best := ""
	for _, k := range known {
		if d := distance(name, strings.ToLower(k), limit); d <= limit && len(name) > d {
			best, limit = k, d-1
		}
		if limit < 0 {
			break
		}
	}
	return best
}

// distance is that of Damerau and Levenshtein (optimal string alignment), in
// bytes; what is above limit is only known to be above it.
func distance(a, b string, limit int) int {
	const longest = 128 // of a name
	if len(a)-len(b) > limit || len(b)-len(a) > limit || len(a) > longest || len(b) > longest {
		return limit + 1
	}
	var rows [3][longest + 1]int
	before, last, row := &rows[0], &rows[1], &rows[2]
	for j := range len(b) + 1 {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		smallest := i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
			smallest = min(smallest, row[j])
		}
		if smallest > limit {
			return limit + 1
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
