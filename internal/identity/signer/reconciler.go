package signer

import (
	"context"
	"fmt"
	"net"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/refusals"
)

// Reconciler answers every request to the signer drover.dev/agent: approves and signs it,
// or denies it with the reason.
//
// It needs: certificatesigningrequests get, list, watch; certificatesigningrequests/approval
// and /status update; signers drover.dev/agent approve and sign; nodes get.
type Reconciler struct {
	Client client.Client
	// Nodes reads Node objects past any cache, so that a Node made a moment ago is seen.
	Nodes     client.Reader
	Authority *Authority
	// Namespace is Drover's.
	Namespace string
	Now       func() time.Time
	// Refusals may be nil.
	Refusals *refusals.Counter
}

// SetupWithManager registers the reconciler.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	ours := predicate.NewPredicateFuncs(func(o client.Object) bool {
		csr, ok := o.(*certificatesv1.CertificateSigningRequest)
		return ok && csr.Spec.SignerName == identity.SignerName
	})
	err := ctrl.NewControllerManagedBy(mgr).Named("certificates").
		For(&certificatesv1.CertificateSigningRequest{}).WithEventFilter(ours).Complete(r)
	if err != nil {
		return fmt.Errorf("set up the certificate signer: %w", err)
	}
	return nil
}

// Reconcile answers one request.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var csr certificatesv1.CertificateSigningRequest
	if err := r.Client.Get(ctx, req.NamespacedName, &csr); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if csr.Spec.SignerName != identity.SignerName || len(csr.Status.Certificate) > 0 || refused(&csr) {
		return ctrl.Result{}, nil
	}
	grant, reason, err := r.judge(ctx, &csr)
	switch {
	case err != nil:
		return ctrl.Result{}, err
	case reason != nil:
		log.FromContext(ctx).Info("certificate request refused", "request", csr.Name, "user", csr.Spec.Username, "reason", reason.Error())
		if err := r.refuse(ctx, &csr, reason); err != nil {
			return ctrl.Result{}, err
		}
		r.Refusals.Count(refusals.Certificate)
		return ctrl.Result{}, nil
	case !approved(&csr):
		if err := r.condition(ctx, &csr, certificatesv1.CertificateApproved, "Verified", "bound to "+grant.Subject.URI().String()); err != nil {
			return ctrl.Result{}, err
		}
	}
	return ctrl.Result{}, r.sign(ctx, &csr, grant)
}

// judge gives a grant or the reason for a refusal; err means that it could not find out.
func (r *Reconciler) judge(ctx context.Context, csr *certificatesv1.CertificateSigningRequest) (grant *Grant, reason, err error) {
	subject, reason := Subject(csr)
	if reason != nil {
		return nil, reason, nil
	}
	var node *Node
	if subject.IsNode() {
		if node, err = r.node(ctx, string(subject.Node)); err != nil {
			return nil, nil, err
		}
	}
	grant, reason = Judge(csr, node, r.Namespace)
	return grant, reason, nil
}

func (r *Reconciler) node(ctx context.Context, name string) (*Node, error) {
	var n corev1.Node
	err := r.Nodes.Get(ctx, client.ObjectKey{Name: name}, &n)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read node %q: %w", name, err)
	}
	out := &Node{Name: model.NodeID(n.Name), UID: string(n.UID)}
	for _, a := range n.Status.Addresses {
		if ip := net.ParseIP(a.Address); ip != nil {
			out.Addresses = append(out.Addresses, ip)
		}
	}
	return out, nil
}

// refuse denies a request. One that somebody else approved can no longer be denied; it
// fails instead.
func (r *Reconciler) refuse(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, reason error) error {
	if !approved(csr) {
		return r.condition(ctx, csr, certificatesv1.CertificateDenied, "NotVerified", reason.Error())
	}
	r.add(csr, certificatesv1.CertificateFailed, "NotVerified", reason.Error())
	if err := r.Client.Status().Update(ctx, csr); err != nil {
		return fmt.Errorf("mark certificate request %s as failed: %w", csr.Name, err)
	}
	return nil
}

func (r *Reconciler) condition(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType, reason, message string) error {
	r.add(csr, kind, reason, message)
	if err := r.Client.SubResource("approval").Update(ctx, csr); err != nil {
		return fmt.Errorf("set condition %s of certificate request %s: %w", kind, csr.Name, err)
	}
	return nil
}

func (r *Reconciler) add(csr *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType, reason, message string) {
	now := metav1.NewTime(r.Now())
	csr.Status.Conditions = append(csr.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: kind, Status: corev1.ConditionTrue, Reason: reason, Message: message, LastUpdateTime: now, LastTransitionTime: now,
	})
}

func (r *Reconciler) sign(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, g *Grant) error {
	pem, err := r.Authority.Sign(g, r.Now())
	if err != nil {
		return err
	}
	csr.Status.Certificate = pem
	if err := r.Client.Status().Update(ctx, csr); err != nil {
		return fmt.Errorf("put the certificate into request %s: %w", csr.Name, err)
	}
	log.FromContext(ctx).Info("certificate signed", "request", csr.Name, "subject", g.Subject.String(), "life", g.Life)
	return nil
}

func approved(csr *certificatesv1.CertificateSigningRequest) bool {
	return has(csr, certificatesv1.CertificateApproved)
}

func refused(csr *certificatesv1.CertificateSigningRequest) bool {
	return has(csr, certificatesv1.CertificateDenied) || has(csr, certificatesv1.CertificateFailed)
}

func has(csr *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType) bool {
	for _, c := range csr.Status.Conditions {
		if c.Type == kind {
			return true
		}
	}
	return false
}
