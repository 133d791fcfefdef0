package gossip

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/x509"
	"maps"
	"slices"
	"time"
)

// certificate is one that was verified.
type certificate struct {
	kept
	key  keyID
	cert *x509.Certificate
	uid  string // of the Node object
}

func (c *certificate) public() ed25519.PublicKey { return c.cert.PublicKey.(ed25519.PublicKey) }

// signer finds whose certificate a record is signed with.
func (s *store) signer(r record, now time.Time) (*certificate, result) {
	if r.kind == kindLoad {
		return s.loadSigner(r, now)
	}
	entry := s.nodes[r.origin]
	if entry == nil {
		return nil, unknownKey
	}
	c, ok := entry.certs[r.key]
	switch {
	case !ok:
		return nil, unknownKey
	case now.After(c.cert.NotAfter):
		return nil, badCertificate
	case !r.signedBy(c.public(), s.verifier):
		return nil, badSignature
	}
	return c, accepted
}

// loadSigner tries every key that begins as the record says.
func (s *store) loadSigner(r record, now time.Time) (*certificate, result) {
	why := unknownKey
	for _, c := range s.keys[r.prefix()] {
		switch {
		case !r.loadSignedBy(c.public(), c.key, c.slot.origin, s.verifier):
			why = badSignature
		case now.After(c.cert.NotAfter):
			return nil, badCertificate
		default:
			return c, accepted
		}
	}
	return nil, why
}

func (s *store) ingestCertificate(r record, now time.Time) (slot, uint64, result) {
	cert, err := s.verifier.Parse(r.body)
	if err != nil {
		return slot{}, 0, malformed
	}
	at := slot{kindCertificate, r.origin, string(r.key[:])}
	entry := s.nodes[r.origin]
	if entry != nil {
		if known, ok := entry.certs[r.key]; ok && known.version >= r.version {
			return at, r.version, versus(r.version, known.version)
		}
	}
	subject, err := s.verifier.Certificate(cert, s.roots, now)
	if err != nil {
		return at, 0, badCertificate
	}
	if !subject.IsNode() {
		return at, 0, notEntitled
	}
	if subject.Node != r.origin {
		return at, 0, wrongOrigin
	}
	id, _ := keyIDOf(cert) // Verify has checked the kind of key
	if id != r.key || r.version != certificateVersion(cert) || !r.signedBy(cert.PublicKey.(ed25519.PublicKey), s.verifier) {
		return at, 0, badSignature
	}
	if entry == nil {
		entry = newNodeEntry()
		s.nodes[r.origin] = entry
	}
	s.placesChanged = true // a new Node object takes back what the old one said
	return at, r.version, s.addCertificate(entry, &certificate{kept: keep(at, r), key: r.key, cert: cert, uid: subject.NodeUID})
}

// certificateVersion makes a renewed certificate for the same key the newer one.
func certificateVersion(cert *x509.Certificate) uint64 { return uint64(cert.NotAfter.Unix()) }

// addCertificate keeps the newest few. When the Node object was deleted and made again,
// under another UID, nothing counts any more that the old one said.
func (s *store) addCertificate(e *nodeEntry, c *certificate) result {
	for _, other := range e.certs {
		if other.uid == c.uid {
			continue
		}
		if cmp.Or(other.cert.NotBefore.Compare(c.cert.NotBefore), cmp.Compare(other.uid, c.uid)) > 0 {
			return stale
		}
		s.clear(e)
		break
	}
	if _, renewed := e.certs[c.key]; renewed {
		s.dropCertificate(e, c.key)
	}
	e.certs[c.key] = c
	s.put(&c.kept)
	at := keyPrefix(c.key[:])
	s.keys[at] = append(s.keys[at], c)
	for len(e.certs) > certificatesPerNode {
		s.dropOldestCertificate(e)
	}
	return accepted
}

// clear forgets all that a node said.
func (s *store) clear(e *nodeEntry) {
	for id := range e.certs {
		s.dropCertificate(e, id)
	}
	for k := range e.each {
		s.remove(k)
	}
	*e = *newNodeEntry()
}

func (s *store) dropOldestCertificate(e *nodeEntry) {
	oldest := slices.MinFunc(slices.Collect(maps.Values(e.certs)), func(a, b *certificate) int {
		return cmp.Or(a.cert.NotBefore.Compare(b.cert.NotBefore), bytes.Compare(a.key[:], b.key[:]))
	})
	s.dropCertificate(e, oldest.key)
}

func (s *store) dropCertificate(e *nodeEntry, id keyID) {
	c := e.certs[id]
	delete(e.certs, id)
	s.remove(&c.kept)
	at := keyPrefix(id[:])
	s.keys[at] = slices.DeleteFunc(s.keys[at], func(o *certificate) bool { return o == c })
	if len(s.keys[at]) == 0 {
		delete(s.keys, at)
	}
}
