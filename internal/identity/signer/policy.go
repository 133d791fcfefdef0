// Package signer decides about the certificate requests of Drover's programs and signs
// those that pass. The decision trusts only what the API server itself wrote into the
// request: the user name and the claims of the bound service account token.
package signer

import (
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/model"
)

// The service accounts whose requests are considered, in Drover's namespace.
const (
	AgentServiceAccount    = "drover-agent"
	ObserverServiceAccount = "drover-scheduler"
)

// Claims that the API server takes from a bound service account token. The node's name is
// there from Kubernetes 1.32 on (ServiceAccountTokenPodNodeInfo).
const (
	extraNodeName = "authentication.kubernetes.io/node-name"
	extraPodName  = "authentication.kubernetes.io/pod-name"
)

// Bounds of a certificate's life.
const (
	MinLife = 10 * time.Minute
	MaxLife = 24 * time.Hour
)

// Node is what the decision needs of a Node object.
type Node struct {
	Name      model.NodeID
	UID       string
	Addresses []net.IP
}

// Grant is what a good request is given: exactly what was checked, nothing copied blindly.
type Grant struct {
	Subject   identity.Subject
	PublicKey ed25519.PublicKey
	IPs       []net.IP
	Life      time.Duration
}

// Subject reads whom a request wants to speak for; it is how the caller finds the Node
// to give to Judge. Nothing is checked but the form.
func Subject(csr *certificatesv1.CertificateSigningRequest) (identity.Subject, error) {
	req, err := parse(csr.Spec.Request)
	if err != nil {
		return identity.Subject{}, err
	}
	return identity.ParseSubject(req.Subject.CommonName, req.URIs)
}

// Judge decides about a request to the signer drover.dev/agent. The node is the Node
// object named in the request, nil when there is none (and for observers). An error is
// the reason for a denial, fit to be shown.
func Judge(csr *certificatesv1.CertificateSigningRequest, node *Node, namespace string) (*Grant, error) {
	req, err := parse(csr.Spec.Request)
	if err != nil {
		return nil, err
	}
	subject, err := identity.ParseSubject(req.Subject.CommonName, req.URIs)
	if err != nil {
		return nil, err
	}
	if err := checkUsages(csr.Spec.Usages); err != nil {
		return nil, err
	}
	if err := checkContents(req); err != nil {
		return nil, err
	}
	if subject.IsNode() {
		err = checkAgent(csr, subject, node, req.IPAddresses, namespace)
	} else {
		err = checkObserver(csr, subject, req.IPAddresses, namespace)
	}
	if err != nil {
		return nil, err
	}
	return &Grant{
		Subject:   subject,
		PublicKey: req.PublicKey.(ed25519.PublicKey), // checkContents
		IPs:       req.IPAddresses,
		Life:      life(csr.Spec.ExpirationSeconds),
	}, nil
}

func parse(b []byte) (*x509.CertificateRequest, error) {
	block, rest := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("spec.request holds no PEM certificate request")
	}
	if len(rest) > 0 {
		return nil, errors.New("spec.request holds more than one certificate request")
	}
	req, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse spec.request: %w", err)
	}
	if err := req.CheckSignature(); err != nil {
		return nil, fmt.Errorf("spec.request is not signed by its own key: %w", err)
	}
	return req, nil
}

func checkUsages(got []certificatesv1.KeyUsage) error {
	want := identity.Usages()
	slices.Sort(want)
	if !slices.Equal(slices.Sorted(slices.Values(got)), want) {
		return fmt.Errorf("spec.usages are %q, want exactly %q", got, want)
	}
	return nil
}

// allowedExtension is subjectAltName; a request that asks for any other extension (CA,
// name constraints, key usages of its own) is not one of ours.
const allowedExtension = "2.5.29.17"

func checkContents(req *x509.CertificateRequest) error {
	if len(req.DNSNames) > 0 || len(req.EmailAddresses) > 0 {
		return errors.New("request has DNS or e-mail names, want URI and IP names only")
	}
	if only := (pkix.Name{CommonName: req.Subject.CommonName}).String(); req.Subject.String() != only {
		return fmt.Errorf("subject is %q, want %q alone", req.Subject, only)
	}
	for _, e := range req.Extensions {
		if e.Id.String() != allowedExtension {
			return fmt.Errorf("request asks for extension %s, want subjectAltName alone", e.Id)
		}
	}
	if _, ok := req.PublicKey.(ed25519.PublicKey); !ok {
		return fmt.Errorf("key is a %T, want Ed25519", req.PublicKey)
	}
	return nil
}

func checkAgent(csr *certificatesv1.CertificateSigningRequest, s identity.Subject, node *Node, ips []net.IP, namespace string) error {
	if err := checkUser(csr, namespace, AgentServiceAccount); err != nil {
		return err
	}
	if err := checkClaim(csr, extraNodeName, string(s.Node)); err != nil {
		return err
	}
	if node == nil || node.Name != s.Node {
		return fmt.Errorf("node %q does not exist", s.Node)
	}
	if node.UID != s.NodeUID {
		return fmt.Errorf("request is for node %q with UID %q, the Node object has %q", s.Node, s.NodeUID, node.UID)
	}
	for _, ip := range ips {
		if !slices.ContainsFunc(node.Addresses, ip.Equal) {
			return fmt.Errorf("IP name %s is no address of node %q (%v)", ip, s.Node, node.Addresses)
		}
	}
	return nil
}

func checkObserver(csr *certificatesv1.CertificateSigningRequest, s identity.Subject, ips []net.IP, namespace string) error {
	if err := checkUser(csr, namespace, ObserverServiceAccount); err != nil {
		return err
	}
	if len(ips) > 0 {
		return fmt.Errorf("an observer gets no IP names, asked for %v", ips)
	}
	return checkClaim(csr, extraPodName, s.Observer)
}

func checkUser(csr *certificatesv1.CertificateSigningRequest, namespace, account string) error {
	want := "system:serviceaccount:" + namespace + ":" + account
	if csr.Spec.Username != want {
		return fmt.Errorf("requested by %q, want %q", csr.Spec.Username, want)
	}
	return nil
}

// checkClaim wants exactly one value: a token bound to one object carries one.
func checkClaim(csr *certificatesv1.CertificateSigningRequest, claim, want string) error {
	got := csr.Spec.Extra[claim]
	if len(got) != 1 || got[0] != want {
		return fmt.Errorf("the requester's token has %s = %q, the request is for %q (bound tokens carry it from Kubernetes 1.32 on)", claim, []string(got), want)
	}
	return nil
}

func life(seconds *int32) time.Duration {
	if seconds == nil {
		return MaxLife
	}
	return min(max(time.Duration(*seconds)*time.Second, MinLife), MaxLife)
}
