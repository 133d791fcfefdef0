package plot

import (
	"fmt"
	"math"
)

// Axis is one of a panel's two.
type Axis struct {
	// Name is written at it; that of a vertical one is the panel's title.
	Name     string
	From, To float64
	// Log makes it logarithmic; From is more than 0 then.
	Log bool
	// Ticks are the values that are written at it.
	Ticks []float64
	// Label writes one; nil: with four digits.
	Label func(v float64) string
}

// Log is an axis that holds the values, between numbers 1, 2 and 5 times a power of ten.
func Log(name string, values ...float64) Axis {
	a := Axis{Name: name, Log: true}
	a.From, a.To = span(values)
	a.Ticks = steps(a.From, a.To)
	return a
}

// part is how far along the axis a value is, 0 to 1.
func (a Axis) part(v float64) float64 {
	if a.Log {
		return (math.Log(v) - math.Log(a.From)) / (math.Log(a.To) - math.Log(a.From))
	}
	return (v - a.From) / (a.To - a.From)
}

func (a Axis) label(v float64) string {
	if a.Label != nil {
		return a.Label(v)
	}
	return fmt.Sprintf("%.4g", v)
}

// span is the least range of steps 1, 2, 5 that holds the values.
func span(values []float64) (from, to float64) {
	from, to = math.Inf(1), 0
	for _, v := range values {
		from, to = min(from, v), max(to, v)
	}
	down, up := steps(from/10, from), steps(to, to*10)
	return down[len(down)-1], up[0]
}

// steps are the numbers 1, 2 and 5 times a power of ten, between two.
func steps(from, to float64) []float64 {
	var all []float64
	for e := math.Floor(math.Log10(from)); e <= math.Ceil(math.Log10(to)); e++ {
		for _, m := range []float64{1, 2, 5} {
			if v := m * math.Pow(10, e); v >= from*(1-1e-9) && v <= to*(1+1e-9) {
				all = append(all, v)
			}
		}
	}
	return all
}
