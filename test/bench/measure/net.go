package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/hack/lab/fabric"
	"github.com/drover-project/drover/hack/lab/fabricd"
	"github.com/drover-project/drover/test/netspace"
)

// device is what the one network device of a host is called.
const device = "eth0"

// host is one end of a pair: a network namespace with one device.
type host struct {
	name    string
	ns      netns.NsHandle
	address netip.Addr
}

// pair is two hosts and what is between them.
type pair struct {
	origin, peer host
	close        func() error
}

// in runs f in the host's namespace, on a thread that ends; processes that f starts are in it, too.
func (h host) in(f func() error) error { return netspace.In(h.ns, f) }

func newHost(name string, last byte) (host, error) {
	ns, err := netspace.New()
	return host{name, ns, netip.AddrFrom4([4]byte{10, 234, 0, last})}, err
}

func (h host) up() error { return netspace.Up(device, netip.PrefixFrom(h.address, 24)) }

func hosts() (*pair, error) {
	var p pair
	var err error
	if p.origin, err = newHost("origin", 1); err != nil {
		return nil, err
	}
	p.peer, err = newHost("peer", 2)
	p.close = func() error { return errors.Join(p.origin.ns.Close(), p.peer.ns.Close()) }
	return &p, err
}

// newVeth makes two hosts that a veth pair connects.
func newVeth() (*pair, error) {
	p, err := hosts()
	if err != nil {
		return nil, err
	}
	err = p.origin.in(func() error {
		v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: device}, PeerName: device, PeerNamespace: netlink.NsFd(p.peer.ns)}
		if err := netlink.LinkAdd(v); err != nil {
			return err
		}
		return p.origin.up()
	})
	if err == nil {
		err = p.peer.in(p.peer.up)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect two namespaces: %w", err), p.close())
	}
	return p, nil
}

// newFabric makes two hosts that the lab's switch connects, with a delay one way. The switch
// is a process in the control group.
func newFabric(group string, oneWay time.Duration) (*pair, error) {
	p, err := hosts()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "drover-bench-")
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "fabric")
	process, err := fabricd.Start("bench-measure", socket, group, os.Stderr)
	if err != nil {
		return nil, err
	}
	var plugs []net.Conn
	p.close = func() error {
		var errs []error
		for _, c := range plugs {
			errs = append(errs, c.Close())
		}
		errs = append(errs, process.Kill())
		process.Wait()
		return errors.Join(append(errs, p.origin.ns.Close(), p.peer.ns.Close(), os.RemoveAll(dir))...)
	}
	for i, h := range []host{p.origin, p.peer} {
		err := h.in(func() error {
			tap, err := fabric.OpenTAP(device, net.HardwareAddr{2, 0, 0, 0, 3, byte(i + 1)})
			if err != nil {
				return err
			}
			defer tap.Close()
			plug, err := fabricd.PlugIn(socket, h.name, tap)
			if err != nil {
				return err
			}
			plugs = append(plugs, plug)
			return h.up()
		})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("connect %s to the switch: %w", h.name, err), p.close())
		}
	}
	err = fabricd.SetDelay(context.Background(), socket, fabricd.Delay{A: p.origin.name, B: p.peer.name, OneWay: oneWay})
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// steer has the kernel handle what comes in on one CPU. A thread of the namespace sees its
// devices in a /sys of its own.
func (h host) steer(cpu int) error {
	return h.in(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		dir, err := os.MkdirTemp("", "drover-bench-")
		if err != nil {
			return err
		}
		defer os.Remove(dir)
		if err := unix.Mount("sysfs", dir, "sysfs", 0, ""); err != nil {
			return fmt.Errorf("mount sysfs of %s: %w", h.name, err)
		}
		defer unix.Unmount(dir, unix.MNT_DETACH)
		file := filepath.Join(dir, "class/net", device, "queues/rx-0/rps_cpus")
		return os.WriteFile(file, []byte(strconv.FormatInt(1<<cpu, 16)), 0o644)
	})
}
