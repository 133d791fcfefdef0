package nodeagent

import (
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/internal/lifecycle"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

// A node is joining until it knows what it can do, and leaving as soon as its Node is closed or to
// be deleted. An agent that begins or ends makes no difference beyond that.
func TestPhaseOfTheOwnNode(t *testing.T) {
	looked, now := "", metav1.Now()
	for name, c := range map[string]struct {
		change func(*corev1.Node)
		unable *string
		want   model.Phase
	}{
		"not looked yet":                     {want: model.Joining},
		"looked":                             {unable: &looked, want: model.Normal},
		"cordoned":                           {func(n *corev1.Node) { n.Spec.Unschedulable = true }, &looked, model.Leaving},
		"cordoned before it looked":          {func(n *corev1.Node) { n.Spec.Unschedulable = true }, nil, model.Leaving},
		"being deleted":                      {func(n *corev1.Node) { n.DeletionTimestamp, n.Finalizers = &now, []string{"x/y"} }, &looked, model.Leaving},
		"given up by the cluster autoscaler": {func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "ToBeDeletedByClusterAutoscaler"}} }, &looked, model.Leaving},
		"given up by Karpenter":              {func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "karpenter.sh/disrupted"}} }, &looked, model.Leaving},
		"not ready":                          {func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeNotReady}} }, &looked, model.Normal},
	} {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
		if c.change != nil {
			c.change(n)
		}
		a, _, _ := testAgent(t, Observe, n)
		a.unable.Store(c.unable)
		node, deleted, err := a.ownNode(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := a.phase(node, deleted); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// A node whose object is deleted under its agent says that it leaves, with what it last knew.
func TestNodeObjectIsDeleted(t *testing.T) {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"a": "b"}}}
	a, m, _ := testAgent(t, Observe)
	if _, _, err := a.ownNode(t.Context()); err == nil {
		t.Error("a node that was never read is known")
	}
	for range 2 { // deleted, and made again
		if err := m.from.Create(t.Context(), n.DeepCopy()); err != nil {
			t.Fatal(err)
		}
		if _, deleted, err := a.ownNode(t.Context()); err != nil || deleted {
			t.Fatalf("deleted %v, %v", deleted, err)
		}
		if err := m.from.Delete(t.Context(), n.DeepCopy()); client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		}
		node, deleted, err := a.ownNode(t.Context())
		if err != nil || !deleted || node.Labels["a"] != "b" || a.phase(node, deleted) != model.Leaving {
			t.Errorf("deleted %v, %v, %+v", deleted, err, node)
		}
	}
	m.fail = fmt.Errorf("the cache is not there")
	if _, _, err := a.ownNode(t.Context()); err == nil {
		t.Error("what could not be read counts as deleted")
	}
}

