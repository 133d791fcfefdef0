package gossiptest

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"maps"
)

// Traffic is what one member has sent and received, in bytes with the headers of IP and
// UDP or TCP. What is lost counts as sent alone.
type Traffic struct {
	Sent, Received   int
	Packets, Streams int // sent, opened
	// Overflows are packets that came while the queue of those received was full.
	Overflows int
}

// Bytes are those of both directions.
func (t Traffic) Bytes() int { return t.Sent + t.Received }

// Sub gives what was added since before.
func (t Traffic) Sub(before Traffic) Traffic {
	return Traffic{t.Sent - before.Sent, t.Received - before.Received, t.Packets - before.Packets, t.Streams - before.Streams, t.Overflows - before.Overflows}
}

// Traffic is what the port has carried so far.
func (p *Port) Traffic() Traffic {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	return p.traffic
}

// Sent is how many bytes all have sent so far.
func (n *Network) Sent() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	sum := 0
	for _, p := range n.all {
		sum += p.traffic.Sent
	}
	return sum
}

// KindBytes gives the bytes that all have sent so far, by what they are for.
func (n *Network) KindBytes() map[string]int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cfg.Kinds == nil {
		return nil
	}
	return maps.Clone(n.cfg.Kinds.bytes)
}

// Kinds looks into memberlist's packets and streams to tell what they are for. It does not
// check that they are whole: who receives them does.
type Kinds struct {
	block cipher.Block
	user  func(message []byte, add func(kind string, bytes int))
	bytes map[string]int // Network.mu
}

// NewKinds decrypts with the members' key; user shares out a message
// that is not memberlist's own among its kinds.
func NewKinds(key []byte, user func(message []byte, add func(kind string, bytes int))) (*Kinds, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return &Kinds{block: block, user: user, bytes: map[string]int{}}, nil
}

// Kinds that are no messages: what frames them.
const (
	kindHeaders = "headers, encryption"
	kindOther   = "other"
)

// KindMembership is of what memberlist says of members: who is alive, suspect or dead.
const KindMembership = "membership"

// Messages of memberlist, whose numbers are part of its protocol.
const (
	pingMessage     = 0
	ackMessage      = 2
	pushPullMessage = 6
	compoundMessage = 7
	userMessage     = 8
	encryptMessage  = 10
)

var kinds = map[byte]string{
	pingMessage: "probes", 1: "probes", ackMessage: "acks", 11: "acks",
	3: KindMembership, 4: KindMembership, 5: KindMembership, pushPullMessage: "push/pull",
}

type share struct {
	kind  string
	bytes int
}

func (k *Kinds) add(shares []share) {
	if k == nil {
		return
	}
	for _, s := range shares {
		k.bytes[s.kind] += s.bytes
	}
}

// packet shares a packet out among what is in it.
func (k *Kinds) packet(b []byte) []share {
	if k == nil {
		return nil
	}
	shares := k.messages(k.decrypted(b), nil)
	rest := len(b) + packetHeader
	for _, s := range shares {
		rest -= s.bytes
	}
	return append(shares, share{kindHeaders, rest})
}

// allOf tells whether there is nothing else than this kind in a packet.
func allOf(shares []share, kind string) bool {
	is := false
	for _, s := range shares {
		if s.kind != kind && s.kind != kindHeaders {
			return false
		}
		is = is || s.kind == kind
	}
	return is
}

// messages tells the kinds of a message, or of those that a compound one holds.
func (k *Kinds) messages(b []byte, to []share) []share {
	switch {
	case len(b) == 0:
		return to
	case b[0] == 12 && len(b) > 5: // a checksum of 4 bytes before the message
		return k.messages(b[5:], to)
	case b[0] == userMessage:
		k.user(b[1:], func(kind string, bytes int) { to = append(to, share{kind, bytes}) })
		return to
	case b[0] != compoundMessage || len(b) < 2:
		kind, known := kinds[b[0]]
		if !known {
			kind = kindOther
		}
		return append(to, share{kind, len(b)})
	}
	n := int(b[1])
	lengths, rest := b[2:], 2+2*n
	for i := range n {
		if len(lengths) < 2*i+2 || len(b) < rest {
			return to
		}
		size := min(int(binary.BigEndian.Uint16(lengths[2*i:])), len(b)-rest)
		to = k.messages(b[rest:rest+size], to)
		rest += size
	}
	return to
}

// decrypted gives what is in version 1 of memberlist's encryption: version, nonce, text and
// tag. GCM is counter mode, whose first block is the tag's.
func (k *Kinds) decrypted(b []byte) []byte {
	const version, nonce, tag = 1, 12, 16
	if len(b) < version+nonce+tag || b[0] != 1 {
		return b
	}
	var counter [aes.BlockSize]byte
	copy(counter[:], b[version:version+nonce])
	counter[aes.BlockSize-1] = 2
	out := make([]byte, len(b)-version-nonce-tag)
	cipher.NewCTR(k.block, counter[:]).XORKeyStream(out, b[version+nonce:len(b)-tag])
	return out
}

// stream tells the kind of a stream by its beginning.
func (k *Kinds) stream(b []byte) string {
	if k == nil {
		return kindOther
	}
	const framing = 5 // the message's number and a length
	plain := b
	if len(b) > framing && b[0] == encryptMessage {
		plain = k.decrypted(b[framing:min(len(b), framing+256)])
	}
	if len(plain) == 0 {
		return kindOther
	}
	switch plain[0] {
	case pushPullMessage:
		return kinds[pushPullMessage]
	case pingMessage, ackMessage:
		return "probes, by stream"
	case userMessage:
		kind := kindOther
		k.user(userStream(plain[1:]), func(first string, _ int) { // of what it begins with
			if kind == kindOther {
				kind = first + ", by stream"
			}
		})
		return kind
	}
	return kindOther
}

// userStream cuts the header off a user message of a stream: a map with one entry, UserMsgLen.
func userStream(b []byte) []byte {
	const name = 1 + 1 + len("UserMsgLen")
	if len(b) <= name {
		return nil
	}
	size := map[byte]int{0xcc: 2, 0xcd: 3, 0xce: 5, 0xcf: 9, 0xd0: 2, 0xd1: 3, 0xd2: 5, 0xd3: 9}[b[name]]
	return b[min(len(b), name+max(1, size)):]
}
