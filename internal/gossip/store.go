package gossip

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

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
	unknownKind    result = "unknown_kind"    // of an agent of another version
	unknownKey     result = "unknown_key"     // its certificate has not come yet
	badCertificate result = "bad_certificate" // not from Drover's CA, or over
	badSignature   result = "bad_signature"   //
	wrongOrigin    result = "wrong_origin"    // says it is from another node than its certificate's
	notEntitled    result = "not_entitled"    // the origin may not say such a thing
	limited        result = "limited"         // the origin has said too much: see allowance
)

var results = []result{accepted, duplicate, stale, future, malformed, oversized, unknownKind, unknownKey,
	badCertificate, badSignature, wrongOrigin, notEntitled, limited}

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

func (at slot) String() string { return fmt.Sprintf("%d/%s/%x", at.kind, at.origin, at.name) }

// slotID names a slot among members: the first bytes of SHA-256s, of the origin and of the
// whole, so that nobody makes a slot of his own that hides another's. In order, the slots of one
// origin follow each other, those of its certificates first: they are needed for all others.
type slotID uint64

func (at slot) id() slotID {
	b := append([]byte{byte(at.kind)}, binary.AppendUvarint(nil, uint64(len(at.origin)))...)
	b = append(append(b, at.origin...), at.name...)
	origin, whole := sha256.Sum256([]byte(at.origin)), sha256.Sum256(b)
	id := uint64(binary.BigEndian.Uint32(origin[:]))<<32 | uint64(binary.BigEndian.Uint32(whole[:])>>1)
	if at.kind != kindCertificate {
		id |= 1 << 31
	}
	return slotID(id)
}

// kept is a record that was verified.
type kept struct {
	slot    slot
	id      slotID
	version uint64
	raw     []byte
}

func keep(at slot, r record) kept { return kept{slot: at, id: at.id(), version: r.version, raw: r.raw} }

// nodeEntry is all that is known from one node.
type nodeEntry struct {
	certs map[keyID]*certificate
	report
	said      map[string]*saying // locations it announced, by lineage and epoch
	forgotten oblivion
	allowance allowance
}

func newNodeEntry() *nodeEntry {
	return &nodeEntry{certs: map[keyID]*certificate{}, report: newReport(), said: map[string]*saying{}}
}

// each goes through its records.
func (e *nodeEntry) each(yield func(*kept) bool) {
	for _, c := range e.certs {
		if !yield(&c.kept) {
			return
		}
	}
	for k := range e.report.each {
		if !yield(k) {
			return
		}
	}
	for _, l := range e.said {
		if !yield(&l.kept) {
			return
		}
	}
}

// store keeps the newest verified record of every slot. It is pure but for the codec and
// not safe for concurrent use; Gossip guards it.
type store struct {
	self      model.NodeID // whose words have no bounds; empty: nobody's
	roots     *x509.CertPool
	codec     *codec
	confirmer Confirmer
	verifier  Verifier
	nodes     map[model.NodeID]*nodeEntry
	records   map[slotID]*kept             // all that nodes hold
	keys      map[keyPrefix][]*certificate // likewise
	// placesChanged: confirmedPlaces would give another answer than last time.
	placesChanged bool
}

func newStore(roots *x509.CertPool, c *codec, confirmer Confirmer) *store {
	return &store{roots: roots, codec: c, confirmer: confirmer, verifier: verifier{}, nodes: map[model.NodeID]*nodeEntry{},
		records: map[slotID]*kept{}, keys: map[keyPrefix][]*certificate{}}
}

// put makes a record known that its node's entry holds now, in place of the one for its slot.
func (s *store) put(k *kept) { s.records[k.id] = k }

// remove is for a record that its node's entry holds no more.
func (s *store) remove(k *kept) { delete(s.records, k.id) }

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
	case !r.kind.known():
		return slot{}, 0, unknownKind
	}
	if at, is := s.has(r); is {
		return at, r.version, duplicate
	}
	c, got := s.signer(r, now)
	if got != accepted {
		return slot{}, 0, got
	}
	r.origin = c.slot.origin
	entry := s.nodes[r.origin]
	if r.origin != s.self && !entry.allowance.allows(raw, now) {
		return slot{}, 0, limited
	}
	at, version, got := s.ingestSaid(entry, r, now)
	if got == accepted {
		entry.allowance.spend(raw)
	}
	return at, version, got
}

// ingestSaid takes in what a node has signed.
func (s *store) ingestSaid(e *nodeEntry, r record, now time.Time) (slot, uint64, result) {
	if r.kind == kindLocation {
		return s.ingestLocation(e, r, now)
	}
	return s.ingestReport(e, r, now)
}

// get gives the record of a slot.
func (s *store) get(id slotID) (raw []byte, held bool) {
	k, held := s.records[id]
	if !held {
		return nil, false
	}
	return k.raw, true
}

// sweep forgets expired certificates, nodes that are gone for long, and old locations.
func (s *store) sweep(now time.Time, alive func(model.NodeID) bool) {
	for name, e := range s.nodes {
		for id, c := range e.certs {
			if now.After(c.cert.NotAfter) {
				s.dropCertificate(e, id)
			}
		}
		if !alive(name) && now.Sub(e.received()) > deadRetention {
			s.forget(e, now)
		}
		s.sweepLocations(e, now)
		if len(e.certs) == 0 && e.report.empty() && len(e.said) == 0 {
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

func versus(got, known uint64) result {
	if got == known {
		return duplicate
	}
	return stale
}
