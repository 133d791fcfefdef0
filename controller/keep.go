package controller

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/movable"
)

// Reasons for which a pod's connections are closed by a move without that anybody asks the
// network: nobody could hold the old address.
const (
	// ReasonNameNeeded: the pod gets its name back, which its first object would have to keep.
	ReasonNameNeeded = "NameNeeded"
	// ReasonNeverRestarted: kubelet ends the sandbox of such a pod with its processes.
	ReasonNeverRestarted = "NeverRestarted"
	// ReasonNoAddress: the pod's object tells none.
	ReasonNoAddress = "NoAddress"
	// ReasonNoHolderImage: drover-controller was not told what to hold addresses with.
	ReasonNoHolderImage = "NoHolderImage"
	// ReasonHolderRefused: the API server does not take that image for the pod, or makes it another.
	ReasonHolderRefused = "HolderImageRefused"
	// ReasonLeaseHeld: the pod still has addresses of earlier moves, and cannot take them along, or not so many.
	ReasonLeaseHeld = "LeaseHeld"
	// ReasonPostCopy: the source holds the old address until the memory is loaded, so that the connections
	// would stand still for as long.
	ReasonPostCopy = "PostCopy"
	// ReasonAlwaysSelected: something selects the pod whatever labels are taken off it.
	ReasonAlwaysSelected = "AlwaysSelected"
	// ReasonPolicyNeedsLabel: a NetworkPolicy and a Service, budget or owner select by one label.
	ReasonPolicyNeedsLabel = "PolicyNeedsLabel"
	// ReasonForeignPolicies: there are policies of a kind that is not known here.
	ReasonForeignPolicies = "ForeignPolicies"
	// ReasonConnectionsNotKept aborts a move that would close connections that are required.
	ReasonConnectionsNotKept = "ConnectionsNotKept"
)

// admitKeep refuses a wish about connections that cannot be understood, or not be fulfilled
// though it is required. A second step is never refused for it: its pod waits for its name.
func admitKeep(m *v1alpha1.PodMigration, f Facts) *Refusal {
	if returnsName(m) {
		return nil
	}
	keep, err := movable.KeepOf(f.Pod)
	if err != nil {
		return refuse(ReasonMalformedAnnotation, "pod %s/%s: %v", f.Pod.Namespace, f.Pod.Name, err)
	}
	if keep.Required {
		return notWithout(unleasable(m, f))
	}
	return nil
}

// notWithout says of what closes connections that they are not to be closed.
func notWithout(why *Refusal) *Refusal {
	if why == nil {
		return nil
	}
	return refuse(why.Reason, "%s; annotation %s asks for no move rather than one that closes connections", why.Message, v1alpha1.AnnotationKeepConnectionsRequired)
}

// unleasable tells why the pod's object could not hold its address once the pod has moved.
func unleasable(m *v1alpha1.PodMigration, f Facts) *Refusal {
	p := f.Pod
	ref := controllerOf(p)
	switch {
	case returnsName(m), ofStatefulSet(ref), ref == nil && p.Annotations[v1alpha1.AnnotationKeepName] == "true":
		return refuse(ReasonNameNeeded, "pod %s keeps its name, which the object that holds its old address would have to keep", p.Name)
	case m.Spec.PostCopy:
		return refuse(ReasonPostCopy, "the move is ordered with postCopy: nothing would be sent on to the new place of pod %s before all of its memory is there", p.Name)
	case p.Spec.RestartPolicy == corev1.RestartPolicyNever:
		return refuse(ReasonNeverRestarted, "pod %s has restartPolicy Never: kubelet gives its address back as soon as its processes have ended", p.Name)
	case len(addresses(p)) == 0:
		return refuse(ReasonNoAddress, "the status of pod %s tells no address", p.Name)
	}
	var by []string
	for _, e := range earlier(f) {
		by = append(by, e.Migration)
	}
	switch {
	case len(by) > 0 && !f.CarryEarlier:
		return refuse(ReasonLeaseHeld, "pod %s still has an address of an earlier move, by PodMigration %s: it cannot take along both unless drover-controller runs with --carry-earlier-addresses; such a lease ends when its PodMigration is deleted",
			p.Name, strings.Join(by, ", "))
	case len(by) > mostEarlier:
		return refuse(ReasonLeaseHeld, "pod %s still has %d addresses of earlier moves, by PodMigration %s: it can take along %d at most; such a lease ends when its PodMigration is deleted",
			p.Name, len(by), strings.Join(by, ", "), mostEarlier)
	}
	if why := judgeForeign(f); why != nil {
		return why
	}
	_, why := unlisted(p.Labels, f.Takers, f.Policies)
	return why
}

func addresses(p *corev1.Pod) (all []string) {
	for _, ip := range p.Status.PodIPs {
		all = append(all, ip.IP)
	}
	if len(all) == 0 && p.Status.PodIP != "" {
		all = append(all, p.Status.PodIP)
	}
	return all
}

// connections is what the record says of them from the beginning; nil: the pod does not ask.
// why: the move is not to be made.
func (r *Reconciler) connections(ctx context.Context, m *v1alpha1.PodMigration, f Facts) (_ *v1alpha1.ConnectionsStatus, why *Refusal, _ error) {
	keep, err := movable.KeepOf(f.Pod)
	if err != nil || keep.For == 0 {
		return nil, nil, nil // what is malformed is refused by now, but in a second step
	}
	c := &v1alpha1.ConnectionsStatus{
		State: v1alpha1.ConnectionsProbing, OldAddresses: addresses(f.Pod),
		Required: keep.Required && !returnsName(m), HolderImage: r.Config.PauseImage,
	}
	c.KeepFor.Duration = keep.For
	no := unleasable(m, f)
	if no == nil {
		if no, err = r.tryHolder(ctx, f.Pod); err != nil {
			return nil, nil, err
		}
	}
	if no == nil {
		c.Earlier = earlier(f)
		return c, nil, nil
	}
	if c.Required {
		return nil, notWithout(no), nil
	}
	c.State, c.Reason, c.Message = v1alpha1.ConnectionsClosed, no.Reason, v1alpha1.Cut(no.Message)
	return c, nil, nil
}

// tryHolder asks the API server whether the pod could be given the image that holds its
// address, by a dry run: whatever judges images in the cluster is heard before anything is frozen.
func (r *Reconciler) tryHolder(ctx context.Context, p *corev1.Pod) (*Refusal, error) {
	if r.Config.PauseImage == "" {
		return refuse(ReasonNoHolderImage, "drover-controller runs without --pause-image: nothing can hold the address of pod %s", p.Name), nil
	}
	given := p.DeepCopy()
	err := r.giveImage(ctx, given, r.Config.PauseImage, client.DryRunAll)
	switch {
	case err == nil && !runsOnly(given, r.Config.PauseImage):
		return altered(given, r.Config.PauseImage), nil
	case err == nil:
		return nil, nil
	case isRefusal(err) && !apierrors.IsNotFound(err):
		return refuse(ReasonHolderRefused, "the API server does not take image %s for pod %s, asked by a dry run: %v", r.Config.PauseImage, p.Name, err), nil
	}
	return nil, fmt.Errorf("ask the API server whether pod %s/%s may have image %s, by a dry run: %w", p.Namespace, p.Name, r.Config.PauseImage, err)
}
