package checkpoint

import (
	"testing"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/precopy"
)

// heard counts the memory that is read for a next move.
type heard struct{}

func (heard) Add(memory []byte) (model.Bytes, error) { return model.Bytes(len(memory)), nil }
func (heard) Round()                                 {}

// TestLazyReadAhead: what is read of a copy before its next move is what is there: missing memory is
// neither waited for nor taken for empty.
func TestLazyReadAhead(t *testing.T) {
	t.Setenv("COUNTER", "TELL=1")
	at, l := lazyRestored(t)
	at.let(t)
	read := func() model.Bytes {
		stats, err := precopy.Copy(within(t), at.target.group.Procs, heard{}, precopy.Limits{Rounds: 1, Time: patience, Little: 1})
		if err != nil {
			t.Fatal(err)
		}
		return stats.Read
	}
	before := read()
	l.goOn(t)
	at.mustBeLoaded(t)
	if after := read(); before == 0 || after-before < 64*model.MiB {
		t.Errorf("read %d bytes, and %d when all was loaded; want the %d of the heap more", before, after, 64*model.MiB)
	}
}
