package chaos

import (
	"slices"
	"testing"
)

// chaos is one case.
type chaos struct {
	fault fault
	step  step
}

func (c chaos) String() string { return c.fault.name + " at " + c.step.String() }

// table is every case that there is.
func table() []chaos {
	var all []chaos
	for _, f := range faults {
		for _, s := range steps {
			if s >= f.from && s <= f.to {
				all = append(all, chaos{f, s})
			}
		}
	}
	return all
}

// choice is some of them: every fault once, at the step that was least met so far; of those
// that were met equally often the turn is every third one's, so that faults that are alike
// strike at steps that are not.
func choice() []chaos {
	var all []chaos
	met := make([]int, len(steps))
	for i, f := range faults {
		best := f.from
		for k := range steps {
			s := steps[(3*i+k)%len(steps)]
			if s >= f.from && s <= f.to && (best < f.from || met[s] < met[best]) {
				best = s
			}
		}
		met[best]++
		all = append(all, chaos{f, best})
	}
	return all
}

func TestChoiceMeetsAll(t *testing.T) {
	all, chosen := table(), choice()
	for _, f := range faults {
		if !slices.ContainsFunc(chosen, func(c chaos) bool { return c.fault.name == f.name }) {
			t.Errorf("fault %q is not met", f.name)
		}
	}
	for _, s := range steps {
		if !slices.ContainsFunc(chosen, func(c chaos) bool { return c.step == s }) {
			t.Errorf("step %s is not met", s)
		}
	}
	for _, c := range chosen {
		if !slices.ContainsFunc(all, func(o chaos) bool { return o.String() == c.String() }) {
			t.Errorf("%s is no case", c)
		}
	}
	t.Logf("%d of %d cases: %v", len(chosen), len(all), chosen)
}
