package signer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/identity/identitytest"
)

const namespace = "drover-system"

var (
	node1   = identity.Subject{Node: "n1", NodeUID: "uid-1"}
	node2   = identity.Subject{Node: "n2", NodeUID: "uid-2"}
	watcher = identity.Subject{Observer: "drover-scheduler-abc"}
	object1 = &Node{Name: "n1", UID: "uid-1", Addresses: []net.IP{net.ParseIP("10.0.0.1"), net.ParseIP("fd00::1")}}
)

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// asked is the request that n1's agent makes, with what the API server adds to it.
func asked(t *testing.T, s identity.Subject, ips ...net.IP) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	csr, err := identity.SigningRequest(s, newKey(t), ips, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	csr.Name = "csr-1"
	account, claim, value := AgentServiceAccount, extraNodeName, string(s.Node)
	if !s.IsNode() {
		account, claim, value = ObserverServiceAccount, extraPodName, s.Observer
	}
	csr.Spec.Username = "system:serviceaccount:" + namespace + ":" + account
	csr.Spec.Extra = map[string]certificatesv1.ExtraValue{claim: {value}}
	return csr
}

// raw replaces the request's contents by those of a template.
func raw(t *testing.T, csr *certificatesv1.CertificateSigningRequest, key crypto.Signer, template x509.CertificateRequest) {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	if err != nil {
		t.Fatal(err)
	}
	csr.Spec.Request = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func template(s identity.Subject) x509.CertificateRequest {
	return x509.CertificateRequest{Subject: pkix.Name{CommonName: s.CommonName()}, URIs: []*url.URL{s.URI()}}
}

func TestGoodRequestsAreGranted(t *testing.T) {
	g, err := Judge(asked(t, node1, net.ParseIP("10.0.0.1"), net.ParseIP("fd00::1")), object1, namespace)
	if err != nil || g.Subject != node1 || len(g.IPs) != 2 || g.Life != time.Hour {
		t.Errorf("agent's request: %+v, %v", g, err)
	}
	g, err = Judge(asked(t, watcher), nil, namespace)
	if err != nil || g.Subject != watcher {
		t.Errorf("observer's request: %+v, %v", g, err)
	}
}

// Every case is a request by somebody who wants more than he may have.
func TestAttacksAreDenied(t *testing.T) {
	type csr = *certificatesv1.CertificateSigningRequest
	edit := func(s identity.Subject, change func(*x509.CertificateRequest)) func(*testing.T, csr) {
		return func(t *testing.T, c csr) {
			tpl := template(s)
			change(&tpl)
			raw(t, c, newKey(t), tpl)
		}
	}
	for name, test := range map[string]struct {
		subject identity.Subject // node1 unless set
		node    *Node            // object1 unless set
		change  func(*testing.T, csr)
		want    string
	}{
		"agent of n1 asks for n2": {change: func(t *testing.T, c csr) { raw(t, c, newKey(t), template(node2)) },
			node: &Node{Name: "n2", UID: "uid-2"}, want: "node-name"},
		"token without a node": {change: func(_ *testing.T, c csr) { delete(c.Spec.Extra, extraNodeName) }, want: "node-name"},
		"token with two nodes": {change: func(_ *testing.T, c csr) {
			c.Spec.Extra[extraNodeName] = certificatesv1.ExtraValue{"n2", "n1"}
		}, want: "node-name"},
		"another service account": {change: func(_ *testing.T, c csr) {
			c.Spec.Username = "system:serviceaccount:drover-system:default"
		}, want: "requested by"},
		"same account of another namespace": {change: func(_ *testing.T, c csr) {
			c.Spec.Username = "system:serviceaccount:evil:drover-agent"
		}, want: "requested by"},
		"account's name with a prefix":  {change: func(_ *testing.T, c csr) { c.Spec.Username = "x" + c.Spec.Username }, want: "requested by"},
		"the kubelet itself":            {change: func(_ *testing.T, c csr) { c.Spec.Username = "system:node:n1" }, want: "requested by"},
		"scheduler asks to be an agent": {change: func(_ *testing.T, c csr) { c.Spec.Username = "system:serviceaccount:drover-system:drover-scheduler" }, want: "requested by"},
		"node does not exist":           {node: &Node{}, want: "does not exist"},
		"UID of a node that was":        {node: &Node{Name: "n1", UID: "uid-new"}, want: "UID"},
		"another node object":           {node: &Node{Name: "n2", UID: "uid-1"}, want: "does not exist"},
		"address of another node":       {change: edit(node1, func(r *x509.CertificateRequest) { r.IPAddresses = []net.IP{net.ParseIP("10.0.0.2")} }), want: "no address"},
		"loopback":                      {change: edit(node1, func(r *x509.CertificateRequest) { r.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} }), want: "no address"},
		"DNS name":                      {change: edit(node1, func(r *x509.CertificateRequest) { r.DNSNames = []string{"kubernetes.default.svc"} }), want: "DNS"},
		"e-mail name":                   {change: edit(node1, func(r *x509.CertificateRequest) { r.EmailAddresses = []string{"a@b"} }), want: "DNS or e-mail"},
		"two URIs":                      {change: edit(node1, func(r *x509.CertificateRequest) { r.URIs = append(r.URIs, node2.URI()) }), want: "URI names"},
		"no URI":                        {change: edit(node1, func(r *x509.CertificateRequest) { r.URIs = nil }), want: "URI names"},
		"URI of another node":           {change: edit(node1, func(r *x509.CertificateRequest) { r.URIs = []*url.URL{node2.URI()} }), want: "differ"},
		"URI of another scheme":         {change: edit(node1, func(r *x509.CertificateRequest) { r.URIs[0].Scheme = "spiffe" }), want: "neither"},
		"URI with a query":              {change: edit(node1, func(r *x509.CertificateRequest) { r.URIs[0].RawQuery = "x" }), want: "neither"},
		"URI with a user":               {change: edit(node1, func(r *x509.CertificateRequest) { r.URIs[0].User = url.User("n2") }), want: "neither"},
		"URI with more path":            {change: edit(node1, func(r *x509.CertificateRequest) { r.URIs[0].Path += "/x" }), want: "neither"},
		"URI without a UID":             {change: edit(node1, func(r *x509.CertificateRequest) { r.URIs[0].Path = "/n1/" }), want: "neither"},
		"another common name":           {change: edit(node1, func(r *x509.CertificateRequest) { r.Subject.CommonName = "system:admin" }), want: "differ"},
		"group in the subject":          {change: edit(node1, func(r *x509.CertificateRequest) { r.Subject.Organization = []string{"system:masters"} }), want: "alone"},
		"a CA": {change: edit(node1, func(r *x509.CertificateRequest) {
			r.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}}
		}), want: "extension"},
		"another kind of key": {change: func(t *testing.T, c csr) {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			raw(t, c, key, template(node1))
		}, want: "Ed25519"},
		"one usage more":    {change: func(_ *testing.T, c csr) { c.Spec.Usages = append(c.Spec.Usages, certificatesv1.UsageCertSign) }, want: "usages"},
		"one usage less":    {change: func(_ *testing.T, c csr) { c.Spec.Usages = c.Spec.Usages[1:] }, want: "usages"},
		"a usage twice":     {change: func(_ *testing.T, c csr) { c.Spec.Usages[0] = c.Spec.Usages[1] }, want: "usages"},
		"signature changed": {change: func(t *testing.T, c csr) { c.Spec.Request = spoiled(t, c.Spec.Request) }, want: "own key"},
		"no PEM":            {change: func(_ *testing.T, c csr) { c.Spec.Request = []byte("x") }, want: "no PEM"},
		"a certificate":     {change: func(_ *testing.T, c csr) { c.Spec.Request = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE"}) }, want: "no PEM"},
		"two requests":      {change: func(_ *testing.T, c csr) { c.Spec.Request = append(c.Spec.Request, c.Spec.Request...) }, want: "more than one"},
		"no DER": {change: func(_ *testing.T, c csr) {
			c.Spec.Request = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST"})
		}, want: "parse"},
		"observer of another pod": {subject: watcher, change: func(_ *testing.T, c csr) {
			c.Spec.Extra[extraPodName] = certificatesv1.ExtraValue{"other"}
		}, want: "pod-name"},
		"agent asks to be an observer": {subject: watcher, change: func(_ *testing.T, c csr) {
			c.Spec.Username = "system:serviceaccount:drover-system:drover-agent"
		}, want: "requested by"},
		"observer with an address": {subject: watcher, change: edit(watcher, func(r *x509.CertificateRequest) { r.IPAddresses = []net.IP{net.ParseIP("10.0.0.1")} }), want: "no IP"},
	} {
		t.Run(name, func(t *testing.T) {
			subject, node := node1, object1
			if test.subject != (identity.Subject{}) {
				subject = test.subject
			}
			if test.node != nil {
				node = test.node
			}
			c := asked(t, subject)
			if test.change != nil {
				test.change(t, c)
			}
			g, err := Judge(c, node, namespace)
			if err == nil {
				t.Fatalf("granted %+v", g)
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("denied because %q, want a word about %q", err, test.want)
			}
		})
	}
}

