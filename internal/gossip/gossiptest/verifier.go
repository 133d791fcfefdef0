package gossiptest

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"sync"
	"time"

	"github.com/drover-project/drover/internal/identity"
)

// Verifier verifies what many members in one process hear, once for all of them: what
// was good a moment ago is good again, and whatever is not the very same is verified anew.
type Verifier struct {
	mu           sync.Mutex
	signatures   map[[32]byte]struct{}
	parsed       map[[32]byte]*x509.Certificate
	certificates map[*x509.Certificate]verified
}

type verified struct {
	subject identity.Subject
	roots   *x509.CertPool
}

// NewVerifier makes one that remembers nothing yet.
func NewVerifier() *Verifier {
	return &Verifier{signatures: map[[32]byte]struct{}{}, parsed: map[[32]byte]*x509.Certificate{}, certificates: map[*x509.Certificate]verified{}}
}

// remembered bounds the signatures that are remembered.
const remembered = 1 << 18

// Signature is ed25519.Verify.
func (v *Verifier) Signature(key ed25519.PublicKey, message, signature []byte) bool {
	h := sha256.New()
	h.Write(key)
	h.Write(signature)
	h.Write(message) // the only one of no fixed length
	id := [32]byte(h.Sum(nil))
	v.mu.Lock()
	_, good := v.signatures[id]
	v.mu.Unlock()
	if good {
		return true
	}
	if good = ed25519.Verify(key, message, signature); good {
		v.mu.Lock()
		defer v.mu.Unlock()
		if len(v.signatures) >= remembered {
			clear(v.signatures)
		}
		v.signatures[id] = struct{}{}
	}
	return good
}

// Parse is x509.ParseCertificate. Nobody may change what it gives.
func (v *Verifier) Parse(der []byte) (*x509.Certificate, error) {
	id := sha256.Sum256(der)
	v.mu.Lock()
	cert := v.parsed[id]
	v.mu.Unlock()
	if cert != nil {
		return cert, nil
	}
	cert, err := x509.ParseCertificate(der)
	if err == nil {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.parsed[id] != nil {
			return v.parsed[id], nil
		}
		v.parsed[id] = cert
	}
	return cert, err
}

// Certificate is identity.Verify; of a certificate that Parse gave, what was good once is good
// again until it is over.
func (v *Verifier) Certificate(cert *x509.Certificate, roots *x509.CertPool, now time.Time) (identity.Subject, error) {
	v.mu.Lock()
	known, is := v.certificates[cert]
	v.mu.Unlock()
	if is && known.roots == roots && !now.After(cert.NotAfter) && !now.Before(cert.NotBefore) {
		return known.subject, nil
	}
	subject, err := identity.Verify(cert, roots, now)
	if err == nil {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.certificates[cert] = verified{subject, roots}
	}
	return subject, err
}
