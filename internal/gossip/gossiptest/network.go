// Package gossiptest simulates what gossip runs over and what many members in one process
// would each do for themselves. Inside a synctest bubble its time is virtual.
package gossiptest

import (
	"errors"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// port is every member's, UDP and TCP.
const port = 7946

// Config says what the network does to what it carries. The zero value delivers everything
// at once.
type Config struct {
	Seed uint64
	// Loss is the share of packets that are lost; Duplicated the share that come twice;
	// Reordered the share that MaxDelay is added to, so that later ones overtake them.
	Loss, Duplicated, Reordered float64
	// MinDelay and MaxDelay bound the one-way delays of links: each link and direction has
	// one, drawn evenly on a logarithmic scale, plus up to a tenth of it for each packet.
	MinDelay, MaxDelay time.Duration
	// Kinds, if not nil, tells bytes apart by what they are for.
	Kinds *Kinds
}

// Network is an in-memory network. All methods are safe for concurrent use.
type Network struct {
	mu    sync.Mutex
	cfg   Config
	rng   *rand.Rand
	ports map[string]*Port // that are open, by address
	all   []*Port
	cut   func(from, to *Port) bool
	muted string
	due   map[int64][]delivery // by unit of time
}

// delivery is one packet under way.
type delivery struct {
	to     *Port
	packet *memberlist.Packet
}

// unit is how finely delays are told apart: what arrives in one unit is delivered together.
const unit = 100 * time.Microsecond

// NewNetwork makes a network without members.
func NewNetwork(cfg Config) *Network {
	return &Network{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 1)), ports: map[string]*Port{}, due: map[int64][]delivery{}}
}

// Open makes another member's end of the network.
func (n *Network) Open() *Port {
	n.mu.Lock()
	defer n.mu.Unlock()
	i := len(n.all) + 1
	p := &Port{
		Index: i - 1, net: n, addr: &net.TCPAddr{IP: net.IPv4(10, byte(i>>16), byte(i>>8), byte(i)), Port: port},
		packets: make(chan *memberlist.Packet, 2048), streams: make(chan net.Conn, 64),
	}
	p.name = net.JoinHostPort(p.addr.IP.String(), strconv.Itoa(port))
	n.ports[p.name] = p
	n.all = append(n.all, p)
	return p
}

// Cut lets no traffic pass from one to the other where cut says so; nil: all passes.
func (n *Network) Cut(cut func(from, to *Port) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = cut
}

// Mute loses all packets that are of this kind alone; empty: none.
func (n *Network) Mute(kind string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.muted = kind
}

// Parted tells whether a cut lies between two ports, in this direction.
func (n *Network) Parted(from, to *Port) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cut != nil && n.cut(from, to)
}

// Port is one member's Transport.
type Port struct {
	// Index counts the ports of a network from 0.
	Index   int
	net     *Network
	addr    *net.TCPAddr
	name    string
	packets chan *memberlist.Packet
	streams chan net.Conn
	traffic Traffic // net.mu
}

var _ memberlist.Transport = (*Port)(nil)

// String is the address, host:port.
func (p *Port) String() string { return p.name }

// FinalAdvertiseAddr is the port's own address.
func (p *Port) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return p.addr.IP, p.addr.Port, nil
}

// PacketCh gives the packets that have arrived.
func (p *Port) PacketCh() <-chan *memberlist.Packet { return p.packets }

// StreamCh gives the streams that others have opened.
func (p *Port) StreamCh() <-chan net.Conn { return p.streams }

