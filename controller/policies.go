package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
)

// What comes and goes by an old address passes the policies of the pod that holds it. They have to be
// those of the pod that has moved, from the beginning of a lease to its end.

// Kinds tells what the API server serves, and of which versions of groups that cannot be told, for
// another server serves them that does not answer (discovery.DiscoveryClient).
type Kinds interface {
	GroupsAndMaybeResources() (*metav1.APIGroupList, map[schema.GroupVersion]*metav1.APIResourceList, map[schema.GroupVersion]error, error)
}

// unreadable are the kinds that select pods by labels in ways which are not known here, for what they
// may send and receive, and how. The chart lets the controller list them.
var unreadable = []schema.GroupKind{
	{Group: "cilium.io", Kind: "CiliumNetworkPolicy"},
	{Group: "cilium.io", Kind: "CiliumClusterwideNetworkPolicy"},
	{Group: "cilium.io", Kind: "CiliumEgressGatewayPolicy"},
	{Group: "cilium.io", Kind: "CiliumLocalRedirectPolicy"},
	{Group: "crd.projectcalico.org", Kind: "NetworkPolicy"},
	{Group: "crd.projectcalico.org", Kind: "GlobalNetworkPolicy"},
	{Group: "projectcalico.org", Kind: "NetworkPolicy"},
	{Group: "projectcalico.org", Kind: "GlobalNetworkPolicy"},
	{Group: "crd.antrea.io", Kind: "NetworkPolicy"},
	{Group: "crd.antrea.io", Kind: "ClusterNetworkPolicy"},
	{Group: "crd.antrea.io", Kind: "Egress"},
	{Group: "k8s.ovn.org", Kind: "EgressIP"},
	{Group: "vpcresources.k8s.aws", Kind: "SecurityGroupPolicy"},
	{Group: "security.istio.io", Kind: "AuthorizationPolicy"},
	{Group: "policy.networking.k8s.io", Kind: "AdminNetworkPolicy"},
	{Group: "policy.networking.k8s.io", Kind: "BaselineAdminNetworkPolicy"},
	{Group: "policy.networking.k8s.io", Kind: "ClusterNetworkPolicy"},
}

// readPolicies reads what says by labels what pods of the namespace may send and receive.
func (r *Reconciler) readPolicies(ctx context.Context, namespace string, f *Facts) error {
	// Policies of other namespaces name this one's pods as peers.
	var policies networkingv1.NetworkPolicyList
	if err := r.Reader.List(ctx, &policies); err != nil {
		return fmt.Errorf("list the NetworkPolicies: %w", err)
	}
	f.Policies = nil
	for i := range policies.Items {
		f.Policies = append(f.Policies, selectorsOf(&policies.Items[i], namespace)...)
	}
	return r.readForeign(ctx, f)
}

// readForeign looks for one policy of a kind that is not known here. That the API server does not
// tell of a kind is no error: it may be so for long, and is told in the facts.
func (r *Reconciler) readForeign(ctx context.Context, f *Facts) error {
	f.Foreign, f.Untold = "", ""
	_, resources, stale, err := r.Kinds.GroupsAndMaybeResources()
	if err != nil {
		return fmt.Errorf("ask the API server what it serves: %w", err)
	}
	if resources == nil {
		return errors.New("the API server tells its groups without their kinds: Kubernetes 1.30 or newer is needed")
	}
	for _, kind := range unreadable {
		for v, err := range stale {
			if v.Group == kind.Group {
				f.Untold = fmt.Sprintf("%s: %v", kind, err)
			}
		}
		for v, list := range resources {
			if v.Group != kind.Group || !slices.ContainsFunc(list.APIResources, func(a metav1.APIResource) bool { return a.Kind == kind.Kind }) {
				continue
			}
			f.Foreign, err = r.anyOf(ctx, v.WithKind(kind.Kind))
			switch {
			case isRefusal(err), apierrors.IsServiceUnavailable(err):
				f.Untold = err.Error()
			case err != nil, f.Foreign != "":
				return err
			}
		}
	}
	return nil
}

