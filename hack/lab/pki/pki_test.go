package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"testing"
	"time"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func parse(t *testing.T, p Pair) *x509.Certificate {
	t.Helper()
	b, _ := pem.Decode(p.Cert)
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestIssue(t *testing.T) {
	ca, err := NewCA("test", now)
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewCA("test", now) // same name, other key
	if err != nil {
		t.Fatal(err)
	}
	client, server := x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth
	for _, test := range []struct {
		name     string
		request  Request
		usage    x509.ExtKeyUsage
		host     string
		at       time.Time
		valid    bool
		issuedBy *CA
	}{
		{"client", Request{CommonName: "system:node:n1", Organization: []string{"system:nodes"}}, client, "", now, true, ca},
		{"server by address", Request{CommonName: "api", Hosts: []string{"10.0.0.1", "api"}}, server, "10.0.0.1", now, true, ca},
		{"server by name", Request{CommonName: "api", Hosts: []string{"10.0.0.1", "api"}}, server, "api", now, true, ca},
		{"server by another name", Request{CommonName: "api", Hosts: []string{"api"}}, server, "other", now, false, ca},
		{"a client's is no server's", Request{CommonName: "c"}, server, "", now, false, ca},
		{"clock behind", Request{CommonName: "c"}, client, "", now.Add(-30 * time.Minute), true, ca},
		{"expired", Request{CommonName: "c"}, client, "", now.Add(400 * 24 * time.Hour), false, ca},
		{"another lab's", Request{CommonName: "c"}, client, "", now, false, other},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := test.issuedBy.Issue(test.request, now)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tls.X509KeyPair(p.Cert, p.Key); err != nil {
				t.Errorf("certificate and key do not match: %v", err)
			}
			c := parse(t, p)
			if c.Subject.CommonName != test.request.CommonName || !slices.Equal(c.Subject.Organization, test.request.Organization) {
				t.Errorf("got subject %v, want %v", c.Subject, test.request)
			}
			roots := x509.NewCertPool()
			roots.AddCert(parse(t, ca.Pair))
			_, err = c.Verify(x509.VerifyOptions{
				Roots: roots, CurrentTime: test.at, DNSName: test.host, KeyUsages: []x509.ExtKeyUsage{test.usage},
			})
			if (err == nil) != test.valid {
				t.Errorf("got %v, want valid %t", err, test.valid)
			}
		})
	}
}

// A certificate that was issued cannot issue others.
func TestIssuedIsNoCA(t *testing.T) {
	ca, err := NewCA("test", now)
	if err != nil {
		t.Fatal(err)
	}
	p, err := ca.Issue(Request{CommonName: "c"}, now)
	if err != nil {
		t.Fatal(err)
	}
	if parse(t, p).IsCA || !parse(t, ca.Pair).IsCA {
		t.Error("only the CA may be a CA")
	}
	if _, err := LoadCA(Pair{Cert: []byte("x"), Key: p.Key}); err == nil {
		t.Error("nonsense was read as a CA")
	}
}
