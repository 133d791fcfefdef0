package health

import (
	"slices"
	"time"
)

// RateWindow is what a rate per minute is counted over.
const RateWindow = time.Minute

// Rate counts what happened in the last RateWindow. Its zero value is ready for use.
type Rate struct{ events []event } // oldest first

type event struct {
	at time.Time
	n  int
}

// Add counts n at now.
func (r *Rate) Add(now time.Time, n int) {
	if n > 0 {
		r.events = append(r.events, event{now, n})
	}
}

// PerMinute is how many were counted in the window that ends now.
func (r *Rate) PerMinute(now time.Time) int {
	r.events = slices.DeleteFunc(r.events, func(e event) bool { return now.Sub(e.at) >= RateWindow })
	sum := 0
	for _, e := range r.events {
		sum += e.n
	}
	return sum
}
