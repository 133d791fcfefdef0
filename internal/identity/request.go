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
	"k8s.io/apimachinery/pkg/watch"
	client "k8s.io/client-go/kubernetes/typed/certificates/v1"
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

// awaitCertificate watches the named request until it is signed and returns the leaf. A
// watch that ends, as all do sooner or later, is opened again.
func awaitCertificate(ctx context.Context, csrs client.CertificateSigningRequestInterface, name string) (*x509.Certificate, error) {
	for {
		leaf, err := watchOnce(ctx, csrs, name)
		if leaf != nil || err != nil {
			return leaf, err
		}
		if !sleepUntil(ctx, time.Now().Add(time.Second)) {
			return nil, fmt.Errorf("wait for drover-controller to sign certificate request %s: %w", name, context.Cause(ctx))
		}
	}
}

// watchOnce gives neither a leaf nor an error when the watch has ended without an answer.
func watchOnce(ctx context.Context, csrs client.CertificateSigningRequestInterface, name string) (*x509.Certificate, error) {
	w, err := csrs.Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()})
	if err != nil {
		return nil, fmt.Errorf("watch certificate request %s: %w", name, err)
	}
	defer w.Stop()
	// Read after the watch was opened: what comes between is in one or the other.
	csr, err := csrs.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read certificate request %s: %w", name, err)
	}
	for {
		if leaf, err := outcome(csr); leaf != nil || err != nil {
			return leaf, err
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case e, open := <-w.ResultChan():
			if !open || e.Type == watch.Error {
				return nil, nil
			}
			next, ok := e.Object.(*certificatesv1.CertificateSigningRequest)
			if !ok || next.Name != name {
				continue
			}
			if e.Type == watch.Deleted {
				return nil, fmt.Errorf("certificate request %s was deleted before it was signed", name)
			}
			csr = next
		}
	}
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
