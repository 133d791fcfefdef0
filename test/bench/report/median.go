package report

import (
	"math"
	"slices"
)

// Median is that of some values, the mean of the middle two where their number is even; NaN of none.
func Median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	if len(s) == 0 {
		return math.NaN()
	}
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}
