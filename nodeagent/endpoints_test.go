package nodeagent

import (
	"net"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/traffic"
)

func podAt(name string, change func(*corev1.Pod), ips ...string) corev1.Pod {
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name)}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
	for _, ip := range ips {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip})
	}
	if change != nil {
		change(&p)
	}
	return p
}

func nodeAt(name string, ranges []string, addresses ...string) corev1.Node {
	n := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDRs: ranges}}
	for _, a := range addresses {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
	n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: name})
	return n
}

func TestWhoHasAnAddress(t *testing.T) {
	own := []net.Addr{
		&net.IPNet{IP: net.IPv4(10, 0, 0, 1), Mask: net.CIDRMask(24, 32)},
		&net.IPNet{IP: net.IPv4(10, 1, 0, 1), Mask: net.CIDRMask(24, 32)}, // the bridge of its pods
	}
	nodes := []corev1.Node{
		nodeAt("n1", []string{"10.1.0.0/24", "fd01::/64"}, "10.0.0.1"),
		nodeAt("n2", []string{"10.1.1.0/24", "fd01:0:0:1::/64", "nonsense"}, "10.0.0.2", "fd00::2"),
		nodeAt("n3", []string{"10.1.2.0/25"}, "10.0.0.3"),
	}
	pods := []corev1.Pod{
		podAt("web", nil, "10.1.0.5", "fd01::5"),
		podAt("ended", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, "10.1.0.6"),
		podAt("agent", func(p *corev1.Pod) { p.Spec.HostNetwork = true }, "10.0.0.1"),
		podAt("waits", func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }),
	}
	web := traffic.Endpoint{Node: "n1", Pod: model.PodID{Namespace: "ns", Name: "web", UID: "uid-web"}}
	self := traffic.Endpoint{Node: "n1"}
	on := func(node model.NodeID, address string) traffic.Endpoint {
		return traffic.Endpoint{Node: node, Address: address}
	}
	e := endpointsOf("n1", own, pods, nodes)
	for address, want := range map[string]traffic.Endpoint{
		"10.0.0.1": self, "10.1.0.1": self, "10.1.0.5": web, "fd01::5": web,
		"10.0.0.2": {Node: "n2"}, "fd00::2": {Node: "n2"},
		"10.1.1.9": on("n2", "10.1.1.9"), "fd01:0:0:1::9": on("n2", "fd01:0:0:1::9"), "10.1.2.9": on("n3", "10.1.2.9"),
		"10.1.2.200": {Address: "10.1.2.200"}, "192.0.2.1": {Address: "192.0.2.1"},
		"10.1.0.6": on("n1", "10.1.0.6"),
	} {
		a := netip.MustParseAddr(address)
		if got := e.Remote(a); got != want {
			t.Errorf("%s is of %+v, want %+v", address, got, want)
		}
		if _, local := e.Local(a); local != (want == self || want == web) {
			t.Errorf("%s is local: %v", address, local)
		}
	}
	if !e.IsNode("n3") || e.IsNode("n9") {
		t.Error("n3 is a node, n9 is none")
	}
}

// A network that gives pods addresses of other ranges than their Nodes' says by it that the
// ranges tell nothing.
func TestRangesThatAreNotFollowed(t *testing.T) {
	nodes := []corev1.Node{nodeAt("n1", []string{"10.1.0.0/24"}, "10.0.0.1"), nodeAt("n2", []string{"10.1.1.0/24"}, "10.0.0.2")}
	for name, pods := range map[string][]corev1.Pod{
		"another range":    {podAt("a", nil, "10.1.0.5"), podAt("b", nil, "10.200.0.5")},
		"a neighbour's":    {podAt("a", nil, "10.1.1.5")},
		"no pods tell yet": nil,
	} {
		e := endpointsOf("n1", nil, pods, nodes)
		if got := e.Remote(netip.MustParseAddr("10.1.1.9")); got != (traffic.Endpoint{Address: "10.1.1.9"}) {
			t.Errorf("%s: %+v", name, got)
		}
		if got := e.Remote(netip.MustParseAddr("10.0.0.2")); got != (traffic.Endpoint{Node: "n2"}) {
			t.Errorf("%s: of a node: %+v", name, got)
		}
	}
}
