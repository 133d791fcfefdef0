package movable

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/internal/cpufeature"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

func node(name string) corev1.Node {
	return corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status:     corev1.NodeStatus{RuntimeHandlers: []corev1.NodeRuntimeHandler{{}, {Name: "drover"}}},
	}
}

func heard(flags string) view.Node {
	return view.Node{Alive: true, Received: time.Unix(1, 0), State: model.NodeState{
		CPU: cpufeature.Parse("flags : "+flags, "amd64"),
		// 4 cores and 8 GiB, of which 3 and 7 are requested: 1 and 1 are free.
		Load: model.Load{Allocatable: model.Resources{CPU: 4, Memory: 8 * model.GiB}, Requested: model.Resources{CPU: 3, Memory: 7 * model.GiB}},
	}}
}

func TestCandidates(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*corev1.Pod, *corev1.Node, *view.Node)
		want   string
		says   string
	}{
		{"good", func(*corev1.Pod, *corev1.Node, *view.Node) {}, "", ""},
		{"a kubelet that tells no handlers", func(_ *corev1.Pod, n *corev1.Node, _ *view.Node) { n.Status.RuntimeHandlers = nil }, "", ""},
		{"just enough room", func(p *corev1.Pod, _ *corev1.Node, _ *view.Node) { request(p, "1", "1Gi") }, "", ""},
		{"no handler", func(_ *corev1.Pod, n *corev1.Node, _ *view.Node) {
			n.Status.RuntimeHandlers = n.Status.RuntimeHandlers[:1]
		}, ReasonNoHandler, `"drover"`},
		{"cordoned", func(_ *corev1.Pod, n *corev1.Node, _ *view.Node) { n.Spec.Unschedulable = true }, ReasonBarred, "cordoned"},
		{"tainted", func(_ *corev1.Pod, n *corev1.Node, _ *view.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: "gpu", Effect: corev1.TaintEffectNoSchedule}}
		}, ReasonBarred, "gpu"},
		{"another zone", func(p *corev1.Pod, _ *corev1.Node, _ *view.Node) {
			p.Spec.NodeSelector = map[string]string{"zone": "a"}
		}, ReasonBarred, "selector"},
		{"silent", func(_ *corev1.Pod, _ *corev1.Node, v *view.Node) { v.Alive = false }, ReasonNotAlive, "not heard"},
		{"never heard", func(_ *corev1.Pod, _ *corev1.Node, v *view.Node) { *v = view.Node{Alive: true} }, ReasonNotAlive, "not heard"},
		{"old CRIU", func(_ *corev1.Pod, n *corev1.Node, v *view.Node) {
			n.Status.NodeInfo.KernelVersion, v.State.CannotRestore = "6.18.0", "CRIU 4.1.1 is too old"
		}, ReasonCannotRestore, "kernel 6.18.0): CRIU 4.1.1"},
		{"old processor", func(_ *corev1.Pod, _ *corev1.Node, v *view.Node) { v.State.CPU = heard("sse2").State.CPU }, ReasonCPUFeatures, "avx2"},
		{"another architecture", func(_ *corev1.Pod, _ *corev1.Node, v *view.Node) {
			v.State.CPU = cpufeature.Parse("Features : fp", "arm64")
		}, ReasonCPUFeatures, "arm64"},
		{"no core", func(p *corev1.Pod, _ *corev1.Node, _ *view.Node) { request(p, "1100m", "1Gi") }, ReasonNoRoom, "1.00 of 4.00 cores"},
		{"no memory", func(p *corev1.Pod, _ *corev1.Node, _ *view.Node) { request(p, "1", "2Gi") }, ReasonNoRoom, "1.00 of 8.00 GiB"},
		{"all at once", func(p *corev1.Pod, n *corev1.Node, v *view.Node) {
			n.Spec.Unschedulable, n.Status.RuntimeHandlers[1].Name, v.State.CannotRestore = true, "kata", "no CRIU"
			request(p, "2", "2Gi")
		}, strings.Join([]string{ReasonBarred, ReasonNoHandler, ReasonCannotRestore, ReasonNoRoom, ReasonNoRoom}, " "), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, n, v := good(), node("n2"), heard("sse2 avx2")
			c.change(p, &n, &v)
			all := Candidates(p, []corev1.Node{n, node("n1")}, view.Snapshot{Nodes: map[model.NodeID]view.Node{"n1": heard("sse2 avx2"), "n2": v}})
			if len(all) != 1 || all[0].Node != "n2" {
				t.Fatalf("candidates %+v, want n2 alone", all)
			}
			var reasons, lines []string
			for _, f := range all[0].Against {
				reasons, lines = append(reasons, f.Reason), append(lines, f.Message)
			}
			if strings.Join(reasons, " ") != c.want || !strings.Contains(strings.Join(lines, "\n"), c.says) {
				t.Errorf("against it: %q, want %q saying %q", all[0].Against, c.want, c.says)
			}
		})
	}
}

func request(p *corev1.Pod, cpu, memory string) {
	p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory),
	}
}

func TestTarget(t *testing.T) {
	bad := func(name string) Candidate {
		return Candidate{name, []Finding{Found(ReasonBarred, "it is cordoned"), Found(ReasonNoRoom, "it is full")}}
	}
	for name, c := range map[string]struct {
		all  []Candidate
		to   string
		want []string
	}{
		"one is left":        {[]Candidate{bad("n2"), {Node: "n3"}}, "", nil},
		"none is left":       {[]Candidate{bad("n2"), bad("n3")}, "", []string{"NoCandidate: no node can take the pod: n2: it is cordoned; n3: it is cordoned (free or set up one of them)"}},
		"no other node":      {nil, "", []string{"NoCandidate: there is no other node"}},
		"the one asked for":  {[]Candidate{bad("n2"), {Node: "n3"}}, "n3", nil},
		"another than asked": {[]Candidate{bad("n2"), {Node: "n3"}}, "n2", []string{"NotAllowedThere: node n2: it is cordoned", "NoRoom: node n2: it is full"}},
		"unknown":            {[]Candidate{{Node: "n3"}}, "n9", nil},
	} {
		var got []string
		for _, f := range Target(c.all, c.to) {
			got = append(got, f.String())
		}
		if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
