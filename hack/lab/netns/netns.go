// Package netns makes sockets in another process's network namespace. A socket stays in the
// namespace it was made in; only its making needs a thread there.
package netns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Do runs f on a thread in the network namespace that path (as /proc/PID/ns/net) leads to. What f
// starts on other goroutines runs outside.
func Do(path string, f func() error) error {
	target, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	defer target.Close()
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			result <- err
			return // still locked: the thread ends, as it does wherever the way back is in doubt
		}
		defer home.Close()
		if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("enter network namespace %s: %w", path, err)
			return
		}
		err = f()
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

// Dial connects from within the namespace. The address must be numeric: names would be looked up
// on another thread, outside.
func Dial(ctx context.Context, path, network, address string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("dial %s: only IP:port can be dialled in a lab: %w", address, err)
	}
	var conn net.Conn
	err := Do(path, func() (err error) {
		conn, err = (&net.Dialer{FallbackDelay: -1}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen listens for streams within the namespace, at a numeric address.
func Listen(path, network, address string) (net.Listener, error) {
	var l net.Listener
	err := Do(path, func() (err error) {
		l, err = net.Listen(network, address)
		return err
	})
	return l, err
}

// ListenPacket listens for datagrams within the namespace, at a numeric address.
func ListenPacket(path, network, address string) (net.PacketConn, error) {
	var c net.PacketConn
	err := Do(path, func() (err error) {
		c, err = net.ListenPacket(network, address)
		return err
	})
	return c, err
}
