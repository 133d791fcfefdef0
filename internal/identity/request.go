package identity

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	client "k8s.io/client-go/kubernetes/typed/certificates/v1"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// Usages are the key usages that every request asks for and the signer grants, no more
// and no less.
func Usages() []certificatesv1.KeyUsage {
	return []certificatesv1.KeyUsage{
		certificatesv1.UsageDigitalSignature,
		certificatesv1.UsageClientAuth,
		certificatesv1.UsageServerAuth,
	}
}

// SigningRequest is the CertificateSigningRequest by which a subject asks for a
// certificate of the given life for its key. The IPs become IP SANs.
func SigningRequest(s Subject, key ed25519.PrivateKey, ips []net.IP, life time.Duration) (*certificatesv1.CertificateSigningRequest, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:     pkix.Name{CommonName: s.CommonName()},
		URIs:        []*url.URL{s.URI()},
		IPAddresses: ips,
	}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request for %s: %w", s, err)
	}
	seconds := int32(life / time.Second)
	return &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "drover-"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request:           pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
			SignerName:        SignerName,
			ExpirationSeconds: &seconds,
			Usages:            Usages(),
		},
	}, nil
}

// awaitCertificate watches the named request until it is signed and returns the leaf.
func awaitCertificate(ctx context.Context, csrs client.CertificateSigningRequestInterface, name string) (*x509.Certificate, error) {
	byName := fields.OneTermEqualSelector("metadata.name", name).String()
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = byName
			return csrs.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = byName
			return csrs.Watch(ctx, o)
		},
	}
	var leaf *x509.Certificate
	_, err := watchtools.UntilWithSync(ctx, lw, &certificatesv1.CertificateSigningRequest{}, nil, func(e watch.Event) (bool, error) {
		csr, ok := e.Object.(*certificatesv1.CertificateSigningRequest)
		if !ok || csr.Name != name {
			return false, nil
		}
		if e.Type == watch.Deleted {
			return false, fmt.Errorf("certificate request %s was deleted before it was signed", name)
		}
		var err error
		leaf, err = outcome(csr)
		return leaf != nil, err
	})
	if err != nil {
		return nil, fmt.Errorf("wait for drover-controller to sign certificate request %s: %w", name, err)
	}
	return leaf, nil
}

// outcome reads a request's status: the leaf when signed, an error when it never will
// be, neither while it is open.
func outcome(csr *certificatesv1.CertificateSigningRequest) (*x509.Certificate, error) {
	for _, c := range csr.Status.Conditions {
		refused := c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed
		if refused && c.Status == corev1.ConditionTrue {
			return nil, fmt.Errorf("%s: %s: %s", c.Type, c.Reason, c.Message)
		}
	}
	if len(csr.Status.Certificate) == 0 {
		return nil, nil
	}
	block, _ := pem.Decode(csr.Status.Certificate)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("status.certificate holds no PEM certificate")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse status.certificate: %w", err)
	}
	return leaf, nil
}
