package gossip

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/model"
)

// result is what became of a record; it is also the label of the metric.
type result string

const (
	accepted       result = "accepted"
	duplicate      result = "duplicate"
	stale          result = "stale"           // older than what is known: late, or replayed
	future         result = "future"          // its version is a clock more than a day ahead
	malformed      result = "malformed"       //
	oversized      result = "oversized"       //
	unknownKey     result = "unknown_key"     // its certificate has not come yet
	badCertificate result = "bad_certificate" // not from Drover's CA, or over
	badSignature   result = "bad_signature"   //
	wrongOrigin    result = "wrong_origin"    // says it is from another node than its certificate's
	notEntitled    result = "not_entitled"    // the origin may not say such a thing
)

var results = []result{accepted, duplicate, stale, future, malformed, oversized, unknownKey,
	badCertificate, badSignature, wrongOrigin, notEntitled}

const (
	// maxAhead: a version is a time in nanoseconds. One from the far future could never be
	// replaced, so it is refused.
	maxAhead = 24 * time.Hour
	// certificatesPerNode bounds what one node can make others remember.
	certificatesPerNode = 4
	// deadRetention is how long a node that is gone stays in the picture.
	deadRetention = time.Hour
)

// slot is where a record is kept: of two records for one slot the newer stays.
type slot struct {
	kind   kind
	origin model.NodeID
	// name tells records of one kind and origin apart: key, part, or lineage and epoch.
	name string
}

// certificate is one that was verified.
type certificate struct {
	raw     []byte
	version uint64
	cert    *x509.Certificate
	uid     string // of the Node object
}

// nodeEntry is all that is known from one node.
type nodeEntry struct {
	certs      map[keyID]certificate
	state      *stateBody
	raw        []byte // of state
	version    uint64 // of state
	received   time.Time
	parts      map[int]partEntry
	newestPart uint64             // its version
	merged     *model.NodeState   // state with routes, immutable; nil when it must be made anew
	said       map[string]*saying // locations it announced, by lineage and epoch
}

type partEntry struct {
	routesBody
	raw     []byte
	version uint64
}

// store keeps the newest verified record of every slot. It is pure but for the codec and
// not safe for concurrent use; Gossip guards it.
type store struct {
	roots     *x509.CertPool
	codec     *codec
	confirmer Confirmer
	nodes     map[model.NodeID]*nodeEntry
	// placesChanged: confirmedPlaces would give another answer than last time.
	placesChanged bool
}

func newStore(roots *x509.CertPool, c *codec, confirmer Confirmer) *store {
	return &store{roots: roots, codec: c, confirmer: confirmer, nodes: map[model.NodeID]*nodeEntry{}}
}

// ingest takes one record in. The slot and the version are set when the record was
// decoded so far.
func (s *store) ingest(raw []byte, now time.Time) (slot, uint64, result) {
	r, err := open(raw)
	switch {
	case err == errOversized:
		return slot{}, 0, oversized
	case err != nil:
		return slot{}, 0, malformed
	case r.kind != kindCertificate && r.version > uint64(now.Add(maxAhead).UnixNano()):
		return slot{}, 0, future
	case r.kind == kindCertificate:
		return s.ingestCertificate(r, now)
	}
	entry := s.nodes[r.origin]
	if entry == nil {
		return slot{}, 0, unknownKey
	}
	c, ok := entry.certs[r.key]
	if !ok {
		return slot{}, 0, unknownKey
	}
	if now.After(c.cert.NotAfter) {
		return slot{}, 0, badCertificate
	}
	if at, is := entry.has(r); is {
		return at, r.version, duplicate
	}
	if !r.signedBy(c.cert.PublicKey.(ed25519.PublicKey)) {
		return slot{}, 0, badSignature
	}
	switch r.kind {
	case kindState:
		return s.ingestState(entry, r, now)
	case kindRoutes:
		return s.ingestRoutes(entry, r)
	case kindLocation:
		return s.ingestLocation(entry, r, now)
	}
	return slot{}, 0, malformed
}

