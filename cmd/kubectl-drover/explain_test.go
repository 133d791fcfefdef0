package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/internal/decision"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/placement"
	"github.com/drover-project/drover/internal/view"
)

func TestExplainShowsEveryPart(t *testing.T) {
	var out bytes.Buffer
	printScores(&out, []decision.Node{
		{Score: placement.Score{Node: "a", Known: true, A: 12.345, Points: 100, Idle: model.Resources{CPU: 3, Memory: 2 * model.GiB}, T: 2 * time.Millisecond, Route: placement.Route{Known: true, Path: model.PathPod}}, Age: 1500 * time.Millisecond},
		{Score: placement.Score{Node: "b", Points: 50, Reasons: []placement.Reason{{Kind: placement.KindNoState}}}, Age: decision.NotHeard},
	}, map[model.NodeID]string{"a": " (here)"}, map[model.NodeID]string{"b": "it is cordoned"})
	for _, want := range []string{"a (here)", "12.35", "3.00", "2.00", "2.000    pod    1.5s", "-        -      -      not a candidate: it is cordoned; nothing was heard from this node's agent yet"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("explain lacks %q:\n%s", want, out.String())
		}
	}
}

// past is a decision that n2 won by what another plugin said.
func past(uid string) decision.Decision {
	node := func(name string, a, points float64, said int64) decision.Node {
		return decision.Node{Score: placement.Score{Node: model.NodeID(name), A: a, Points: points, Known: true}, Said: []int64{int64(points), said}, Total: int64(points) + said}
	}
	return decision.Decision{
		Namespace: "x", Name: "p", UID: uid, Profile: "drover-scheduler", Ranked: t0, Bound: t0, Params: placement.Defaults(), Winner: "n2", Cluster: 9,
		Peers: map[model.NodeID]float64{"n1": 1, "n3": 0.25}, PeersBy: "observed", PeersWhy: "x/Deployment/p was seen to talk to x/Deployment/db (100 %)", ViewAge: 120 * time.Millisecond, Plugins: []string{"RouteTime", "Other"},
		Nodes: []decision.Node{node("n1", 30, 100, 0), node("n2", 6, 46, 270), node("n3", 1, 0, 5), node("n4", 1, 0, 4), node("n5", 1, 0, 3)},
	}
}

