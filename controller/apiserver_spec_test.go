package controller_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/controller"
)

// bare is a running pod without owner that has opted in, on node n1.
func bare(namespace, name string, marks map[string]string) *corev1.Pod {
	p := runningPod(namespace, name, "n1")
	p.Annotations = map[string]string{v1alpha1.AnnotationMigrate: "true"}
	p.Labels = map[string]string{"app": name}
	for k, v := range marks {
		p.Annotations[k] = v
	}
	p.Spec.RuntimeClassName = ptr(v1alpha1.RuntimeClassName)
	p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}
	return p
}

// moved orders the move of the pod and gives its record once ok.
func moved(t *testing.T, admin client.Client, p *corev1.Pod, what string, ok func(*v1alpha1.PodMigration) bool) *v1alpha1.PodMigration {
	t.Helper()
	m := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name}, Spec: v1alpha1.PodMigrationSpec{PodName: p.Name}}
	create(t, admin, m)
	until(t, p.Name+": "+what, func() bool {
		if err := admin.Get(context.Background(), client.ObjectKeyFromObject(m), m); err != nil {
			t.Fatal(err)
		}
		return ok(m)
	})
	return m
}

// What the API server does to a replacement: refuses it, alters it, or counts it.
func TestReplacementWithRealServer(t *testing.T) {
	admin, config := api(t)
	for _, o := range cluster() {
		create(t, admin, o)
	}
	webhook(t, admin)
	runController(t, config)
	for _, c := range []struct {
		name   string
		marks  map[string]string
		ns     map[string]string // labels of the namespace
		rule   client.Object     // made once the source is there
		reason string
		says   string
	}{
		{name: "quota", rule: &corev1.ResourceQuota{
			ObjectMeta: metav1.ObjectMeta{Name: "two"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1")}},
			Status: corev1.ResourceQuotaStatus{
				Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1")}, Used: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1")},
			},
		}, reason: controller.ReasonQuotaExceeded, says: "ResourceQuota two, requested: pods=1, used: pods=1, limited: pods=1"},
		{name: "limits", rule: &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Name: "least"}, Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{
			{Type: corev1.LimitTypeContainer, Min: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}},
		}}}, reason: controller.ReasonLimitRange, says: "minimum cpu usage per Container is 1, but request is 100m"},
		{name: "security", rule: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}}},
			reason: controller.ReasonPodSecurity, says: `violates PodSecurity "restricted:latest"`},
		{name: "fatal", marks: map[string]string{"test/patch": `[{"op":"add","path":"/spec/containers/0/env","value":[{"name":"PROXY","value":"x"}]}]`},
			reason: controller.ReasonReplacementAltered, says: "spec.containers.app.env was added"},
		{name: "harmless", marks: map[string]string{"test/patch": `[{"op":"add","path":"/spec/nodeSelector","value":{"zone":"a"}}]`},
			says: `spec.nodeSelector was added: {"zone":"a"}`},
	} {
		create(t, admin, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: c.name}})
		source := bare(c.name, c.name, c.marks)
		create(t, admin, source)
		enforce(t, admin, c.name, c.rule)
		if c.reason == "" {
			m := moved(t, admin, source, "its replacement is there", func(m *v1alpha1.PodMigration) bool { return m.Status.Target.PodUID != "" })
			cond := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionSpecKept)
			if cond == nil || !strings.Contains(cond.Message, c.says) {
				t.Errorf("%s: condition %+v, want %q", c.name, cond, c.says)
			}
			continue
		}
		m := moved(t, admin, source, "the move is aborted", v1alpha1.Finished)
		if m.Status.DecisionReason != c.reason || !strings.Contains(m.Status.DecisionMessage, c.says) {
			t.Errorf("%s: %s: %s, want %s with %q", c.name, m.Status.DecisionReason, m.Status.DecisionMessage, c.reason, c.says)
		}
	}
	budgetWithRealServer(t, admin)
}

// enforce makes a rule of the namespace.
func enforce(t *testing.T, admin client.Client, namespace string, rule client.Object) {
	t.Helper()
	ctx := context.Background()
	switch o := rule.(type) {
	case nil:
	case *corev1.Namespace:
		o.Name = namespace
		if err := admin.Update(ctx, o); err != nil {
			t.Fatal(err)
		}
	case *corev1.ResourceQuota:
		o.Namespace = namespace
		status := o.Status // no controller counts here
		create(t, admin, o)
		o.Status = status
		if err := admin.Status().Update(ctx, o); err != nil {
			t.Fatal(err)
		}
		inForce(t, admin, namespace)
	default:
		o.SetNamespace(namespace)
		create(t, admin, o)
		inForce(t, admin, namespace)
	}
}

