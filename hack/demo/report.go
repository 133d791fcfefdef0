package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/placement"
	"github.com/drover-project/drover/test/witness"
)

// report is out/demo.json.
type report struct {
	Placements []placementRow `json:"placements"`
	Migrations []migrationRow `json:"migrations"`
}

// placementRow is a pod's node with the parts of its score at that time.
type placementRow struct {
	Pod         string  `json:"pod"`
	Node        string  `json:"node"`
	Cores       float64 `json:"cores"`
	MemoryGiB   float64 `json:"memoryGiB"`
	RouteTimeMs float64 `json:"routeTimeMs"`
	Score       float64 `json:"score"`
}

type migrationRow struct {
	Pod    string `json:"pod"`
	From   string `json:"from"`
	To     string `json:"to"`
	Reason string `json:"reason"`
	// GapMs is the longest silence that the witness heard.
	GapMs          float64 `json:"gapMs"`
	FrozenMs       float64 `json:"frozenMs"`
	Bytes          int64   `json:"bytes"`
	MemoryIntact   bool    `json:"memoryIntact"`
	DoubleRun      bool    `json:"doubleRun"`
	LocationsAgree bool    `json:"locationsAgree"`
}

// placement records where a pod is and what scored it there, seen from its peer on n1;
// without names the nodes that could not be chosen.
func (s *story) placement(ctx context.Context, pod *corev1.Pod, without ...model.NodeID) error {
	views, err := s.Views(ctx)
	if err != nil {
		return err
	}
	v := views[pod.Spec.NodeName]
	survey := placement.NewSurvey(v, placement.Defaults(), v.At)
	var nodes []model.NodeID
	for _, id := range v.Alive() {
		if !slices.Contains(without, id) {
			nodes = append(nodes, id)
		}
	}
	from := placement.Viewpoint{Peers: map[model.NodeID]float64{"n1": 1}}
	for _, sc := range placement.Rank(placement.Defaults(), survey.Candidates(from, nodes...)) {
		if sc.Node == model.NodeID(pod.Spec.NodeName) {
			s.saw.Placements = append(s.saw.Placements, placementRow{
				Pod: pod.Name, Node: pod.Spec.NodeName, Cores: float64(sc.Idle.CPU), MemoryGiB: sc.Idle.Memory.GiB(),
				RouteTimeMs: milliseconds(sc.T), Score: sc.Points,
			})
			return nil
		}
	}
	return fmt.Errorf("%s is on %s, which no agent ranks", pod.Name, pod.Spec.NodeName)
}

func (r *report) migration(m *v1alpha1.PodMigration, a witness.Account, intact, agree bool) {
	row := migrationRow{
		Pod: m.Spec.PodName, From: m.Status.Source.Node, To: m.Status.Target.Node, Reason: m.Spec.Reason,
		GapMs: milliseconds(a.Gap), Bytes: m.Status.Bytes,
		MemoryIntact: intact && a.Intact, DoubleRun: a.Overlap || len(a.Doubled) > 0, LocationsAgree: agree,
	}
	if m.Status.FrozenTime != nil {
		row.FrozenMs = milliseconds(m.Status.FrozenTime.Duration)
	}
	r.Migrations = append(r.Migrations, row)
}

func (r *report) write(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
