package gossip

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/model"
)

// A load is said so often by so many that its record has a wire form of its own, of at most 86
// bytes as a rule:
//
//	format and flags 1 byte | first bytes of the key 3 | version 5 | body <= 13, or 23 with a lag | signature 64
//
// The origin is whose certificate has the key; it is signed, and does not travel. Of several
// keys that begin with the same bytes the one that fits the signature counts.
type keyPrefix [3]byte

const (
	wireLoad     = 0x40
	loadHeader   = 1 + len(keyPrefix{}) + loadVersion
	loadVersion  = 5
	leastLoad    = 8
	greatestLoad = 23
	// loadContext is the signingContext of loads.
	loadContext = "drover gossip load v1\x00"
	// loadUnit is the unit of a load's version and moment: 5 bytes of it last until 2318.
	loadUnit = 10 * time.Millisecond
)

// The flags are in the format: what is known, and what else follows.
const (
	loadMeasured byte = 1 << iota // at the version's moment, less the lag
	loadCPU                       // the CPU's is among the pressures
	loadMemory                    // a byte of memory's pressure follows
	loadIO                        // a byte of IO's pressure follows
	loadBandwidth
	loadLags
	loadFlags = 1<<iota - 1
)

// saidLoad is what a load record tells: of the load all but what is allocatable, of the
// bandwidth all but its capacity.
type saidLoad struct {
	load      model.Load
	bandwidth *model.Bandwidth
}

// sealLoad signs a load. The version is a multiple of loadUnit.
func sealLoad(id *identity.Identity, version uint64, l saidLoad) ([]byte, error) {
	key, ok := keyIDOf(id.Cert)
	if !ok {
		return nil, fmt.Errorf("seal load: key of %s is not Ed25519", id.Subject)
	}
	flags, body := encodeLoad(version, l)
	b := append([]byte{wireLoad | flags}, key[:len(keyPrefix{})]...)
	units := binary.BigEndian.AppendUint64(nil, version/uint64(loadUnit))
	b = append(b, units[8-loadVersion:]...)
	b = append(b, body...)
	return append(b, id.Sign(signedLoad(key, id.Subject.Node, b))...), nil
}

// isLoad tells whether b is of the wire form of loads, if of any.
func isLoad(b []byte) bool { return len(b) > 0 && b[0]&^loadFlags == wireLoad }

// openLoad decodes the wire form but for the body; the origin is not known yet.
func openLoad(b []byte) (record, error) {
	if n := len(b) - loadHeader - ed25519.SignatureSize; n < leastLoad || n > greatestLoad {
		return record{}, errMalformed
	}
	var units [8]byte
	copy(units[8-loadVersion:], b[loadHeader-loadVersion:])
	at := binary.BigEndian.Uint64(units[:])
	r := record{kind: kindLoad, raw: b, body: b[loadHeader : len(b)-ed25519.SignatureSize]}
	if at > math.MaxInt64/uint64(loadUnit) {
		r.version = math.MaxInt64 // no clock's: it counts as from the future
		return r, nil
	}
	r.version = at * uint64(loadUnit)
	return r, nil
}

// prefix is the beginning of the key of a load's record.
func (r record) prefix() keyPrefix { return keyPrefix(r.raw[1:]) }

// loadSignedBy verifies a load's record as one of origin's.
func (r record) loadSignedBy(pub ed25519.PublicKey, key keyID, origin model.NodeID, v Verifier) bool {
	at := len(r.raw) - ed25519.SignatureSize
	return v.Signature(pub, signedLoad(key, origin, r.raw[:at]), r.raw[at:])
}

func signedLoad(key keyID, origin model.NodeID, b []byte) []byte {
	s := append([]byte(loadContext), key[:]...)
	s = binary.AppendUvarint(s, uint64(len(origin)))
	s = append(s, origin...)
	return append(s, b...)
}

// encodeLoad gives the flags and the body:
//
//	requested cores, MiB | used cores, MiB | pressure | [memory's] [IO's] | [sent, received KiB/s] | [lag]
//
// What is requested has 2 bytes each, what is used and the bandwidth 3 bytes for both, pressures 1.
// Cores are counted in thousandths; what is requested is rounded up, so that nothing is held to
// fit that does not.
func encodeLoad(version uint64, l saidLoad) (flags byte, b []byte) {
	const mib, kib = float64(model.MiB), float64(model.KiB)
	set := func(f byte, is bool) bool {
		if is {
			flags |= f
		}
		return is
	}
	// A sum of floats may lie a little above what it stands for.
	b = binary.BigEndian.AppendUint16(b, fine.encode(1000*float64(l.load.Requested.CPU)-1e-6, math.Ceil))
	b = binary.BigEndian.AppendUint16(b, fine.encode(float64(l.load.Requested.Memory)/mib, math.Ceil))
	b = appendPair(b, 1000*float64(l.load.Used.CPU), float64(l.load.Used.Memory)/mib)
	b = appendPressure(b, l.load.Pressure)
	_, cpu := l.load.Pressures[model.OnCPU]
	set(loadCPU, cpu)
	for _, o := range optionalPressures {
		if p, known := l.load.Pressures[o.resource]; set(o.flag, known) {
			b = appendPressure(b, p)
		}
	}
	if set(loadBandwidth, l.bandwidth != nil) {
		b = appendPair(b, float64(l.bandwidth.Sent)/kib, float64(l.bandwidth.Received)/kib)
	}
	if !set(loadMeasured, !l.load.At.IsZero()) {
		return flags, b
	}
	lag := int64(version/uint64(loadUnit)) - floorUnits(l.load.At)
	if set(loadLags, lag != 0) {
		b = binary.AppendVarint(b, lag)
	}
	return flags, b
}