// anyOf names one object of the kind; empty: there is none.
func (r *Reconciler) anyOf(ctx context.Context, kind schema.GroupVersionKind) (string, error) {
	var all metav1.PartialObjectMetadataList
	all.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
	err := r.Reader.List(ctx, &all, client.Limit(1))
	switch {
	case apierrors.IsNotFound(err), meta.IsNoMatchError(err), err == nil && len(all.Items) == 0:
		return "", nil // it is served no more, or there are none
	case err != nil:
		return "", fmt.Errorf("look for a %s: %w", kind.GroupKind(), err)
	}
	return fmt.Sprintf("%s %s", kind.GroupKind(), client.ObjectKeyFromObject(&all.Items[0])), nil
}

// judgeForeign tells that policies are there of which nobody here knows whom they select, or that
// whether there are cannot be told.
func judgeForeign(f Facts) *Refusal {
	switch {
	case f.Foreign == "" && f.Untold == "":
		return nil
	case f.Foreign == "":
		return refuse(ReasonForeignPolicies, "whether there are policies that might not go on to select the object that holds the old address, when labels are taken off it, cannot be told: %s", f.Untold)
	}
	return refuse(ReasonForeignPolicies, "there is %s: whether policies of that kind would go on to select the object that holds the old address, when labels are taken off it, is not known", f.Foreign)
}

// counted tells that the holder has its labels, or some of them, still or again: somebody counts it.
func counted(holder *corev1.Pod, f Facts) *Refusal {
	if holder.Labels[v1alpha1.LabelLease] == "" {
		return refuse(ReasonNotReleased, "something has taken the label %s off pod %s, which holds the old address", v1alpha1.LabelLease, holder.Name)
	}
	for _, a := range f.Takers {
		if a.selector.Matches(labels.Set(holder.Labels)) {
			return refuse(ReasonNotReleased, "%s %s selects pod %s, which holds the old address, by its labels %v", a.kind, a.name, holder.Name, holder.Labels)
		}
	}
	return nil
}

// differ tells why what holds the address is not under the policies that the moved pod is under.
func differ(holder, moved *corev1.Pod, f Facts) *Refusal {
	for _, p := range f.Policies {
		if p.selector.Matches(labels.Set(holder.Labels)) != p.selector.Matches(labels.Set(moved.Labels)) {
			return refuse(ReasonPoliciesDiffer, "%s %s selects only one of pod %s and pod %s, which holds its old address", p.kind, p.name, moved.Name, holder.Name)
		}
	}
	return judgeForeign(f)
}

// guarded ends the lease if the holder counts for somebody: what let it go was altered, and whoever
// did it has not lived to see that, or somebody came since; or if policies that came since do not hold
// for the old address as they do for the pod. changed: it has ended.
func (r *Reconciler) guarded(ctx context.Context, m *v1alpha1.PodMigration, f Facts, holder, p *corev1.Pod) (changed bool, _ error) {
	if p == nil || p.Labels[v1alpha1.LabelReplacement] != "" {
		return false, nil // it has not its own labels yet
	}
	f.Pod = p // the holder has no owner that others count by
	if err := r.lookOwner(ctx, m, &f); err != nil {
		return false, err
	}
	f.Pod = holder
	if err := r.readSelectors(ctx, m, &f); err != nil {
		return false, err
	}
	f.Untold = "" // there were none; the next look asks again
	for _, why := range []*Refusal{counted(holder, f), differ(holder, p, f)} {
		if why != nil {
			return true, r.endLease(ctx, m, f, *why)
		}
	}
	return false, nil
}

// selectorsOf are those by which a policy can mean a pod in the namespace.
func selectorsOf(p *networkingv1.NetworkPolicy, namespace string) (out []adopter) {
	add := func(s *metav1.LabelSelector) {
		if selector, err := metav1.LabelSelectorAsSelector(s); err == nil {
			out = append(out, adopter{"NetworkPolicy", p.Namespace + "/" + p.Name, selector})
		}
	}
	peers := func(all []networkingv1.NetworkPolicyPeer) {
		for _, peer := range all {
			if peer.PodSelector != nil && (peer.NamespaceSelector != nil || p.Namespace == namespace) {
				add(peer.PodSelector)
			}
		}
	}
	if p.Namespace == namespace {
		add(&p.Spec.PodSelector)
	}
	for _, rule := range p.Spec.Ingress {
		peers(rule.From)
	}
	for _, rule := range p.Spec.Egress {
		peers(rule.To)
	}
	return out
}
