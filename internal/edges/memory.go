package edges

import (
	"time"

	"github.com/drover-project/drover/internal/model"
)

// Remembered is an edge as it was at a moment.
type Remembered struct {
	model.Edge
	At time.Time `json:"at"`
}

// Memory is what a later ledger is to know of this one: the heaviest edges at now.
func (l *Ledger) Memory(now time.Time) []Remembered {
	told := l.Edges(now)
	kept := make([]Remembered, len(told))
	for i, e := range told {
		v := l.edges[pair{e.Local, e.Remote}]
		e.Volume = bytesOf(v.bytes)
		kept[i] = Remembered{e, v.at}
	}
	return kept
}

// Remember gives an empty ledger what an earlier one knew. What makes no sense does not count, nor what is
// of a clock that was ahead.
func (l *Ledger) Remember(now time.Time, kept []Remembered) {
	for _, r := range kept[:min(len(kept), Most)] {
		if r.Local.Valid() && r.Remote.Valid() && r.Volume > 0 && r.Volume <= MaxVolume && !r.At.After(now) {
			l.edges[pair{r.Local, r.Remote}] = &volume{float64(r.Volume), r.At}
		}
	}
}

// bytesOf makes a volume one that may be told.
func bytesOf(volume float64) model.Bytes { return min(MaxVolume, max(1, model.Bytes(volume))) }