// inForce waits until the API server's plugins have heard of a rule that no pod here keeps.
func inForce(t *testing.T, admin client.Client, namespace string) {
	t.Helper()
	until(t, "the rule is in force in "+namespace, func() bool {
		return apierrors.IsForbidden(admin.Create(context.Background(), bare(namespace, "probe", nil), client.DryRunAll))
	})
}

// webhook patches replacements as their annotation test/patch says.
func webhook(t *testing.T, admin client.Client) {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var review admissionv1.AdmissionReview
		var pod corev1.Pod
		if json.Unmarshal(body, &review) != nil || json.Unmarshal(review.Request.Object.Raw, &pod) != nil {
			http.Error(w, "no review of a pod", http.StatusBadRequest)
			return
		}
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
		if patch := pod.Annotations["test/patch"]; patch != "" {
			kind := admissionv1.PatchTypeJSONPatch
			review.Response.Patch, review.Response.PatchType = []byte(patch), &kind
		}
		_ = json.NewEncoder(w).Encode(review)
	}))
	t.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	none := admissionregv1.SideEffectClassNone
	create(t, admin, &admissionregv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "patches"},
		Webhooks: []admissionregv1.MutatingWebhook{{
			Name: "patches.drover.dev", AdmissionReviewVersions: []string{"v1"}, SideEffects: &none,
			ClientConfig:   admissionregv1.WebhookClientConfig{URL: &server.URL, CABundle: ca},
			ObjectSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: v1alpha1.LabelReplacement, Operator: metav1.LabelSelectorOpExists}}},
			Rules: []admissionregv1.RuleWithOperations{{
				Operations: []admissionregv1.OperationType{admissionregv1.Create},
				Rule:       admissionregv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
			}},
		}},
	})
	until(t, "the webhook is in force", func() bool {
		probe := runningPod(ns, "probe", "")
		probe.Labels = map[string]string{v1alpha1.LabelReplacement: "x"}
		probe.Annotations = map[string]string{"test/patch": `[{"op":"add","path":"/metadata/labels/seen","value":"yes"}]`}
		return admin.Create(context.Background(), probe, client.DryRunAll) == nil && probe.Labels["seen"] == "yes"
	})
}

// budgetWithRealServer: the reservation is one that the API server's own evictions respect:
// a sibling is not evicted while it stands, and is again when it is given back.
func budgetWithRealServer(t *testing.T, admin client.Client) {
	t.Helper()
	ctx := context.Background()
	source, sibling := bare(ns, "guarded", nil), bare(ns, "sibling", nil)
	sibling.Labels = source.Labels
	create(t, admin, source)
	create(t, admin, sibling)
	b := &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "one"},
		Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: source.Labels}},
	}
	create(t, admin, b)
	b.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: b.Generation, DisruptionsAllowed: 1, CurrentHealthy: 2, DesiredHealthy: 1, ExpectedPods: 2}
	if err := admin.Status().Update(ctx, b); err != nil {
		t.Fatal(err)
	}
	m := moved(t, admin, source, "its replacement is there", func(m *v1alpha1.PodMigration) bool { return m.Status.Target.PodUID != "" })
	evict := func() error {
		return admin.SubResource("eviction").Create(ctx, sibling, &policyv1.Eviction{DeleteOptions: &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}})
	}
	if err := evict(); err != nil {
		t.Errorf("the sibling's eviction before anything is reserved: %v", err)
	}
	replacement := &corev1.Pod{}
	get(t, admin, m.Status.Target.PodName, replacement)
	if err := admin.SubResource("binding").Create(ctx, replacement, &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: "n2"}}); err != nil {
		t.Fatal(err)
	}
	until(t, "the agents may learn of the target", func() bool {
		get(t, admin, m.Name, m)
		return m.Status.Target.Node == "n2"
	})
	get(t, admin, b.Name, b)
	if at, has := b.Status.DisruptedPods[source.Name]; !has || b.Status.DisruptionsAllowed != 0 || !at.Equal(&m.Status.Budget.ReservedAt) {
		t.Errorf("status of the budget %+v, of the move %+v: want the entry and no disruption left", b.Status, m.Status.Budget)
	}
	if err := evict(); !apierrors.IsTooManyRequests(err) {
		t.Errorf("the sibling's eviction while the source is being moved: %v, want too many requests", err)
	}
	if err := admin.Delete(ctx, m); err != nil {
		t.Fatal(err)
	}
	until(t, "the entry is given back", func() bool {
		get(t, admin, b.Name, b)
		return len(b.Status.DisruptedPods) == 0
	})
}