func (s *store) ingestCertificate(r record, now time.Time) (slot, uint64, result) {
	cert, err := x509.ParseCertificate(r.body)
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
	subject, err := identity.Verify(cert, s.roots, now)
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
	if id != r.key || r.version != certificateVersion(cert) || !r.signedBy(cert.PublicKey.(ed25519.PublicKey)) {
		return at, 0, badSignature
	}
	if entry == nil {
		entry = newNodeEntry()
		s.nodes[r.origin] = entry
	}
	s.placesChanged = true // a new Node object takes back what the old one said
	return at, r.version, entry.addCertificate(r.key, certificate{raw: r.raw, version: r.version, cert: cert, uid: subject.NodeUID})
}

// has finds the very bytes of a record among those of the state and its routes, which were
// verified: each is heard several times, and to verify and decode it again is dear.
func (e *nodeEntry) has(r record) (slot, bool) {
	switch r.kind {
	case kindState:
		return slot{kindState, r.origin, ""}, bytes.Equal(e.raw, r.raw)
	case kindRoutes:
		for i, p := range e.parts {
			if p.version == r.version && bytes.Equal(p.raw, r.raw) {
				return slot{kindRoutes, r.origin, strconv.Itoa(i)}, true
			}
		}
	}
	return slot{}, false
}

// certificateVersion makes a renewed certificate for the same key the newer one.
func certificateVersion(cert *x509.Certificate) uint64 { return uint64(cert.NotAfter.Unix()) }

func newNodeEntry() *nodeEntry {
	return &nodeEntry{certs: map[keyID]certificate{}, parts: map[int]partEntry{}, said: map[string]*saying{}}
}

// addCertificate keeps the newest few. When the Node object was deleted and made again,
// under another UID, nothing counts any more that the old one said.
func (e *nodeEntry) addCertificate(id keyID, c certificate) result {
	for _, other := range e.certs {
		if other.uid == c.uid {
			continue
		}
		if other.cert.NotBefore.After(c.cert.NotBefore) {
			return stale
		}
		*e = *newNodeEntry()
		break
	}
	e.certs[id] = c
	for len(e.certs) > certificatesPerNode {
		e.dropOldestCertificate()
	}
	return accepted
}

func (e *nodeEntry) dropOldestCertificate() {
	var oldest keyID
	var at time.Time
	for id, c := range e.certs {
		if at.IsZero() || c.cert.NotBefore.Before(at) {
			oldest, at = id, c.cert.NotBefore
		}
	}
	delete(e.certs, oldest)
}

// all lists every record for a push/pull, certificates first: what comes after them can
// be verified at once.
func (s *store) all() [][]byte {
	var certs, rest [][]byte
	for _, e := range s.nodes {
		for _, c := range e.certs {
			certs = append(certs, c.raw)
		}
		if e.state != nil {
			rest = append(rest, e.raw)
		}
		for _, p := range e.parts {
			rest = append(rest, p.raw)
		}
		for _, l := range e.said {
			rest = append(rest, l.raw)
		}
	}
	return append(certs, rest...)
}

// from lists the records of one origin, certificates first.
func (s *store) from(origin model.NodeID) map[slot][]byte {
	out := map[slot][]byte{}
	e := s.nodes[origin]
	if e == nil {
		return out
	}
	for id, c := range e.certs {
		out[slot{kindCertificate, origin, string(id[:])}] = c.raw
	}
	if e.state != nil {
		out[slot{kindState, origin, ""}] = e.raw
	}
	for i, p := range e.parts {
		out[slot{kindRoutes, origin, strconv.Itoa(i)}] = p.raw
	}
	return out
}

// sweep forgets expired certificates, nodes that are gone for long, and old locations.
func (s *store) sweep(now time.Time, alive func(model.NodeID) bool) {
	for name, e := range s.nodes {
		for id, c := range e.certs {
			if now.After(c.cert.NotAfter) {
				delete(e.certs, id)
			}
		}
		if !alive(name) && now.Sub(e.received) > deadRetention {
			e.state, e.raw, e.merged = nil, nil, nil
			clear(e.parts)
		}
		s.sweepLocations(e, now)
		if len(e.certs) == 0 && e.state == nil && len(e.said) == 0 {
			delete(s.nodes, name)
		}
	}
}

// nodeIDs lists the nodes that have said anything, sorted.
func (s *store) nodeIDs() []model.NodeID {
	ids := make([]model.NodeID, 0, len(s.nodes))
	for id := range s.nodes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (at slot) String() string { return fmt.Sprintf("%d/%s/%x", at.kind, at.origin, at.name) }
