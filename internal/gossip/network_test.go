package gossip

import (
	"errors"
	"math/rand"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// network is an in-memory network that loses packets. A member that is gone blocks
// nobody: packets to it are dropped, dials fail.
type network struct {
	mu    sync.Mutex
	rng   *rand.Rand
	loss  float64 // share of packets lost
	ports map[string]*port
	bytes int64 // of packets, with the headers of UDP and IP
	next  int
	cut   func(from, to string) bool // no traffic from one to the other; may be nil
}

func newNetwork(seed int64, loss float64) *network {
	return &network{rng: rand.New(rand.NewSource(seed)), loss: loss, ports: map[string]*port{}}
}

// port is one member's Transport.
type port struct {
	net     *network
	addr    *net.TCPAddr
	packets chan *memberlist.Packet
	streams chan net.Conn
}

func (n *network) open() *port {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next++
	p := &port{
		net: n, addr: &net.TCPAddr{IP: net.IPv4(10, 0, byte(n.next>>8), byte(n.next)), Port: DefaultPort},
		packets: make(chan *memberlist.Packet, 512), streams: make(chan net.Conn, 64),
	}
	n.ports[p.addr.String()] = p
	return p
}

func (n *network) find(from, to string) *port {
	if n.cut != nil && n.cut(from, to) {
		return nil
	}
	return n.ports[to]
}

func (p *port) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return p.addr.IP, p.addr.Port, nil
}

func (p *port) WriteTo(b []byte, addr string) (time.Time, error) {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	p.net.bytes += int64(len(b) + 28)
	to := p.net.find(p.addr.String(), addr)
	if to == nil || p.net.ports[p.addr.String()] != p || p.net.rng.Float64() < p.net.loss {
		return time.Now(), nil
	}
	select {
	case to.packets <- &memberlist.Packet{Buf: append([]byte(nil), b...), From: p.addr, Timestamp: time.Now()}:
	default:
	}
	return time.Now(), nil
}

func (p *port) PacketCh() <-chan *memberlist.Packet { return p.packets }
func (p *port) StreamCh() <-chan net.Conn           { return p.streams }

func (p *port) DialTimeout(addr string, _ time.Duration) (net.Conn, error) {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	to := p.net.find(p.addr.String(), addr)
	if to == nil || p.net.ports[p.addr.String()] != p {
		return nil, errors.New("no route to " + addr)
	}
	here, there := net.Pipe()
	select {
	case to.streams <- stream{there, p.addr}:
		return stream{here, to.addr}, nil
	default:
		return nil, errors.New("backlog of " + addr + " is full")
	}
}

func (p *port) Shutdown() error {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	delete(p.net.ports, p.addr.String())
	return nil
}

// crash takes a member off the network without a word.
func (p *port) crash() { _ = p.Shutdown() }

type stream struct {
	net.Conn
	remote net.Addr
}

func (s stream) RemoteAddr() net.Addr { return s.remote }

func (p *port) String() string {
	return net.JoinHostPort(p.addr.IP.String(), strconv.Itoa(p.addr.Port))
}
