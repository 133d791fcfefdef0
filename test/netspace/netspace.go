// Package netspace makes networks for tests and benchmarks: network namespaces, and the lab's
// fabric between them.
package netspace

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/hack/lab/fabric"
	"github.com/drover-project/drover/internal/thread"
)

// New makes a network namespace, which its user closes. Its only device is lo, which is down.
func New() (ns netns.NsHandle, err error) {
	err = thread.Apart(func() (err error) {
		ns, err = netns.New()
		return err
	})
	if err != nil {
		return netns.None(), fmt.Errorf("make a network namespace (this takes root): %w", err)
	}
	return ns, nil
}

// Make makes a network namespace that is closed when the test ends.
func Make(t testing.TB) netns.NsHandle {
	t.Helper()
	ns, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// In runs f on a thread of its own that is in the namespace, and ends the thread. Processes that
// f starts are in the namespace, too; what it starts on other goroutines is not.
func In(ns netns.NsHandle, f func() error) error {
	return thread.Apart(func() error {
		if err := netns.Set(ns); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return f()
	})
}

// Up gives a device of the calling thread's namespace addresses, usable at once (nobody looks
// for duplicates), and sets it up.
func Up(device string, addresses ...netip.Prefix) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return fmt.Errorf("device %s: %w", device, err)
	}
	var errs []error
	for _, a := range addresses {
		address := &netlink.Addr{IPNet: IPNet(a)}
		if a.Addr().Is6() {
			address.Flags = unix.IFA_F_NODAD
		}
		errs = append(errs, netlink.AddrAdd(link, address))
	}
	return errors.Join(append(errs, netlink.LinkSetUp(link))...)
}

// IPNet is the prefix as netlink has it; what is set behind its length stays.
func IPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Connect runs the lab's fabric between the ports, each pair so far apart one way, until the
// test ends. Then it closes the ports' files.
func Connect(t testing.TB, oneWay time.Duration, ports []fabric.Port) *fabric.Switch {
	t.Helper()
	s := fabric.New(ports)
	for pair := range s.Delays() {
		if err := s.SetDelay(pair[0], pair[1], oneWay); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("fabric: %v", err)
		}
		for _, p := range ports {
			p.File.Close()
		}
	})
	return s
}
