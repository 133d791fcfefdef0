// Package peak remembers what a node has used beyond what it uses now. Use swings by the
// second, and a pod stays for hours: one that is placed by an instant comes to the node that
// happens to pause. So a peak counts at once and in full, and what it had beyond the use at
// present halves every HalfLife, as in Finagle's Peak EWMA.
package peak

import (
	"math"
	"time"

	"github.com/drover-project/drover/internal/model"
)

// HalfLife is how long it takes until half of an excess is forgotten. Work that comes back
// every minute, as what cron starts does, never counts with less than half; what a start or
// the pull of an image took is down to an eighth after three.
const HalfLife = time.Minute

// Excess is what recent use had beyond the present one. The zero value is none.
type Excess struct {
	Amount model.Resources `json:"amount"`
	// At is when it was that much, by the clock that says now.
	At time.Time `json:"at"`
}

// Left is what of it still counts at now.
func (e Excess) Left(now time.Time) model.Resources {
	if e.Amount == (model.Resources{}) {
		return e.Amount // most often, and it is asked of every node
	}
	part := math.Exp2(-max(0, float64(now.Sub(e.At))/float64(HalfLife)))
	return model.Resources{CPU: model.Cores(part * float64(e.Amount.CPU)), Memory: model.Bytes(part * float64(e.Amount.Memory))}
}

// Follow gives the excess over is, which at now takes the place of was. What was told stood
// until now: a load is told anew when it changes. No peak is held for higher than what can be
// allocated, so that one senseless reading is soon forgotten, and a load that was not measured
// changes nothing.
func (e Excess) Follow(was, is model.Load, now time.Time) Excess {
	if was.At.IsZero() || is.At.IsZero() {
		return e
	}
	left := e.Left(now)
	return Excess{At: now, Amount: model.Resources{
		CPU:    over(was.Used.CPU+left.CPU, is.Allocatable.CPU, is.Used.CPU),
		Memory: over(was.Used.Memory+left.Memory, is.Allocatable.Memory, is.Used.Memory),
	}}
}

// over is what a peak, of no more than most, has beyond now; nothing when one is no number.
func over[N ~float64 | ~int64](peak, most, now N) N {
	if d := min(peak, most) - now; d > 0 && !math.IsInf(float64(d), 0) {
		return d
	}
	return 0
}
