package identity_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/identity/identitytest"
	"github.com/drover-project/drover/internal/model"
)

// holding is a keeper that has an identity already. Its File is read by Run, so it is
// given one through a signer that answers at once.
func holding(t *testing.T, ca *identitytest.Authority, id *identity.Identity) *identity.Keeper {
	t.Helper()
	file := filepath.Join(t.TempDir(), "identity.pem")
	if err := identity.SaveForTest(file, id); err != nil {
		t.Fatal(err)
	}
	k := identity.NewKeeper(identity.Config{Subject: id.Subject, Roots: ca.Pool(), File: file})
	t.Cleanup(run(k))
	if _, err := k.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	return k
}

// peerServer tells who calls.
type peerServer struct {
	agentv1.UnimplementedPeerServer
	callers chan caller
}

type caller struct {
	node model.NodeID
	err  error
}

func (p *peerServer) Put(s grpc.ClientStreamingServer[agentv1.PutRequest, agentv1.PutResponse]) error {
	node, err := identity.PeerNode(s.Context())
	p.callers <- caller{node, err}
	return s.SendAndClose(&agentv1.PutResponse{})
}

func serve(t *testing.T, opts ...grpc.ServerOption) (*peerServer, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, p := grpc.NewServer(opts...), &peerServer{callers: make(chan caller, 1)}
	agentv1.RegisterPeerServer(s, p)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return p, l.Addr().String()
}

func call(t *testing.T, addr string, creds credentials.TransportCredentials) error {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := agentv1.NewPeerClient(conn).Put(ctx)
	if err != nil {
		return err
	}
	_, err = s.CloseAndRecv()
	return err
}

func TestPeersKnowEachOther(t *testing.T) {
	ca, other := identitytest.NewAuthority(t), identitytest.NewAuthority(t)
	a, b := holding(t, ca, ca.Node(t, "a")), holding(t, ca, ca.Node(t, "b"))
	p, addr := serve(t, grpc.Creds(credentials.NewTLS(b.ServerConfig())))

	if err := call(t, addr, credentials.NewTLS(a.ClientConfig("b"))); err != nil {
		t.Fatal(err)
	}
	if c := <-p.callers; c.err != nil || c.node != "a" {
		t.Errorf("caller is %q, %v; want a", c.node, c.err)
	}
	observer := holding(t, ca, ca.Identity(t, identity.Subject{Observer: "o"}, nil))
	if err := call(t, addr, credentials.NewTLS(observer.ClientConfig("b"))); err != nil {
		t.Fatal(err)
	}
	if c := <-p.callers; c.err == nil {
		t.Errorf("an observer passed for node %q", c.node)
	}

	ends := ca.Identity(t, identity.Subject{Node: "a", NodeUID: "u"}, nil)
	anyone := func(cert *x509.Certificate, key any) *tls.Config {
		return &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}}
	}
	over := ca.Identity(t, ends.Subject, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) })
	forged := other.Node(t, "a")
	for name, c := range map[string]*tls.Config{
		"the server is another node":       a.ClientConfig("c"),
		"the client has no certificate":    {InsecureSkipVerify: true},
		"the client's is another CA's":     anyone(forged.Cert, forged.Key),
		"the client's is over":             anyone(over.Cert, over.Key),
		"the client shows the CA":          anyone(ca.Cert, ca.Key),
		"the client is not of this CA":     holding(t, other, other.Node(t, "a")).ClientConfig("b"),
		"the client speaks an older TLS":   {InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, Certificates: anyone(ends.Cert, ends.Key).Certificates},
		"the client has no identity (yet)": identity.NewKeeper(identity.Config{Subject: ends.Subject, Roots: ca.Pool()}).ClientConfig("b"),
	} {
		if err := call(t, addr, credentials.NewTLS(c)); err == nil {
			<-p.callers
			t.Errorf("%s: the call went through", name)
		}
	}
}

func TestPeerNodeWantsTLS(t *testing.T) {
	if node, err := identity.PeerNode(t.Context()); err == nil {
		t.Errorf("a call without a peer is from %q", node)
	}
	p, addr := serve(t)
	if err := call(t, addr, insecure.NewCredentials()); err != nil {
		t.Fatal(err)
	}
	if c := <-p.callers; c.err == nil {
		t.Errorf("a call without TLS is from %q", c.node)
	}
}

func TestSubjects(t *testing.T) {
	for _, s := range []identity.Subject{
		{Node: "n1", NodeUID: "0a1b"}, {Node: "ip-10-0-0-1.eu.internal", NodeUID: "u"}, {Observer: "drover-scheduler-0"},
	} {
		if got, err := identity.ParseSubject(s.CommonName(), nil); err == nil {
			t.Errorf("without a URI: %v", got)
		}
		u := s.URI()
		cert := &x509.Certificate{URIs: []*url.URL{u}}
		cert.Subject.CommonName = s.CommonName()
		if got, err := identity.CertificateSubject(cert); err != nil || got != s {
			t.Errorf("%v came back as %v, %v", s, got, err)
		}
		node, ok := identity.NodeOf(s.CommonName())
		if ok != s.IsNode() || node != s.Node {
			t.Errorf("node of %q: %q, %v", s.CommonName(), node, ok)
		}
	}
	if _, ok := identity.NodeOf("drover:node:"); ok {
		t.Error("a node without a name")
	}
}
