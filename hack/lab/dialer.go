package lab

import (
	"context"
	"net"

	"github.com/drover-project/drover/hack/lab/netns"
)

// DialerOn gives a function that connects from a machine of the lab: its own loopback and
// the pods on it are in reach. Addresses are IP:port.
func (l *Lab) DialerOn(name string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ns, err := l.namespace(name, "net")
		if err != nil {
			return nil, err
		}
		return netns.Dial(ctx, ns, network, address)
	}
}

// ListenPacketOn listens for datagrams on a machine of the lab.
func (l *Lab) ListenPacketOn(name, network, address string) (net.PacketConn, error) {
	ns, err := l.namespace(name, "net")
	if err != nil {
		return nil, err
	}
	return netns.ListenPacket(ns, network, address)
}

// ListenOn listens for streams on a machine of the lab.
func (l *Lab) ListenOn(name, network, address string) (net.Listener, error) {
	ns, err := l.namespace(name, "net")
	if err != nil {
		return nil, err
	}
	return netns.Listen(ns, network, address)
}
