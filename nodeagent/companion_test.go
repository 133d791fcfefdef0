package nodeagent

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
	"github.com/drover-project/drover/nodeagent/podpath"
)

func TestCompanionOfTheNode(t *testing.T) {
	born := metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	good := func() corev1.Pod {
		return corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "drover-path-x", CreationTimestamp: born, Labels: map[string]string{"app.kubernetes.io/name": "drover-path"}},
			Status: corev1.PodStatus{PodIP: "10.244.1.9", ContainerStatuses: []corev1.ContainerStatus{{
				ContainerID: "containerd://c1", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}},
		}
	}
	with := func(change func(*corev1.Pod)) corev1.Pod { p := good(); change(&p); return p }
	want := podpath.Companion{Pod: "drover-system/drover-path-x", Container: "c1", Address: netip.MustParseAddr("10.244.1.9")}
	newer := with(func(p *corev1.Pod) {
		p.Name, p.CreationTimestamp, p.Status.PodIP = "drover-path-y", metav1.NewTime(born.Add(time.Second)), "fd00::9"
	})
	for _, tt := range []struct {
		name string
		pods []corev1.Pod
		want podpath.Companion
	}{
		{"there is none", nil, podpath.Companion{}},
		{"one", []corev1.Pod{good()}, want},
		{"of another namespace", []corev1.Pod{with(func(p *corev1.Pod) { p.Namespace = "shop" })}, podpath.Companion{}},
		{"of another name", []corev1.Pod{with(func(p *corev1.Pod) { p.Labels = nil })}, podpath.Companion{}},
		{"in the node's network", []corev1.Pod{with(func(p *corev1.Pod) { p.Spec.HostNetwork = true })}, podpath.Companion{}},
		{"being deleted", []corev1.Pod{with(func(p *corev1.Pod) { p.DeletionTimestamp = &born })}, podpath.Companion{}},
		{"without an address yet", []corev1.Pod{with(func(p *corev1.Pod) { p.Status.PodIP = "" })}, podpath.Companion{}},
		{"that has ended", []corev1.Pod{with(func(p *corev1.Pod) { p.Status.ContainerStatuses[0].State = corev1.ContainerState{} })}, podpath.Companion{}},
		{"the newer of two", []corev1.Pod{newer, good()}, podpath.Companion{Pod: "drover-system/drover-path-y", Container: "c1", Address: netip.MustParseAddr("fd00::9")}},
		{"the older while the newer is not ready", []corev1.Pod{with(func(p *corev1.Pod) { newer.DeepCopyInto(p); p.Status.PodIP = "" }), good()}, want},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := companion(namespace, tt.pods); got != tt.want {
				t.Errorf("companion %+v, want %+v", got, tt.want)
			}
		})
	}
}

// A node says where its end of the pod path is. It can name only what is nobody else's.
func TestPodPeersAreBounded(t *testing.T) {
	ip := netip.MustParseAddr
	host := func(name string, addresses ...string) corev1.Node {
		n := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		for _, a := range addresses {
			n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
		}
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: name})
		return n
	}
	nodes := []corev1.Node{host("n1", "192.0.2.1"), host("n2", "192.0.2.2"), host("n3", "192.0.2.3", "2001:db8::3")}
	peers := map[model.NodeID]netip.Addr{"n2": ip("192.0.2.2"), "n3": ip("192.0.2.3")}
	for _, tt := range []struct {
		name string
		say  map[model.NodeID]string // n9 is no peer of the plan
		dead model.NodeID
		want map[model.NodeID]netip.Addr
	}{
		{name: "each its own", say: map[model.NodeID]string{"n1": "10.0.1.1", "n2": "10.0.2.1", "n3": "fd00::3", "n9": "10.0.9.1"},
			want: map[model.NodeID]netip.Addr{"n2": ip("10.0.2.1"), "n3": ip("fd00::3")}},
		{name: "none yet", say: map[model.NodeID]string{"n2": "", "n3": "10.0.3.1"}, want: map[model.NodeID]netip.Addr{"n3": ip("10.0.3.1")}},
		{name: "a node's address", say: map[model.NodeID]string{"n2": "192.0.2.3", "n3": "192.0.2.3"}},
		{name: "a node's other address", say: map[model.NodeID]string{"n2": "2001:db8::3", "n3": "10.0.3.1"}, want: map[model.NodeID]netip.Addr{"n3": ip("10.0.3.1")}},
		{name: "another peer's", say: map[model.NodeID]string{"n2": "10.0.3.1", "n3": "::ffff:10.0.3.1"}},
		{name: "that of one out of the plan", say: map[model.NodeID]string{"n2": "10.0.9.1", "n9": "10.0.9.1", "n3": "10.0.3.1"}, want: map[model.NodeID]netip.Addr{"n3": ip("10.0.3.1")}},
		{name: "the agent's own", say: map[model.NodeID]string{"n1": "10.0.1.1", "n2": "10.0.1.1", "n3": "10.0.3.1"}, want: map[model.NodeID]netip.Addr{"n3": ip("10.0.3.1")}},
		{name: "that of a dead node, used again", say: map[model.NodeID]string{"n2": "10.0.3.1", "n3": "10.0.3.1"}, dead: "n3", want: map[model.NodeID]netip.Addr{"n2": ip("10.0.3.1")}},
		{name: "loopback, everybody", say: map[model.NodeID]string{"n2": "127.0.0.1", "n3": "255.255.255.255"}},
		{name: "a group, this link", say: map[model.NodeID]string{"n2": "224.0.0.1", "n3": "169.254.169.254"}},
		{name: "this link by name", say: map[model.NodeID]string{"n2": "fe80::1%eth0", "n3": "fd00::3%eth0"}},
		{name: "no address", say: map[model.NodeID]string{"n2": "0.0.0.0", "n3": "n3.example"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			known := map[model.NodeID]view.Node{}
			for id, a := range tt.say {
				known[id] = view.Node{Alive: id != tt.dead, State: model.NodeState{PodAddress: a}}
			}
			got := podPeers("n1", ip("10.0.1.1"), peers, known, nodes)
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
