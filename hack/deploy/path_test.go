package deploy

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/drover-project/drover/bpf/routetime"
)

// object reads the chart's object of that kind and name, and tells whether there is one.
func object(t *testing.T, values map[string]any, kind, name string, into any) bool {
	t.Helper()
	m, err := render(t, values)
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range strings.Split(m, "\n---") {
		var head struct {
			Kind     string
			Metadata struct{ Name string }
		}
		if yaml.Unmarshal([]byte(doc), &head) != nil || head.Kind != kind || head.Metadata.Name != name {
			continue
		}
		if err := yaml.UnmarshalStrict([]byte(doc), into); err != nil {
			t.Fatal(err)
		}
		return true
	}
	return false
}

// A companion is wherever an agent is, and has nothing: whoever takes it over has a place in the
// pod network, which any pod has.
func TestCompanionHasNothing(t *testing.T) {
	set := &appsv1.DaemonSet{}
	if !object(t, nil, "DaemonSet", "drover-path", set) {
		t.Fatal("the chart has no DaemonSet drover-path")
	}
	spec, agent := set.Spec.Template.Spec, agentSet(t).Spec.Template.Spec
	if spec.HostNetwork || spec.HostPID || spec.HostIPC || len(spec.Volumes) > 0 || *spec.AutomountServiceAccountToken || spec.ServiceAccountName != "" {
		t.Errorf("the companion has what is the node's, volumes or a token: %+v", spec)
	}
	if diff := cmp.Diff(agent.Tolerations, spec.Tolerations); diff != "" {
		t.Errorf("tolerations (-agent +companion):\n%s", diff)
	}
	if len(spec.Containers) != 1 || len(spec.InitContainers) > 0 {
		t.Fatalf("containers %+v", spec.Containers)
	}
	c := spec.Containers[0]
	if c.Image != agent.Containers[0].Image || !slices.Equal(c.Args, []string{"path"}) || len(c.VolumeMounts) > 0 || len(c.Ports) > 0 {
		t.Errorf("container %+v, want the agent's image with the one argument path", c)
	}
	s := c.SecurityContext
	if *s.AllowPrivilegeEscalation || !*s.RunAsNonRoot || *s.RunAsUser == 0 || !*s.ReadOnlyRootFilesystem || len(s.Capabilities.Add) > 0 ||
		!slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("security context %+v: Pod Security's level restricted would refuse it", s)
	}
	if c.Resources.Requests.Cpu().MilliValue() > 1 || c.Resources.Requests.Memory().Value() > 16<<20 {
		t.Errorf("requests %v", c.Resources.Requests)
	}
	// nodeagent knows it by this.
	if name := set.Spec.Template.Labels["app.kubernetes.io/name"]; name != "drover-path" {
		t.Errorf("the companion is labelled %q", name)
	}
	if object(t, map[string]any{"podPath": map[string]any{"enabled": false}}, "DaemonSet", "drover-path", set) {
		t.Error("there is a companion though it was switched off")
	}
}

func TestCompanionsTalkToEachOtherAlone(t *testing.T) {
	p := &networkingv1.NetworkPolicy{}
	if !object(t, nil, "NetworkPolicy", "drover-path", p) {
		t.Fatal("the chart has no NetworkPolicy drover-path")
	}
	set := &appsv1.DaemonSet{}
	object(t, nil, "DaemonSet", "drover-path", set)
	if diff := cmp.Diff(set.Spec.Selector, &p.Spec.PodSelector); diff != "" {
		t.Errorf("of (-companions +policy):\n%s", diff)
	}
	if len(p.Spec.Ingress) != 1 || len(p.Spec.Egress) != 1 || len(p.Spec.PolicyTypes) != 2 {
		t.Fatalf("policy %+v, want one rule each way", p.Spec)
	}
	in, out := p.Spec.Ingress[0], p.Spec.Egress[0]
	for way, rule := range map[string]struct {
		peers []networkingv1.NetworkPolicyPeer
		ports []networkingv1.NetworkPolicyPort
	}{"ingress": {in.From, in.Ports}, "egress": {out.To, out.Ports}} {
		if diff := cmp.Diff([]networkingv1.NetworkPolicyPeer{{PodSelector: set.Spec.Selector}}, rule.peers); diff != "" {
			t.Errorf("%s (-want +got):\n%s", way, diff)
		}
		if len(rule.ports) != 1 || *rule.ports[0].Protocol != corev1.ProtocolUDP || rule.ports[0].Port.IntValue() != routetime.Port {
			t.Errorf("%s ports %+v, want UDP %d", way, rule.ports, routetime.Port)
		}
	}
	if object(t, map[string]any{"podPath": map[string]any{"networkPolicy": false}}, "NetworkPolicy", "drover-path", p) {
		t.Error("there is a policy though it was switched off")
	}
}
