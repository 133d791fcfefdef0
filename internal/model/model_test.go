package model

import (
	"encoding/json"
	"testing"
)

// An agent of the version before tells of severe contention for the CPU alone, and names neither;
// and it reads what one of this version tells.
func TestContentionOnTheWire(t *testing.T) {
	var c Contention
	if err := json.Unmarshal([]byte(`{"pod":{"namespace":"shop","name":"web","uid":"u"},"container":"app","wait":0.7,"since":"2026-01-02T03:04:05Z"}`), &c); err != nil {
		t.Fatal(err)
	}
	if !c.Severe() || c.Wait != .7 || c.Container != "app" {
		t.Errorf("read %+v, want severe", c)
	}
	for grade, severe := range map[Grade]bool{Severe: true, Tight: false, "yet to come": false} {
		if got := (Contention{Grade: grade}).Severe(); got != severe {
			t.Errorf("%q is severe: %v", grade, got)
		}
	}
	var before struct {
		Pod       PodID   `json:"pod"`
		Container string  `json:"container"`
		Wait      float64 `json:"wait"`
	}
	data, err := json.Marshal(Contention{Container: "app", Resource: OnMemory, Grade: Tight, Wait: .3})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &before); err != nil || before.Container != "app" || before.Wait != .3 {
		t.Errorf("the version before reads %+v of %s: %v", before, data, err)
	}
}
