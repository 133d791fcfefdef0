package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/drover-project/drover/internal/model"
)

// ServerConfig is the TLS configuration of an agent's server: it shows the certificate
// of the moment and lets in only holders of a certificate of Drover's CA.
func (k *Keeper) ServerConfig() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return k.certificate() },
		ClientAuth:     tls.RequireAnyClientCert,
		// VerifyConnection also runs on resumed sessions, VerifyPeerCertificate does not.
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := k.verifyPeer(cs)
			return err
		},
	}
}

// ClientConfig is the TLS configuration for calling the agent of one node. What is
// checked is the node in the certificate's URI name, not a host name: addresses change
// hands, a Node object's UID does not.
func (k *Keeper) ClientConfig(expected model.NodeID) *tls.Config {
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return k.certificate() },
		// The standard check wants a host name; VerifyConnection below takes its place.
		InsecureSkipVerify: true, //nolint:gosec
		VerifyConnection: func(cs tls.ConnectionState) error {
			s, err := k.verifyPeer(cs)
			if err != nil {
				return err
			}
			if s.Node != expected {
				return fmt.Errorf("peer is %s, want node %q", s, expected)
			}
			return nil
		},
	}
}

func (k *Keeper) certificate() (*tls.Certificate, error) {
	id := k.Current()
	if id == nil {
		return nil, fmt.Errorf("%s has no certificate yet", k.cfg.Subject)
	}
	return &tls.Certificate{Certificate: [][]byte{id.Cert.Raw}, PrivateKey: id.Key, Leaf: id.Cert}, nil
}

func (k *Keeper) verifyPeer(cs tls.ConnectionState) (Subject, error) {
	if len(cs.PeerCertificates) == 0 {
		return Subject{}, errors.New("peer shows no certificate")
	}
	return Verify(cs.PeerCertificates[0], k.cfg.Roots, time.Now())
}

// PeerNode is the node whose agent makes the gRPC call of ctx. It is an error when the
// call did not come over TLS with ServerConfig, or comes from an observer.
func PeerNode(ctx context.Context) (model.NodeID, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "", errors.New("call has no peer")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return "", fmt.Errorf("caller %v is not authenticated by TLS", p.Addr)
	}
	s, err := CertificateSubject(info.State.PeerCertificates[0])
	if err != nil {
		return "", fmt.Errorf("caller %v: %w", p.Addr, err)
	}
	if !s.IsNode() {
		return "", fmt.Errorf("caller %v is %s, which is no node's agent", p.Addr, s)
	}
	return s.Node, nil
}