// optionalPressures follow in this order.
var optionalPressures = []struct {
	resource model.Resource
	flag     byte
}{{model.OnMemory, loadMemory}, {model.OnIO, loadIO}}

// decodeLoad takes the body of a record of that version apart; false: it is malformed.
func decodeLoad(flags byte, b []byte, version uint64) (l saidLoad, ok bool) {
	c := cursor{b: b, ok: true}
	l.load.Requested = model.Resources{CPU: model.Cores(c.amount()) / 1000, Memory: model.Bytes(c.amount()) * model.MiB}
	cpu, memory := c.pair()
	l.load.Used = model.Resources{CPU: model.Cores(cpu) / 1000, Memory: model.Bytes(memory) * model.MiB}
	l.load.Pressure = c.pressure()
	if flags&(loadCPU|loadMemory|loadIO) != 0 {
		l.load.Pressures = map[model.Resource]float64{}
	}
	if flags&loadCPU != 0 {
		l.load.Pressures[model.OnCPU] = l.load.Pressure
	}
	for _, o := range optionalPressures {
		if flags&o.flag != 0 {
			l.load.Pressures[o.resource] = c.pressure()
		}
	}
	if flags&loadBandwidth != 0 {
		sent, received := c.pair()
		l.bandwidth = &model.Bandwidth{Sent: model.Rate(sent) * model.Rate(model.KiB), Received: model.Rate(received) * model.Rate(model.KiB)}
	}
	var lag int64
	if flags&loadLags != 0 {
		if lag = c.varint(); lag == 0 {
			return saidLoad{}, false
		}
	}
	at := int64(version/uint64(loadUnit)) - lag
	if flags&loadMeasured != 0 {
		l.load.At = time.Unix(0, 0).Add(time.Duration(at) * loadUnit).UTC()
	}
	const most = math.MaxInt64 / int64(loadUnit)
	sound := (flags&loadLags == 0 || flags&loadMeasured != 0) && at > -most && at < most
	return l, sound && c.ok && len(c.b) == 0
}

func floorUnits(t time.Time) int64 { return t.UnixNano() / int64(loadUnit) }

// amount is a form of whole numbers, with 5 bits of exponent before its bits of mantissa: a
// number below 1 << mantissa is itself; a greater one has a leading 1 that is not told. Every
// number that can be told has one form.
type amount struct{ mantissa int }

var (
	fine   = amount{11} // in 16 bits, with an error of at most 1 in 2048
	coarse = amount{7}  // in 12 bits, with an error of at most 1 in 256 when rounded to the nearest
)

const exponentMax = 1<<5 - 1

func (a amount) encode(x float64, round func(float64) float64) uint16 {
	one := float64(uint(1) << a.mantissa)
	x = max(0, x)
	if m := round(x); m < one {
		return uint16(m)
	}
	for e := 1; e <= exponentMax; e++ {
		if m := round(x / float64(uint64(1)<<(e-1))); m < 2*one {
			return uint16(e<<a.mantissa) | uint16(m-one)
		}
	}
	return 1<<(a.mantissa+5) - 1 // greater than all there is, or no number
}

func (a amount) decode(v uint16) uint64 {
	m, e := uint64(v)&(1<<a.mantissa-1), v>>a.mantissa
	if e == 0 {
		return m
	}
	return (1<<a.mantissa | m) << (e - 1)
}

// appendPair encodes two coarse amounts.
func appendPair(b []byte, x, y float64) []byte {
	both := uint32(coarse.encode(x, math.Round))<<12 | uint32(coarse.encode(y, math.Round))
	return append(b, byte(both>>16), byte(both>>8), byte(both))
}

// A pressure is counted in 200ths.
const pressureUnits = 200

func appendPressure(b []byte, p float64) []byte {
	if !(p > 0) {
		return append(b, 0)
	}
	return append(b, byte(math.Round(min(p, 1)*pressureUnits)))
}

// cursor takes values off b; ok is false once one was not there or had another form than
// its only one.
type cursor struct {
	b  []byte
	ok bool
}

func (c *cursor) take(n int) []byte {
	if len(c.b) < n {
		c.ok = false
		return make([]byte, n)
	}
	head := c.b[:n]
	c.b = c.b[n:]
	return head
}

func (c *cursor) byte() byte { return c.take(1)[0] }

func (c *cursor) amount() uint64 { return fine.decode(binary.BigEndian.Uint16(c.take(2))) }

func (c *cursor) pair() (x, y uint64) {
	b := c.take(3)
	both := uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2])
	return coarse.decode(uint16(both >> 12)), coarse.decode(uint16(both & 0xfff))
}

func (c *cursor) pressure() float64 {
	p := c.byte()
	c.ok = c.ok && p <= pressureUnits
	return float64(p) / pressureUnits
}

func (c *cursor) varint() int64 {
	v, n := binary.Varint(c.b)
	if n <= 0 || n != len(binary.AppendVarint(nil, v)) {
		c.ok = false
		return 0
	}
	c.b = c.b[n:]
	return v
}
