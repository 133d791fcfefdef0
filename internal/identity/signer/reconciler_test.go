package signer

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/drover-project/drover/internal/identity/identitytest"
)

// apiServer is a fake that, like the real one, takes conditions through "approval" and
// certificates through "status".
func apiServer(t *testing.T, funcs interceptor.Funcs, objects ...client.Object) client.Client {
	t.Helper()
	funcs.SubResourceUpdate = func(ctx context.Context, c client.Client, sub string, o client.Object, opts ...client.SubResourceUpdateOption) error {
		csr, ok := o.(*certificatesv1.CertificateSigningRequest)
		if !ok {
			return errors.New("update of something else than a request")
		}
		stored := &certificatesv1.CertificateSigningRequest{}
		if err := c.Get(ctx, client.ObjectKeyFromObject(o), stored); err != nil {
			return err
		}
		switch sub {
		case "approval":
			if len(csr.Status.Certificate) > 0 {
				return errors.New("a certificate through approval")
			}
			stored.Status.Conditions = csr.Status.Conditions
		case "status":
			stored.Status = csr.Status
		default:
			return errors.New("subresource " + sub)
		}
		if err := c.Status().Update(ctx, stored); err != nil {
			return err
		}
		csr.ResourceVersion = stored.ResourceVersion
		return nil
	}
	inner := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(objects...).
		WithStatusSubresource(&certificatesv1.CertificateSigningRequest{}).Build()
	return interceptor.NewClient(inner, funcs)
}

func reconcile(t *testing.T, c client.Client) (*certificatesv1.CertificateSigningRequest, error) {
	t.Helper()
	authority, err := NewAuthority(identitytest.NewAuthority(t).PEM(t))
	if err != nil {
		t.Fatal(err)
	}
	r := &Reconciler{Client: c, Nodes: c, Authority: authority, Namespace: namespace, Now: time.Now}
	_, failed := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Name: "csr-1"}})
	csr := &certificatesv1.CertificateSigningRequest{}
	if err := c.Get(t.Context(), client.ObjectKey{Name: "csr-1"}, csr); err != nil {
		t.Fatal(err)
	}
	return csr, failed
}

func nodeObject() *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "uid-1"},
		Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}, {Type: corev1.NodeHostName, Address: "n1"}}},
	}
}

func TestReconcile(t *testing.T) {
	condition := func(kind certificatesv1.RequestConditionType) func(*certificatesv1.CertificateSigningRequest) {
		return func(c *certificatesv1.CertificateSigningRequest) {
			c.Status.Conditions = append(c.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: kind, Status: corev1.ConditionTrue})
		}
	}
	stolen := func(c *certificatesv1.CertificateSigningRequest) {
		c.Spec.Extra[extraNodeName] = certificatesv1.ExtraValue{"n2"}
	}
	type change = func(*certificatesv1.CertificateSigningRequest)
	for name, test := range map[string]struct {
		changes []change
		nodes   []client.Object
		want    string // types of the conditions
		signed  bool
	}{
		"good":                        {nodes: []client.Object{nodeObject()}, want: "Approved", signed: true},
		"good, approved by another":   {changes: []change{condition(certificatesv1.CertificateApproved)}, nodes: []client.Object{nodeObject()}, want: "Approved", signed: true},
		"stolen":                      {changes: []change{stolen}, nodes: []client.Object{nodeObject()}, want: "Denied"},
		"stolen, approved by another": {changes: []change{stolen, condition(certificatesv1.CertificateApproved)}, nodes: []client.Object{nodeObject()}, want: "Approved Failed"},
		"no such node":                {want: "Denied"},
		"denied before":               {changes: []change{condition(certificatesv1.CertificateDenied)}, nodes: []client.Object{nodeObject()}, want: "Denied"},
		"no request in it":            {changes: []change{func(c *certificatesv1.CertificateSigningRequest) { c.Spec.Request = nil }}, want: "Denied"},
		"another signer's":            {changes: []change{func(c *certificatesv1.CertificateSigningRequest) { c.Spec.SignerName = "x.io/y" }}, nodes: []client.Object{nodeObject()}},
	} {
		t.Run(name, func(t *testing.T) {
			csr := asked(t, node1)
			for _, change := range test.changes {
				change(csr)
			}
			got, err := reconcile(t, apiServer(t, interceptor.Funcs{}, append(test.nodes, csr)...))
			if err != nil {
				t.Fatal(err)
			}
			var kinds []string
			for _, c := range got.Status.Conditions {
				kinds = append(kinds, string(c.Type))
			}
			if strings.Join(kinds, " ") != test.want || (len(got.Status.Certificate) > 0) != test.signed {
				t.Errorf("conditions %v, %d bytes of certificate; want %q, signed %v", got.Status.Conditions, len(got.Status.Certificate), test.want, test.signed)
			}
		})
	}
}

// When the Node cannot be read nothing is known: neither a grant nor a denial.
func TestNodeThatCannotBeReadDecidesNothing(t *testing.T) {
	c := apiServer(t, interceptor.Funcs{Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
		if _, ok := o.(*corev1.Node); ok {
			return errors.New("connection refused")
		}
		return c.Get(ctx, key, o, opts...)
	}}, asked(t, node1), nodeObject())
	csr, err := reconcile(t, c)
	if err == nil || len(csr.Status.Conditions) > 0 || len(csr.Status.Certificate) > 0 {
		t.Errorf("error %v, conditions %v", err, csr.Status.Conditions)
	}
}
