package main

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/drover-project/drover/test/bench/report"
)

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// errorsOf are the distances from the truth, in microseconds.
func errorsOf(samples []sample) []float64 {
	all := make([]float64, len(samples))
	for i, s := range samples {
		all[i] = micros((s.told - s.truth).Abs())
	}
	return all
}

func truths(samples []sample) []float64 {
	all := make([]float64, len(samples))
	for i, s := range samples {
		all[i] = micros(s.truth)
	}
	return all
}

// offBy are the distances from one value.
func offBy(samples []sample, value time.Duration) []float64 {
	all := make([]float64, len(samples))
	for i, s := range samples {
		all[i] = micros((s.told - value).Abs())
	}
	return all
}

// quantile is the smallest value that is no less than a part q of all: NaN of none.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	return s[max(0, int(math.Ceil(q*float64(len(s))))-1)]
}

// median is that of a figure over several runs.
func median[R any](runs []R, figure func(R) float64) float64 {
	all := make([]float64, len(runs))
	for i, r := range runs {
		all[i] = figure(r)
	}
	return report.Median(all)
}

func timeout(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}
