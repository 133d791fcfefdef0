// Package identity gives Drover's programs certificates that are tied to Kubernetes
// objects: an agent's to its Node, an observer's to its Pod. Kubernetes itself vouches
// for who asks (a bound service account token names the node and the pod), package
// signer decides, and this package asks, renews, and checks the certificates of others.
package identity

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"

	"github.com/drover-project/drover/internal/model"
)

// SignerName is the signerName of every CertificateSigningRequest of Drover.
const SignerName = "drover.dev/agent"

const (
	nodePrefix     = "drover:node:"
	observerPrefix = "drover:observer:"
	uriScheme      = "drover"
)

// Subject is whom a certificate speaks for: either an agent, by Node and NodeUID, or an
// observer (a program that reads gossip and may say nothing), by the name of its pod.
type Subject struct {
	Node    model.NodeID
	NodeUID string
	// Observer is the name of the observer's pod; Node and NodeUID are then empty.
	Observer string
}

// IsNode tells whether the subject is an agent.
func (s Subject) IsNode() bool { return s.Node != "" }

// String is the common name.
func (s Subject) String() string { return s.CommonName() }

// CommonName is "drover:node:NAME" or "drover:observer:POD".
func (s Subject) CommonName() string {
	if s.IsNode() {
		return nodePrefix + string(s.Node)
	}
	return observerPrefix + s.Observer
}

// URI is the URI SAN: drover://node/NAME/UID or drover://observer/POD.
func (s Subject) URI() *url.URL {
	if s.IsNode() {
		return &url.URL{Scheme: uriScheme, Host: "node", Path: "/" + string(s.Node) + "/" + s.NodeUID}
	}
	return &url.URL{Scheme: uriScheme, Host: "observer", Path: "/" + s.Observer}
}

// CertificateSubject reads the subject of a certificate. It does not verify the
// certificate; it does require that common name and URI say the same.
func CertificateSubject(cert *x509.Certificate) (Subject, error) {
	return ParseSubject(cert.Subject.CommonName, cert.URIs)
}

// ParseSubject reads a subject from a common name and the URI SANs beside it.
func ParseSubject(commonName string, uris []*url.URL) (Subject, error) {
	if len(uris) != 1 {
		return Subject{}, fmt.Errorf("certificate for %q has %d URI names, want exactly one", commonName, len(uris))
	}
	s, err := parseURI(uris[0])
	if err != nil {
		return Subject{}, err
	}
	if s.CommonName() != commonName {
		return Subject{}, fmt.Errorf("common name %q and URI name %q differ", commonName, uris[0])
	}
	return s, nil
}

func parseURI(u *url.URL) (Subject, error) {
	parts := strings.Split(u.Path, "/")
	var s Subject
	switch {
	case u.Host == "node" && len(parts) == 3:
		s = Subject{Node: model.NodeID(parts[1]), NodeUID: parts[2]}
	case u.Host == "observer" && len(parts) == 2:
		s = Subject{Observer: parts[1]}
	}
	// Only what URI() writes is accepted: no user, query, fragment or odd escapes.
	if (s.Observer == "" && (s.Node == "" || s.NodeUID == "")) || s.URI().String() != u.String() {
		return Subject{}, fmt.Errorf("URI name %q is neither drover://node/NAME/UID nor drover://observer/POD", u)
	}
	return s, nil
}

// NodeOf is the node in an agent's common name; ok is false for any other name.
func NodeOf(commonName string) (node model.NodeID, ok bool) {
	name, ok := strings.CutPrefix(commonName, nodePrefix)
	if !ok || name == "" {
		return "", false
	}
	return model.NodeID(name), true
}