// WriteTo sends a packet.
func (p *Port) WriteTo(b []byte, addr string) (time.Time, error) {
	now := time.Now()
	shares := p.net.cfg.Kinds.packet(b)
	n := p.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ports[p.name] != p {
		return now, nil // it is off the network
	}
	size := len(b) + packetHeader
	p.traffic.Sent += size
	p.traffic.Packets++
	n.cfg.Kinds.add(shares)
	to := n.ports[addr]
	if n.muted != "" && allOf(shares, n.muted) {
		return now, nil
	}
	if to == nil || n.cut != nil && n.cut(p, to) || n.chance(n.cfg.Loss) {
		return now, nil
	}
	copies := 1
	if n.chance(n.cfg.Duplicated) {
		copies = 2
	}
	for range copies {
		n.deliver(p, to, append([]byte(nil), b...), now)
	}
	return now, nil
}

func (n *Network) chance(share float64) bool { return share > 0 && n.rng.Float64() < share }

// deliver puts a packet on its way.
func (n *Network) deliver(from, to *Port, b []byte, now time.Time) {
	packet := &memberlist.Packet{Buf: b, From: from.addr}
	wait := n.delay(from, to)
	wait += time.Duration(n.rng.Float64() * float64(wait) / 10)
	if n.chance(n.cfg.Reordered) {
		wait += n.cfg.MaxDelay
	}
	if wait == 0 {
		to.receive(packet, now)
		return
	}
	at := now.Add(wait).UnixNano()/int64(unit) + 1
	if n.due[at] == nil {
		time.AfterFunc(time.Unix(0, at*int64(unit)).Sub(now), func() { n.arrive(at) })
	}
	n.due[at] = append(n.due[at], delivery{to, packet})
}

func (n *Network) arrive(at int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	for _, d := range n.due[at] {
		d.to.receive(d.packet, now)
	}
	delete(n.due, at)
}

// receive is called with net.mu held.
func (p *Port) receive(packet *memberlist.Packet, now time.Time) {
	packet.Timestamp = now
	select {
	case p.packets <- packet:
		p.traffic.Received += len(packet.Buf) + packetHeader
	default:
		p.traffic.Overflows++
	}
}

// delay is the one-way delay of a link.
func (n *Network) delay(from, to *Port) time.Duration {
	if n.cfg.MaxDelay == 0 {
		return 0
	}
	least, most := math.Log(float64(n.cfg.MinDelay)), math.Log(float64(n.cfg.MaxDelay))
	share := float64(mix(n.cfg.Seed^mix(uint64(from.Index)<<32|uint64(to.Index)))>>11) / (1 << 53)
	return time.Duration(math.Exp(least + share*(most-least)))
}

// mix is the finalizer of SplitMix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Shutdown takes a member off the network: packets to it are lost, nobody reaches it.
func (p *Port) Shutdown() error {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	if p.net.ports[p.name] == p {
		delete(p.net.ports, p.name)
	}
	return nil
}

// Crash takes a member off the network without a word.
func (p *Port) Crash() { _ = p.Shutdown() }

// DialTimeout opens a stream.
func (p *Port) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	n := p.net
	n.mu.Lock()
	to, gone := n.ports[addr], n.ports[p.name] != p
	lost := to != nil && n.cut != nil && n.cut(p, to)
	var wait time.Duration
	if to != nil && !lost {
		wait = n.delay(p, to) + n.delay(to, p)
		for n.chance(n.cfg.Loss) {
			wait += time.Second // TCP's first timeout
		}
	}
	n.mu.Unlock()
	switch {
	case to == nil || gone:
		return nil, errors.New("no route to " + addr)
	case lost || wait > timeout:
		time.Sleep(timeout)
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: p.addr, Err: os.ErrDeadlineExceeded}
	}
	time.Sleep(wait)
	n.mu.Lock()
	defer n.mu.Unlock()
	a, b := net.Pipe()
	here, there := &stream{Conn: a, from: p, to: to}, &stream{Conn: b, from: to, to: p}
	if n.ports[addr] != to {
		return nil, errors.New("no route to " + addr)
	}
	select {
	case to.streams <- there:
		here.opened()
		return here, nil
	default:
		return nil, errors.New("backlog of " + addr + " is full")
	}
}
