package config

import "strings"

// Nearest finds the name that was probably meant: the one with the fewest
// typing mistakes (a letter added, left out, wrong, or two exchanged), at most
// one for three letters. It is "" if none is near enough.
func Nearest(word string, names []string) string {
	// Names are short; a long word is no typing mistake, and comparing it costs.
	if len(word) > 64 {
		return ""
	}
	best, least := "", len(word)/3+1
	if len(word) < 3 {
		least = 1
	}
	for _, name := range names {
		if strings.EqualFold(word, name) {
			return name
		}
		if d := distance(strings.ToLower(word), strings.ToLower(name)); d <= least && (best == "" || d < least) {
			best, least = name, d
		}
	}
	return best
}

// distance is the Damerau-Levenshtein distance (optimal string alignment) in bytes.
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