func TestPastDecision(t *testing.T) {
	var out bytes.Buffer
	d := past("u")
	printPast(&out, &d, &corev1.Pod{Spec: corev1.PodSpec{NodeName: "n2"}}, t0.Add(3*time.Minute))
	want := `DECIDED 3m AGO: x/p was placed on n2 at 2026-01-02T03:04:05Z by the profile drover-scheduler; it is on n2 now
the figures are those of then (--now: of now), from a picture that was 120ms old; 5 of 9 nodes were scored
route times are those to its peers, on n1 (weight 1), n3 (weight 0.25)
peers: observed: x/Deployment/p was seen to talk to x/Deployment/db (100 %)
A = (1*C + 0.25*M) / (1*T^1), T not below 200µs

NODE          SCORE   A       C (cores)   M (GiB)   T (ms)   PATH   AGE    WHY
n2 (chosen)   46      6.00    0.00        0.00      -        -      0.0s   
n1            100     30.00   0.00        0.00      -        -      0.0s   
n3            0       1.00    0.00        0.00      -        -      0.0s   
n4            0       1.00    0.00        0.00      -        -      0.0s   
n5            0       1.00    0.00        0.00      -        -      0.0s   

What all plugins said, weighted; the greatest total is chosen, by lot among equals:
PLUGIN      n2    n1    n3   n4
RouteTime   46    100   0    0
Other       270   0     5    4
TOTAL       316   100   5    4
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	out.Reset()
	d.Scored = 7
	printPast(&out, &d, nil, t0)
	if line := "7 of 9 nodes were scored; the 5 foremost of them are known still\n"; !strings.Contains(out.String(), line) {
		t.Errorf("got\n%s\nwant %q", out.String(), line)
	}
}

func TestExplainSaysWhichItIs(t *testing.T) {
	running := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "p", UID: "u"}, Spec: corev1.PodSpec{NodeName: "n2"}}
	unscored := past("u")
	unscored.Nodes = nil
	for _, tt := range []struct {
		name    string
		now     bool
		pod     *corev1.Pod
		kept    []decision.Decision
		err     error
		out     string // what it begins with
		goesOn  bool   // to a hypothetical placement, which finds no agent here
		refused string
	}{
		{name: "kept", pod: running, kept: []decision.Decision{past("u")}, out: "DECIDED "},
		{name: "of several, that of this pod", pod: running, kept: []decision.Decision{past("later"), past("u")}, out: "DECIDED "},
		{name: "of an earlier pod of the name alone", pod: running, kept: []decision.Decision{past("earlier")}, goesOn: true},
		{name: "none", pod: running, goesOn: true},
		{name: "not asked for", now: true, pod: running, kept: []decision.Decision{past("u")}, goesOn: true},
		{name: "one of two schedulers does not answer", pod: running, kept: []decision.Decision{past("u")}, err: errors.New("broken"), out: "DECIDED "},
		{name: "no scheduler answers", pod: running, err: errors.New("broken"), goesOn: true},
		{name: "nothing was scored", pod: running, kept: []decision.Decision{unscored}, goesOn: true},
		{name: "the pod is gone", kept: []decision.Decision{past("u")}, out: "DECIDED "},
		{name: "it is gone, and nothing was scored", kept: []decision.Decision{unscored}, out: "DECIDED "},
		{name: "it never was", refused: `there is no pod "p" in namespace "x"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var objects []client.Object
			if tt.pod != nil {
				objects = append(objects, tt.pod)
			}
			var out bytes.Buffer
			e := explanation{
				tool: &tool{system: "drover-system", IOStreams: genericclioptions.IOStreams{Out: &out}}, now: tt.now,
				decided: func(context.Context, client.Client, string, string) ([]decision.Decision, error) {
					return tt.kept, tt.err
				},
			}
			err := e.explain(context.Background(), fakeClient(t, objects...), "x", "p")
			refused := tt.refused
			if tt.goesOn {
				refused = "there is no agent in namespace"
			}
			if (refused == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), refused) {
				t.Errorf("error %v, want %q", err, refused)
			}
			if !strings.HasPrefix(out.String(), tt.out) {
				t.Errorf("it says\n%s\nwant %q", out.String(), tt.out)
			}
		})
	}
}

// Programs get the same shape of both; bound tells them apart.
func TestExplainForPrograms(t *testing.T) {
	var out bytes.Buffer
	e := explanation{tool: &tool{IOStreams: genericclioptions.IOStreams{Out: &out}}, output: "json"}
	d := past("u")
	if err := e.show(&d, nil); err != nil {
		t.Fatal(err)
	}
	var got decision.Decision
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || got.Winner != "n2" || len(got.Nodes) != 5 || !strings.Contains(out.String(), `"bound"`) {
		t.Errorf("%v: %s", err, out.String())
	}
	s := view.Snapshot{At: t0, Nodes: map[model.NodeID]view.Node{"n1": {}, "n2": {Received: t0.Add(-2 * time.Second), Alive: true}}}
	out.Reset()
	if err := e.show(wouldBe(s, &corev1.Pod{}, placement.Defaults(), placement.Viewpoint{}), nil); err != nil {
		t.Fatal(err)
	}
	got = decision.Decision{}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || len(got.Nodes) != 2 || strings.Contains(out.String(), `"bound"`) {
		t.Fatalf("%v: %s", err, out.String())
	}
	if got.Nodes[0].Age != decision.NotHeard || got.Nodes[1].Age != 2*time.Second {
		t.Errorf("ages %v and %v, want none and 2s", got.Nodes[0].Age, got.Nodes[1].Age)
	}
}
