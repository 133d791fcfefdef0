package gossip

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/model"
)

// kind tells what a record's body holds.
type kind byte

const (
	kindCertificate  kind = 1  // an x509 certificate, DER
	kindLocation     kind = 4  // model.Location, JSON
	kindRegistration kind = 5  // registrationBody, JSON
	kindRoutes       kind = 6  // partBody of waysTo, JSON
	kindSuffering    kind = 7  // of model.Contention, JSON
	kindPods         kind = 8  // partBody of podName, JSON
	kindLoad         kind = 9  // in a wire form of its own: see load.go
	kindTalk         kind = 10 // partBody of talking, JSON
)

// known: 2 and 3 were the state and routes of agents before loads had records of their own.
func (k kind) known() bool {
	return k == kindCertificate || k >= kindLocation && k <= kindTalk
}

// keyID names a public key: the first half of the SHA-256 of its bytes.
type keyID [16]byte

func keyIDOf(cert *x509.Certificate) (keyID, bool) {
	pub, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok {
		return keyID{}, false
	}
	sum := sha256.Sum256(pub)
	return keyID(sum[:16]), true
}

// record is what travels. But for loads its wire form is, all integers big endian or varint:
//
//	format 1 byte | kind 1 | key 16 | version 8 | len origin | origin | len body | body | signature 64
//
// The signature covers signingContext and everything before it.
type record struct {
	kind    kind
	key     keyID
	version uint64
	origin  model.NodeID
	body    []byte
	raw     []byte
}

const (
	wireFormat = 1
	// maxRecord is the size above which a record is thrown away unread.
	maxRecord = 256 << 10
	// maxName is the longest name of a Kubernetes object.
	maxName = 253
	// signingContext keeps a signature from being taken for one of another protocol.
	signingContext = "drover gossip record v1\x00"

	headerSize = 1 + 1 + 16 + 8
)

var (
	errMalformed = errors.New("malformed record")
	errOversized = errors.New("oversized record")
)

// seal signs a record with id's key and encodes it.
func seal(id *identity.Identity, k kind, version uint64, body []byte) ([]byte, error) {
	key, ok := keyIDOf(id.Cert)
	if !ok {
		return nil, fmt.Errorf("seal record: key of %s is not Ed25519", id.Subject)
	}
	b := append([]byte{wireFormat, byte(k)}, key[:]...)
	b = binary.BigEndian.AppendUint64(b, version)
	b = binary.AppendUvarint(b, uint64(len(id.Subject.Node)))
	b = append(b, id.Subject.Node...)
	b = binary.AppendUvarint(b, uint64(len(body)))
	b = append(b, body...)
	b = append(b, id.Sign(signed(b))...)
	if len(b) > maxRecord {
		return nil, fmt.Errorf("seal record: %d bytes, at most %d are taken: %w", len(b), maxRecord, errOversized)
	}
	return b, nil
}

// open decodes the wire form without verifying the signature. The record keeps b.
func open(b []byte) (record, error) {
	if len(b) > maxRecord {
		return record{}, errOversized
	}
	if isLoad(b) {
		return openLoad(b)
	}
	if len(b) < headerSize+ed25519.SignatureSize || b[0] != wireFormat {
		return record{}, errMalformed
	}
	if kind(b[1]) == kindLoad {
		return record{}, errMalformed
	}
	r := record{kind: kind(b[1]), key: keyID(b[2:18]), version: binary.BigEndian.Uint64(b[18:26]), raw: b}
	rest := b[headerSize : len(b)-ed25519.SignatureSize]
	origin, rest, ok := cut(rest, maxName)
	if !ok || len(origin) == 0 {
		return record{}, errMalformed
	}
	body, rest, ok := cut(rest, maxRecord)
	if !ok || len(rest) != 0 {
		return record{}, errMalformed
	}
	r.origin, r.body = model.NodeID(origin), body
	return r, nil
}

// cut takes a length and that many bytes off b.
func cut(b []byte, limit uint64) (head, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > limit || n > uint64(len(b)-size) {
		return nil, nil, false
	}
	return b[size : size+int(n)], b[size+int(n):], true
}

// signedBy verifies the record's signature.
func (r record) signedBy(pub ed25519.PublicKey, v Verifier) bool {
	at := len(r.raw) - ed25519.SignatureSize
	return v.Signature(pub, signed(r.raw[:at]), r.raw[at:])
}

func signed(b []byte) []byte {
	return append([]byte(signingContext), b...)
}
