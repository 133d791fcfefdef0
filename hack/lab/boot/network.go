package boot

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/hack/lab/fabric"
	"github.com/drover-project/drover/hack/lab/fabricd"
)

// connectNetwork makes eth0 in the node's network namespace, hands it to the switch, and gives it
// its addresses and routes. The connection it returns stands for the plug in the switch's socket.
func connectNetwork(s *Spec) (net.Conn, error) {
	mac, err := net.ParseMAC(s.MAC)
	if err != nil {
		return nil, err
	}
	runtime.LockOSThread() // all threads are in the new namespace; locked as OpenTAP asks for it
	defer runtime.UnlockOSThread()
	tap, err := fabric.OpenTAP("eth0", mac)
	if err != nil {
		return nil, err
	}
	defer tap.Close()
	conn, err := fabricd.PlugIn(s.Fabric, s.Node, tap)
	if err != nil {
		return nil, err
	}
	if err := configure(s); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func configure(s *Spec) error {
	for _, name := range []string{"lo", "eth0"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find %s: %w", name, err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("set %s up: %w", name, err)
		}
		if name != "eth0" {
			continue
		}
		for _, a := range s.Addresses {
			address, err := netlink.ParseAddr(a)
			if err != nil {
				return fmt.Errorf("address %q: %w", a, err)
			}
			address.Flags = unix.IFA_F_NODAD // the lab gives each once
			if err := netlink.AddrAdd(link, address); err != nil {
				return fmt.Errorf("give eth0 the address %s: %w", a, err)
			}
		}
	}
	for _, r := range s.Routes {
		dst, err := netlink.ParseIPNet(r.To)
		if err != nil {
			return fmt.Errorf("route to %q: %w", r.To, err)
		}
		if err := netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP(r.Via)}); err != nil {
			return fmt.Errorf("route to %s via %s: %w", r.To, r.Via, err)
		}
	}
	// Of this network namespace: the machine's own forwarding is not touched.
	for _, sysctl := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		if err := os.WriteFile("/proc/sys/net/"+sysctl, []byte("1"), 0o644); err != nil {
			return fmt.Errorf("let the node forward: %w", err)
		}
	}
	return nil
}

// forward starts carrying connections from an inherited listening socket.
func forward(f Forward) error {
	file := os.NewFile(uintptr(f.FD), "forward")
	l, err := net.FileListener(file)
	if err != nil {
		return fmt.Errorf("forward to %s: %w", f.To, err)
	}
	file.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				fmt.Fprintf(os.Stderr, "forward to %s: %v\n", f.To, err)
				time.Sleep(100 * time.Millisecond)
				continue
			}
			go carry(c.(*net.TCPConn), f.To)
		}
	}()
	return nil
}

func carry(in *net.TCPConn, to string) {
	defer in.Close()
	c, err := net.DialTimeout("tcp", to, 5*time.Second)
	if err != nil {
		return // the client sees its connection end
	}
	out := c.(*net.TCPConn)
	defer out.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(out, in)
		_ = out.CloseWrite()
	}()
	_, _ = io.Copy(in, out)
	_ = in.CloseWrite()
	<-done
}
