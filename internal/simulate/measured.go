package simulate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

// ReadMeasured reads what was measured: the answer of an agent to GET /v1/view.
func ReadMeasured(path string) (view.Snapshot, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return view.Snapshot{}, fmt.Errorf("read %s: %w", path, err)
	}
	var s view.Snapshot
	if err := json.Unmarshal(raw, &s); err != nil {
		return view.Snapshot{}, fmt.Errorf("%s: %w: want the answer of an agent to /v1/view", at(path, raw, err), err)
	}
	if err := CheckMeasured(s); err != nil {
		return view.Snapshot{}, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// at is a file and, where an error tells it, the line.
func at(path string, raw []byte, err error) string {
	offset := int64(-1)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &kind):
		offset = kind.Offset
	}
	if offset < 0 || offset > int64(len(raw)) {
		return path
	}
	return fmt.Sprintf("%s:%d", path, 1+bytes.Count(raw[:offset], []byte("\n")))
}

// CheckMeasured refuses figures that cannot be, and names the first.
func CheckMeasured(s view.Snapshot) error {
	if s.At.IsZero() {
		return errors.New("at is missing: ages are reckoned from it")
	}
	if len(s.Nodes) == 0 {
		return errors.New("nodes is empty: the agent that was asked knows of none")
	}
	for _, id := range s.IDs() {
		n := s.Nodes[id]
		l := n.State.Load
		for _, f := range []struct {
			name string
			of   model.Resources
		}{
			{"state.load.allocatable", l.Allocatable}, {"state.load.requested", l.Requested},
			{"state.load.used", l.Used}, {"recent.amount", n.Recent.Amount},
		} {
			if cpu := float64(f.of.CPU); !(cpu >= 0) || math.IsInf(cpu, 0) {
				return fmt.Errorf("nodes.%s.%s.cpu is %v cores, must be 0 or more", id, f.name, cpu)
			}
			if f.of.Memory < 0 {
				return fmt.Errorf("nodes.%s.%s.memory is %d bytes, must be 0 or more", id, f.name, f.of.Memory)
			}
		}
		for name, routes := range map[string]map[model.NodeID]model.RouteTime{"routes": n.State.Routes, "podRoutes": n.State.PodRoutes} {
			for _, to := range slices.Sorted(maps.Keys(routes)) {
				if r := routes[to]; r.RTT < 0 || r.Spread < 0 {
					return fmt.Errorf("nodes.%s.state.%s.%s: rtt is %v, spread %v: must be 0 or more, in nanoseconds", id, name, to, r.RTT, r.Spread)
				}
			}
		}
	}
	return nil
}

// Match says how many of the cluster's nodes were not measured. It is an error if none was.
func (c *Cluster) Match(s view.Snapshot) (missing int, err error) {
	for _, n := range c.Nodes {
		if _, known := s.Nodes[model.NodeID(n.Name)]; !known {
			missing++
		}
	}
	if missing == len(c.Nodes) {
		return missing, fmt.Errorf("none of the cluster's nodes (%s, ...) is among those that were measured (%s, ...): are they of one cluster?", c.Nodes[0].Name, s.IDs()[0])
	}
	return missing, nil
}