func TestWhoIsProbed(t *testing.T) {
	addr := netip.MustParseAddr
	objects := map[model.NodeID]netip.Addr{"n1": addr("10.0.0.1"), "n2": addr("10.0.0.2"), "n3": addr("10.0.0.3"), "n4": addr("10.0.0.4")}
	says := func(address string) view.Node { return view.Node{State: model.NodeState{Address: address}} }
	known := map[model.NodeID]view.Node{
		"n2":       {Alive: true, State: model.NodeState{Address: "10.9.9.9"}}, // its object is right
		"n3":       says("10.0.0.3"),                                           // no member any more
		"deleted":  says("10.0.0.8"),
		"taken":    says("10.0.0.4"), // another's
		"again":    says("10.0.0.8"), // claimed before by a node of a name before it
		"nowhere":  says("::1"),
		"nonsense": says("here"),
		"unheard":  {},
	}
	want := map[model.NodeID]netip.Addr{"n1": objects["n1"], "n2": objects["n2"], "n3": objects["n3"], "again": addr("10.0.0.8")}
	got := members("n1", objects, known)
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

// That a Node object is gone proves the death of no node that lives, or may.
func TestProofOfDeath(t *testing.T) {
	for name, c := range map[string]struct {
		node    *view.Node
		settled bool
		why     string
	}{
		"alive":                 {&view.Node{Alive: true, Phase: model.Normal}, true, "its agent lives"},
		"alive, and leaving":    {&view.Node{Alive: true, Phase: model.Leaving}, true, "its agent lives"},
		"suspected":             {&view.Node{Phase: model.Suspected, Why: "no member; its kernel answers n2"}, true, "its kernel answers n2"},
		"leaving":               {&view.Node{Phase: model.Leaving, Why: "its agent has ended; not for long"}, true, "held for leaving"},
		"of no phase":           {&view.Node{}, true, "held for"},
		"dead":                  {&view.Node{Phase: model.Dead}, true, ""},
		"dead, just now joined": {&view.Node{Phase: model.Dead}, false, ""},
		"forgotten":             {nil, true, ""},
		"not known yet":         {nil, false, "not been among the others for long enough"},
	} {
		s := view.Snapshot{Nodes: map[model.NodeID]view.Node{"other": {Alive: true}}}
		if c.node != nil {
			s.Nodes["x"] = *c.node
		}
		if why := unproven(s, c.settled, "x"); (why == "") != (c.why == "") || !strings.Contains(why, c.why) {
			t.Errorf("%s: %q, want …%s…", name, why, c.why)
		}
	}
}

func TestPhaseEvents(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(self model.NodeID, phases map[model.NodeID]model.Phase, missing time.Duration) view.Snapshot {
		s := view.Snapshot{At: now, Self: self, Nodes: map[model.NodeID]view.Node{}}
		for id, p := range phases {
			n := view.Node{Phase: p, Alive: p != model.Suspected && p != model.Dead}
			if !n.Alive {
				n.Missing = now.Add(-missing)
			}
			s.Nodes[id] = n
		}
		return s
	}
	type phases = map[model.NodeID]model.Phase
	const soon, late = lifecycle.Quiet - 1, lifecycle.Quiet
	// What n1 and n2 tell, one picture after the other.
	told := map[model.NodeID]phases{"n1": {}, "n2": {}}
	for i, step := range []struct {
		is      phases
		missing time.Duration
		n1, n2  []string
	}{
		{phases{"n1": model.Normal, "n2": model.Joining, "n3": model.Normal}, 0, []string{"n1 DroverNodeNormal"}, nil},
		{phases{"n1": model.Normal, "n2": model.Normal, "n3": model.Normal}, 0, nil, []string{"n2 DroverNodeNormal"}},
		{phases{"n1": model.Normal, "n2": model.Normal, "n3": model.Suspected}, soon, nil, nil},
		{phases{"n1": model.Normal, "n2": model.Normal, "n3": model.Normal}, 0, nil, nil}, // its agent was replaced
		{phases{"n1": model.Normal, "n2": model.Normal, "n3": model.Suspected}, late, []string{"n3 DroverNodeSuspected"}, nil},
		{phases{"n1": model.Normal, "n2": model.Normal, "n3": model.Dead}, late, []string{"n3 DroverNodeDead"}, nil},
		{phases{"n1": model.Suspected, "n2": model.Normal, "n3": model.Dead}, late, nil, []string{"n1 DroverNodeSuspected"}},
		{phases{"n1": model.Normal, "n2": model.Normal, "n3": model.Joining}, 0, []string{"n3 DroverNodeBack"}, []string{"n1 DroverNodeBack"}},
		{phases{"n1": model.Normal, "n2": model.Leaving, "n3": model.Normal}, 0, nil, []string{"n2 DroverNodeLeaving"}},
		{phases{"n1": model.Normal, "n3": model.Normal}, 0, []string{"n2 DroverNodeLeft"}, nil},
	} {
		for self, want := range map[model.NodeID][]string{"n1": step.n1, "n2": step.n2} {
			own := maps.Clone(step.is)
			if own[self] == "" {
				continue
			}
			if own[self] == model.Suspected { // nobody suspects itself
				own[self] = model.Normal
			}
			var got []string
			for _, e := range phaseEvents(told[self], at(self, own, step.missing)) {
				got = append(got, fmt.Sprint(e.node, " ", e.reason))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("step %d, %s tells (-want +got):\n%s", i, self, diff)
			}
		}
	}
}
