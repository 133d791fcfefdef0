package deploy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus/testutil"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/identity/identitytest"
	"github.com/drover-project/drover/internal/identity/signer"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/refusals"
)

// denied is how often the API server's policies have refused, by its own count.
func (c *cluster) denied() int {
	c.Helper()
	data, err := c.set.RESTClient().Get().AbsPath("/metrics").DoRaw(c.Context())
	if err != nil {
		c.Fatal(err)
	}
	total := 0
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), "} ")
		if strings.HasPrefix(name, "apiserver_validating_admission_policy_check_total{") &&
			strings.Contains(name, `policy="drover-`) && strings.Contains(name, `enforcement_action="deny"`) {
			n, err := strconv.Atoi(value)
			if err != nil {
				c.Fatal(err)
			}
			total += n
		}
	}
	return total
}

// attack is one thing that a compromised agent tries.
type attack struct {
	what string
	do   func(context.Context) error
	says string
}

// run wants every attack refused.
func (c *cluster) run(attacks []attack) {
	c.Helper()
	for _, a := range attacks {
		if err := a.do(c.Context()); err == nil || !strings.Contains(err.Error(), a.says) {
			c.Errorf("%s: %v, want a refusal that says %q", a.what, err, a.says)
		}
	}
}

// A compromised agent has its node's token. What RBAC keeps from it.
func TestCompromisedAgentByRBAC(t *testing.T) {
	c := newCluster(t)
	agent, set := c.account("drover-agent", "n1")
	victim := c.pod(c.ns, "victim", "", "n2")
	c.make(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: "s"}})
	c.make(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: "cm"}})
	key := client.ObjectKeyFromObject(victim)
	if err := agent.Get(t.Context(), key, &corev1.Pod{}); err != nil {
		t.Error("an agent reads pods: a move's other end is on another node:", err)
	}
	own := c.pod(c.ns, "own", "", "n1")
	raw := func(verb, path string) func(context.Context) error {
		return func(ctx context.Context) error {
			return set.RESTClient().Verb(verb).AbsPath(path).Do(ctx).Error()
		}
	}
	const no = "is forbidden"
	c.run([]attack{
		{"create a pod", func(ctx context.Context) error {
			return agent.Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: "mine"},
				Spec: corev1.PodSpec{NodeName: "n2", Containers: []corev1.Container{{Name: "c", Image: "i"}}}})
		}, no},
		{"delete another node's pod", func(ctx context.Context) error { return agent.Delete(ctx, victim.DeepCopy()) }, no},
		{"delete its own node's pod", func(ctx context.Context) error { return agent.Delete(ctx, own.DeepCopy()) }, no},
		{"evict", func(ctx context.Context) error {
			return set.CoreV1().Pods(c.ns).EvictV1(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: "victim"}})
		}, no},
		{"patch a pod", func(ctx context.Context) error {
			return agent.Patch(ctx, victim.DeepCopy(), client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"a":"b"}}}`)))
		}, no},
		{"write a pod's status", func(ctx context.Context) error { return agent.Status().Update(ctx, victim.DeepCopy()) }, no},
		{"read a pod's log", raw("GET", "/api/v1/namespaces/"+c.ns+"/pods/victim/log"), no},
		{"exec", raw("POST", "/api/v1/namespaces/"+c.ns+"/pods/victim/exec?command=id"), no},
		{"read a secret", func(ctx context.Context) error {
			return agent.Get(ctx, client.ObjectKey{Namespace: c.ns, Name: "s"}, &corev1.Secret{})
		}, no},
		{"read the CA's key", func(ctx context.Context) error {
			return agent.Get(ctx, client.ObjectKey{Namespace: Namespace, Name: "drover-ca"}, &corev1.Secret{})
		}, no},
		{"read a ConfigMap", func(ctx context.Context) error {
			return agent.Get(ctx, client.ObjectKey{Namespace: c.ns, Name: "cm"}, &corev1.ConfigMap{})
		}, no},
		{"list ConfigMaps", func(ctx context.Context) error { return agent.List(ctx, &corev1.ConfigMapList{}) }, no},
		{"change its node", func(ctx context.Context) error {
			return agent.Patch(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}},
				client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"annotations":{"a":"b"}}}`)))
		}, no},
		{"reach a kubelet through the API server", raw("GET", "/api/v1/nodes/n2/proxy/pods"), no},
		{"make a token", func(ctx context.Context) error {
			_, err := set.CoreV1().ServiceAccounts(Namespace).CreateToken(ctx, "drover-controller", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
			return err
		}, no},
		{"approve a certificate request", func(ctx context.Context) error {
			_, err := set.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, "x", &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.UpdateOptions{})
			return err
		}, no},
		{"change a policy", func(ctx context.Context) error {
			return agent.Delete(ctx, &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "drover-records"}})
		}, no},
		{"delete a record", func(ctx context.Context) error {
			return agent.Delete(ctx, &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: "m"}})
		}, no},
		{"change a record's annotations", func(ctx context.Context) error {
			return agent.Patch(ctx, &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: "m"}},
				client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"annotations":{"a":"b"}}}`)))
		}, no},
	})
}

// What the chart's policies keep from it, each refusal counted by the API server.
func TestCompromisedAgentByPolicy(t *testing.T) {
	c := newCluster(t)
	agents := map[string]client.Client{}
	for _, n := range []string{"n1", "n2", "n3"} {
		agents[n], _ = c.account("drover-agent", n)
	}
	controller, _ := c.account("drover-controller", "n1")
	pm := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: "m"}, Spec: v1alpha1.PodMigrationSpec{PodName: "p", PostCopy: true}}
	c.make(pm)
	write := func(as client.Client, do func(*v1alpha1.PodMigrationStatus)) func(context.Context) error {
		return func(ctx context.Context) error {
			now := &v1alpha1.PodMigration{}
			if err := c.admin.Get(ctx, client.ObjectKeyFromObject(pm), now); err != nil {
				return err
			}
			do(&now.Status)
			return as.Status().Update(ctx, now)
		}
	}
	type st = v1alpha1.PodMigrationStatus
	// Policies come into force a moment after they are made.
	c.until("the policies do not come into force", func(ctx context.Context) bool {
		return write(agents["n3"], func(s *st) { s.Phase = "Pending" })(ctx) != nil && c.order(ctx, agents["n1"], "early", "n1", "n1") != nil &&
			c.event(ctx, agents["n1"], "early", "n2", "drover-agent") != nil
	})
	at := metav1.NowMicro()
	err := write(controller, func(s *st) {
		s.Epoch = 2
		s.Source = v1alpha1.SourceStatus{Node: "n1", PodName: "p", PodUID: "u1", Containers: []v1alpha1.MovingContainer{{Name: "c", ID: "c1"}}, Origin: "u1"}
		s.Target = v1alpha1.TargetStatus{Node: "n2", PodName: "p-dm2", PodUID: "u2"}
		s.Connections = &v1alpha1.ConnectionsStatus{State: v1alpha1.ConnectionsProbing, OldAddresses: []string{"10.0.0.1"}, KeepFor: metav1.Duration{Duration: time.Minute},
			Earlier: []v1alpha1.EarlierLease{{UID: "u0", Migration: "m0", Node: "n3", Addresses: []string{"10.0.2.1"}}}}
		s.Timeline = []v1alpha1.TimelineEntry{{Step: "Accepted", By: "controller", At: at}}
	})(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	step := func(by string) v1alpha1.TimelineEntry { return v1alpha1.TimelineEntry{Step: "Frozen", By: by, At: at} }
	before := c.denied()
	attacks := []attack{
		{"abort another's move", write(agents["n3"], func(s *st) { s.Decision = "Abort" }), "its own node"},
		{"commit another's move", write(agents["n3"], func(s *st) { s.Source.Offered, s.Decision = true, "Commit" }), "its own node"},
		{"announce another's pod", write(agents["n3"], func(s *st) { s.Target.Node = "n3" }), "its own node"},
		{"the source takes the target's place", write(agents["n1"], func(s *st) { s.Target.Waiting = true }), "target's progress"},
		{"the target offers for the source", write(agents["n2"], func(s *st) { s.Source.Offered = true }), "source's progress"},
		{"the source forges an epoch", write(agents["n1"], func(s *st) { s.Epoch = 1000 }), "raises the epoch by one"},
		{"the target forges an epoch", write(agents["n2"], func(s *st) { s.Epoch = 3 }), "takes a pod back"},
		{"the target tells what the source measured", write(agents["n2"], func(s *st) { s.Bytes = 1 }), "what the source measured"},
		{"the target tells how far the source is", write(agents["n2"], func(s *st) { s.Transfer = &v1alpha1.TransferStatus{SentBytes: 1} }), "what the source measured"},
		{"the source says that connections are kept", write(agents["n1"], func(s *st) { s.Connections.State, s.Connections.NewAddress = "Kept", "10.0.1.1" }), "that connections are kept"},
		{"the source takes an earlier address along", write(agents["n1"], func(s *st) { s.Connections.Earlier[0].EndReason = "x" }), "that connections are kept"},
		{"the target says where the old address leads", write(agents["n2"], func(s *st) { s.Connections.TurnedTo = "u3" }), "source's node says to where"},
		{"who holds an earlier address says so here", write(agents["n3"], func(s *st) { s.Connections.TurnedTo = "u3" }), "its own node"},
		{"the source says where they go", write(agents["n1"], func(s *st) { s.Connections.NewAddress = "10.0.1.1" }), "between which addresses"},
		{"the target keeps it for longer", write(agents["n2"], func(s *st) { s.Connections.Until = &at }), "by drover-controller alone"},
		{"the target has another image let through", write(agents["n2"], func(s *st) { s.Connections.HolderImage = "x" }), "by drover-controller alone"},
		{"the source decides in another's name", write(agents["n1"], func(s *st) {
			s.Decision, s.DecisionBy = "Abort", "target n2"
		}), "own node's name"},
		{"the source tells another's steps", write(agents["n1"], func(s *st) { s.Timeline = append(s.Timeline, step("n2")) }), "takes none away"},
		{"the source takes steps away", write(agents["n1"], func(s *st) { s.Timeline = nil }), "takes none away"},
		{"the source rewrites a step", write(agents["n1"], func(s *st) { s.Timeline[0].Message = "x" }), "takes none away"},
		{"order a pod to itself", func(ctx context.Context) error { return c.order(ctx, agents["n1"], "x", "n1", "n1") }, "not its own"},
		{"order in another's name", func(ctx context.Context) error { return c.order(ctx, agents["n1"], "x", "n2", "n3") }, "own node's name"},
		{"order in nobody's name", func(ctx context.Context) error { return c.order(ctx, agents["n1"], "x", "n2", "") }, "own node's name"},
		{"an event of another node", func(ctx context.Context) error { return c.event(ctx, agents["n1"], "x", "n2", "drover-agent") }, "own node's name"},
		{"an event of another program", func(ctx context.Context) error { return c.event(ctx, agents["n1"], "x", "n1", "kubelet") }, "own node's name"},
		{"a certificate of another signer", func(ctx context.Context) error {
			r := request(t, "n1", "uid")
			r.Spec.SignerName = certificatesv1.KubeAPIServerClientSignerName
			r.Spec.Usages = []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth}
			return agents["n1"].Create(ctx, r)
		}, "signer drover.dev/agent alone"},
	}
	c.run(attacks)
	if got := c.denied() - before; got < len(attacks) {
		t.Errorf("the API server counted %d refusals of %d", got, len(attacks))
	}
	c.run([]attack{ // by the schema, which comes before the policies
		{"the target takes another's address along", write(agents["n2"], func(s *st) { s.Connections.OldAddresses[0] = "10.0.0.9" }), "cannot be changed"},
		{"the target takes along an earlier address of another", write(agents["n2"], func(s *st) { s.Connections.Earlier[0].Addresses[0] = "10.0.0.9" }), "cannot be changed"},
		{"the target takes along one more", write(agents["n2"], func(s *st) {
			s.Connections.Earlier = append(s.Connections.Earlier, v1alpha1.EarlierLease{UID: "u9", Migration: "m9", Node: "n3", Addresses: []string{"10.0.0.9"}})
		}), "cannot be changed"},
		{"the target leaves an earlier address behind", write(agents["n2"], func(s *st) { s.Connections.Earlier = nil }), "cannot be changed"},
		{"the target ends the lease of one before it has it", write(agents["n2"], func(s *st) { s.Connections.Earlier[0].Ended = true }), "only after the pod has resumed"},
		{"the target ends a lease that there is not", write(agents["n2"], func(s *st) { s.Connections.LeaseEnded = true }), "only after the pod has resumed"},
	})
	// And its own side's word goes through, once.
	if err := write(agents["n2"], func(s *st) {
		s.Target.Waiting, s.Connections.NewAddress = true, "10.0.1.1"
		s.Timeline = append(s.Timeline, step("n2"))
	})(t.Context()); err != nil {
		t.Error("the target waits:", err)
	}
	c.run([]attack{{"the target has them go where the source has answered nobody", write(agents["n2"], func(s *st) {
		s.Connections.State, s.Connections.NewAddress = v1alpha1.ConnectionsKept, "10.0.1.2"
	}), "cannot be changed"}})
	for name, err := range map[string]error{
		"they are kept": write(agents["n2"], func(s *st) {
			s.Connections.State = v1alpha1.ConnectionsKept
			s.Conditions = append(s.Conditions, metav1.Condition{Type: v1alpha1.ConditionConnectionsKept, Status: metav1.ConditionTrue, Reason: "Probed", LastTransitionTime: metav1.Now()})
		})(t.Context()),
		"an order": c.order(t.Context(), agents["n1"], "good", "n2", "n1"),
		"an event": c.event(t.Context(), agents["n1"], "good", "n1", "drover-agent"),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := write(agents["n1"], func(s *st) {
		s.Source.Offered, s.Bytes = true, 7
		s.Timeline = append(s.Timeline, step("n1"))
	})(t.Context()); err != nil {
		t.Error("the source offers:", err)
	}
	say := func(as string, do func(*st)) {
		t.Helper()
		if err := write(agents[as], do)(t.Context()); err != nil {
			t.Errorf("agent on %s, of a move by post-copy: %v", as, err)
		}
	}
	say("n2", func(s *st) { s.Decision, s.DecisionBy = "Commit", "target n2" })
	say("n2", func(s *st) { s.Target.Starting = true })
	say("n2", func(s *st) { s.Target.Resumed = true })
	c.run([]attack{
		{"the source says that the memory is there, and more", write(agents["n1"], func(s *st) { s.Target.Loaded, s.Target.FailedMessage = true, "x" }), "target's progress"},
		{"a third says that the memory is there", write(agents["n3"], func(s *st) { s.Target.Loaded = true }), "its own node"},
		{"a third says that the memory is lost", write(agents["n3"], func(s *st) { s.Source.Forfeited = true }), "its own node"},
		{"the target says that the memory is lost", write(agents["n2"], func(s *st) { s.Source.Forfeited = true }), "source's progress"},
	})
	say("n1", func(s *st) { s.Source.Forfeited = true })
	// With proof that the target asks for nothing any more, the source says so in its place.
	say("n1", func(s *st) { s.Target.Loaded = true })
	say("n1", func(s *st) { s.Source.Ended = true })
}

func (c *cluster) order(ctx context.Context, as client.Client, name, to, by string) error {
	m := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: name},
		Spec: v1alpha1.PodMigrationSpec{PodName: "p", TargetNode: to}}
	if by != "" {
		m.Annotations = map[string]string{v1alpha1.AnnotationOrderedBy: by}
	}
	return as.Create(ctx, m)
}

func (c *cluster) event(ctx context.Context, as client.Client, name, host, component string) error {
	return as.Create(ctx, &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: name},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: c.ns, Name: "victim"},
		Source:         corev1.EventSource{Component: component, Host: host}, Type: "Normal", Reason: "X", Message: "x"})
}

func request(t *testing.T, node model.NodeID, uid string) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := identity.SigningRequest(identity.Subject{Node: node, NodeUID: uid}, key, nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	r.GenerateName, r.Name = "", fmt.Sprintf("for-%s-%d", node, time.Now().UnixNano())
	return r
}

// A compromised agent asks for another node's certificate: drover-controller, with its own
// roles, denies it and counts.
func TestCompromisedAgentClaimsAnotherNode(t *testing.T) {
	c := newCluster(t)
	agent, _ := c.account("drover-agent", "n1")
	controller, _ := c.account("drover-controller", "n1")
	authority, err := signer.NewAuthority(identitytest.NewAuthority(t).PEM(t))
	if err != nil {
		t.Fatal(err)
	}
	refused := refusals.New(refusals.Certificate)
	r := &signer.Reconciler{Client: controller, Nodes: controller, Authority: authority, Namespace: Namespace, Now: time.Now, Refusals: refused}
	for i, node := range []string{"n2", "n1"} {
		n := &corev1.Node{}
		if err := c.admin.Get(t.Context(), client.ObjectKey{Name: node}, n); err != nil {
			t.Fatal(err)
		}
		csr := request(t, model.NodeID(node), string(n.UID))
		if err := agent.Create(t.Context(), csr); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Reconcile(log.IntoContext(t.Context(), logr.Discard()), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(csr)}); err != nil {
			t.Fatal(err)
		}
		if err := agent.Get(t.Context(), client.ObjectKeyFromObject(csr), csr); err != nil {
			t.Fatal(err)
		}
		signed := len(csr.Status.Certificate) > 0
		if counted := testutil.ToFloat64(refused.WithLabelValues(string(refusals.Certificate))); signed != (node == "n1") || counted != 1 {
			t.Errorf("%d: asked for %s: signed %v, refused in all %v; conditions %v", i, node, signed, counted, csr.Status.Conditions)
		}
	}
}
