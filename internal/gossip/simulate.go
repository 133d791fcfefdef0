package gossip

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"sync"
	"time"

	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/model"
)

// Simulation lets many members run in one process, and tells what each takes in. A cluster's
// members have none.
type Simulation struct {
	// Verifier is shared by the members, so that what all of them hear is verified once.
	Verifier Verifier
	// Shared may be nil.
	Shared *Shared
	// Accepted is told each record that a member takes in, its own too. It is called under
	// the member's lock: it must not call back.
	Accepted func(Record)
	// DrawSpace, if not 0, is the least time between two pictures in the place of what is
	// usual, also when the member itself has said something.
	DrawSpace time.Duration
}

// Shared is what members would each have for themselves, so that more of them fit into memory.
type Shared struct {
	codec   *codec
	mu      sync.Mutex
	records map[string][]byte
}

// NewShared makes what the members of one cluster share.
func NewShared() (*Shared, error) {
	c, err := newCodec()
	return &Shared{codec: c, records: map[string][]byte{}}, err
}

// sharedRecords bounds the records that are found again.
const sharedRecords = 1 << 16

func (s *Shared) clone(raw []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept, is := s.records[string(raw)]
	if !is {
		if len(s.records) >= sharedRecords {
			clear(s.records)
		}
		kept = bytes.Clone(raw)
		s.records[string(kept)] = kept
	}
	return kept
}

// clone gives a copy of what somebody else owns.
func (g *Gossip) clone(raw []byte) []byte {
	if s := g.cfg.Simulation; s != nil && s.Shared != nil {
		return s.Shared.clone(raw)
	}
	return bytes.Clone(raw)
}

// Record is one that was verified, and newer than what was known.
type Record struct {
	Kind    string
	Origin  model.NodeID
	Version uint64
	Bytes   int
}

// Verifier checks what others have signed.
type Verifier interface {
	Parse(der []byte) (*x509.Certificate, error)
	// Certificate is identity.Verify.
	Certificate(cert *x509.Certificate, roots *x509.CertPool, now time.Time) (identity.Subject, error)
	// Signature is ed25519.Verify.
	Signature(key ed25519.PublicKey, message, signature []byte) bool
}

// verifier remembers nothing.
type verifier struct{}

func (verifier) Parse(der []byte) (*x509.Certificate, error) { return x509.ParseCertificate(der) }

func (verifier) Certificate(cert *x509.Certificate, roots *x509.CertPool, now time.Time) (identity.Subject, error) {
	return identity.Verify(cert, roots, now)
}

func (verifier) Signature(key ed25519.PublicKey, message, signature []byte) bool {
	return ed25519.Verify(key, message, signature)
}

// simulate puts the simulation's verifier into the store.
func (g *Gossip) simulate() {
	if s := g.cfg.Simulation; s != nil && s.Verifier != nil {
		g.store.verifier = s.Verifier
	}
}

// codecFor is a new one, or that which simulated members share.
func codecFor(s *Simulation) (*codec, error) {
	if s != nil && s.Shared != nil {
		return s.Shared.codec, nil
	}
	return newCodec()
}

var kindNames = map[kind]string{
	kindCertificate: "certificate", kindLocation: "location", kindRegistration: "registration", kindRoutes: "routes",
	kindSuffering: "suffering", kindPods: "pods", kindLoad: "load", kindTalk: "talk",
}

// KindOf tells of which kind a record is, as in Record; "unknown" if it is none.
func KindOf(raw []byte) string {
	r, err := open(raw)
	if name, known := kindNames[r.kind]; err == nil && known {
		return name
	}
	return "unknown"
}

// drawSpace is the least time between two pictures of so many nodes.
func (g *Gossip) drawSpace(nodes int) time.Duration {
	if s := g.cfg.Simulation; s != nil && s.DrawSpace > 0 {
		return s.DrawSpace
	}
	return min(drawSpace*time.Duration(nodes), longestDraw)
}

// drawsOwn tells whether the member has said something that is to be in the picture at once.
func (g *Gossip) drawsOwn() bool {
	return g.own && (g.cfg.Simulation == nil || g.cfg.Simulation.DrawSpace == 0)
}

// tell is called for each record that was accepted.
func (g *Gossip) tell(at slot, version uint64, raw []byte) {
	if s := g.cfg.Simulation; s != nil && s.Accepted != nil {
		s.Accepted(Record{kindNames[at.kind], at.origin, version, len(raw)})
	}
}
