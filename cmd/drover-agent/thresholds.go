package main

import (
	"fmt"

	"github.com/spf13/pflag"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/pressure"
)

// thresholdFlags defines --contention-<resource>-<grade>-<what>; what it gives is what they have
// been set to.
func thresholdFlags(fs *pflag.FlagSet) func() pressure.Thresholds {
	set := map[model.Resource]*pressure.Config{}
	for _, r := range pressure.Resources {
		c := pressure.Default()[r]
		set[r] = &c
		for _, l := range []struct {
			grade model.Grade
			of    *pressure.Threshold
		}{{model.Tight, &c.Tight}, {model.Severe, &c.Severe}} {
			name, of := fmt.Sprintf("contention-%s-%s", r, l.grade), l.of
			fs.Float64Var(&of.Trigger, name+"-trigger", of.Trigger, fmt.Sprintf("share of time for which others keep a container from %s, from which that is %s", r, l.grade))
			fs.Float64Var(&of.Clear, name+"-clear", of.Clear, "share below which it is so no more")
			fs.DurationVar(&of.Window, name+"-window", of.Window, "how long it must go on")
		}
	}
	return func() pressure.Thresholds {
		t := pressure.Thresholds{}
		for r, c := range set {
			t[r] = *c
		}
		return t
	}
}
