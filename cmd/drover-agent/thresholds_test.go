package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/pressure"
)

func TestThresholdFlags(t *testing.T) {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	thresholds := thresholdFlags(fs)
	if diff := cmp.Diff(pressure.Default(), thresholds()); diff != "" {
		t.Errorf("nothing set: %s", diff)
	}
	if err := fs.Parse([]string{"--contention-memory-severe-trigger=0.3", "--contention-memory-severe-clear=.25", "--contention-io-tight-window=2s"}); err != nil {
		t.Fatal(err)
	}
	want := pressure.Default()
	memory, io := want[model.OnMemory], want[model.OnIO]
	memory.Severe.Trigger, memory.Severe.Clear, io.Tight.Window = .3, .25, 2*time.Second
	want[model.OnMemory], want[model.OnIO] = memory, io
	if diff := cmp.Diff(want, thresholds()); diff != "" {
		t.Error(diff)
	}
}
