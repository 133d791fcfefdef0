package identity

import (
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Identity is a key with the certificate that says whose it is. It is immutable.
type Identity struct {
	Subject Subject
	Key     ed25519.PrivateKey
	Cert    *x509.Certificate
}

// Sign signs a message with Ed25519.
func (i *Identity) Sign(message []byte) []byte { return ed25519.Sign(i.Key, message) }

// renewAt is the moment at two thirds of the certificate's life.
func (i *Identity) renewAt() time.Time {
	life := i.Cert.NotAfter.Sub(i.Cert.NotBefore)
	return i.Cert.NotBefore.Add(life / 3 * 2)
}

// Verify checks that cert chains to one of the roots at the time now, is no CA and has
// an Ed25519 key, and returns whom it speaks for.
func Verify(cert *x509.Certificate, roots *x509.CertPool, now time.Time) (Subject, error) {
	if cert.IsCA {
		return Subject{}, fmt.Errorf("certificate %q is a CA", cert.Subject.CommonName)
	}
	if _, ok := cert.PublicKey.(ed25519.PublicKey); !ok {
		return Subject{}, fmt.Errorf("certificate %q has a %T, want an Ed25519 key", cert.Subject.CommonName, cert.PublicKey)
	}
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		_, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use}})
		if err != nil {
			return Subject{}, fmt.Errorf("verify certificate %q against Drover's CA: %w", cert.Subject.CommonName, err)
		}
	}
	return CertificateSubject(cert)
}

// newIdentity joins a key and its certificate after checking both.
func newIdentity(want Subject, key ed25519.PrivateKey, cert *x509.Certificate, roots *x509.CertPool, now time.Time) (*Identity, error) {
	got, err := Verify(cert, roots, now)
	if err != nil {
		return nil, err
	}
	if got != want {
		return nil, fmt.Errorf("certificate is for %s, want %s", got.URI(), want.URI())
	}
	if !key.Public().(ed25519.PublicKey).Equal(cert.PublicKey) {
		return nil, errors.New("certificate is for another key")
	}
	return &Identity{Subject: want, Key: key, Cert: cert}, nil
}