func spoiled(t *testing.T, b []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(b)
	block.Bytes[len(block.Bytes)-1] ^= 1
	return pem.EncodeToMemory(block)
}

func TestLifeIsBounded(t *testing.T) {
	seconds := func(s int32) *int32 { return &s }
	for _, test := range []struct {
		asked *int32
		want  time.Duration
	}{{nil, MaxLife}, {seconds(1), MinLife}, {seconds(3600), time.Hour}, {seconds(1 << 30), MaxLife}, {seconds(-5), MinLife}} {
		if got := life(test.asked); got != test.want {
			t.Errorf("life of %v: %v, want %v", test.asked, got, test.want)
		}
	}
}

func TestSignedCertificateIsWhatWasGranted(t *testing.T) {
	ca := identitytest.NewAuthority(t)
	authority, err := NewAuthority(ca.PEM(t))
	if err != nil {
		t.Fatal(err)
	}
	key, now := newKey(t), time.Now()
	g := &Grant{Subject: node1, PublicKey: key.Public().(ed25519.PublicKey), IPs: []net.IP{net.ParseIP("10.0.0.1").To4()}, Life: time.Hour}
	b, err := authority.Sign(g, now)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := identity.Verify(cert, ca.Pool(), now); err != nil || s != node1 {
		t.Errorf("verifies as %v, %v", s, err)
	}
	if cert.IsCA || len(cert.DNSNames) > 0 || len(cert.IPAddresses) != 1 || cert.NotAfter.After(now.Add(time.Hour)) {
		t.Errorf("CA %v, DNS %v, IP %v, until %v", cert.IsCA, cert.DNSNames, cert.IPAddresses, cert.NotAfter)
	}
	if _, err := identity.Verify(cert, ca.Pool(), now.Add(2*time.Hour)); err == nil {
		t.Error("still good after its life")
	}
	if _, err := authority.Sign(g, ca.Cert.NotAfter); err == nil {
		t.Error("a CA that is over has signed")
	}
}

func TestNewAuthorityWantsACA(t *testing.T) {
	ca := identitytest.NewAuthority(t)
	cert, key := ca.PEM(t)
	leaf := ca.Node(t, "n1")
	der, err := x509.MarshalPKCS8PrivateKey(leaf.Key)
	if err != nil {
		t.Fatal(err)
	}
	leafCert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Cert.Raw})
	leafKey := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	for name, pair := range map[string][2][]byte{"a leaf": {leafCert, leafKey}, "another's key": {cert, leafKey}, "nothing": {nil, key}} {
		if _, err := NewAuthority(pair[0], pair[1]); err == nil {
			t.Errorf("%s was taken for a CA", name)
		}
	}
}
