package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/bpf/routetime"
	"github.com/drover-project/drover/test/bench/measure/truth"
)

const (
	// probeInterval is the time between two probes of each prober.
	probeInterval = 10 * time.Millisecond
	// lostAfter is when a prober gives a probe up.
	lostAfter = 2 * time.Second
)

// monotonic is the clock of the kernel's stamps.
func monotonic() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

// found is one round trip, as its prober saw it: the nonce, or 0; when it began; how long it took.
type found struct {
	nonce uint64
	began time.Duration
	rtt   time.Duration
}

func (f found) print(to io.Writer) { fmt.Fprintf(to, "%d,%d,%d\n", f.nonce, f.began, f.rtt) }

func parseFound(lines []string) ([]found, error) {
	all := make([]found, 0, len(lines))
	for _, l := range lines {
		var f found
		if _, err := fmt.Sscanf(l, "%d,%d,%d", &f.nonce, &f.began, &f.rtt); err != nil {
			return nil, fmt.Errorf("a prober printed %q: %w", l, err)
		}
		all = append(all, f)
	}
	return all, nil
}

// openMeter loads Drover's programs and attaches them to the host's device.
func openMeter(self, peer string) (*routetime.Meter, netip.Addr, netip.Addr, error) {
	s, err := netip.ParseAddr(self)
	if err != nil {
		return nil, s, s, err
	}
	p, err := netip.ParseAddr(peer)
	if err != nil {
		return nil, s, p, err
	}
	link, err := netlink.LinkByName(device)
	if err != nil {
		return nil, s, p, err
	}
	m, err := routetime.Open()
	if err != nil {
		return nil, s, p, err
	}
	err = errors.Join(m.SetMembers([]netip.Addr{s}, []netip.Addr{p}), m.SetInterfaces([]int{link.Attrs().Index}))
	return m, s, p, err
}

func droverPeer(args []string, begin func() <-chan struct{}) error {
	m, _, _, err := openMeter(args[0], args[1])
	if err != nil {
		return err
	}
	<-begin()
	return m.Close()
}

func droverOrigin(args []string, begin func() <-chan struct{}) error {
	m, self, peer, err := openMeter(args[0], args[1])
	if err != nil {
		return err
	}
	sender, err := routetime.NewSender(netip.AddrPortFrom(self, routetime.Port))
	if err != nil {
		return err
	}
	defer sender.Close()
	end := begin()
	var mu sync.Mutex
	var all []found
	read := make(chan error, 1)
	go func() {
		for {
			s, err := m.Read()
			if err != nil {
				read <- err
				return
			}
			if s.Answered == routetime.AnsweredByKernel {
				mu.Lock()
				all = append(all, found{nonce: s.Nonce, rtt: s.RTT})
				mu.Unlock()
			}
		}
	}()
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for sequence := uint64(1); ; sequence++ {
		select {
		case <-end:
			if err := m.Close(); err != nil {
				return err
			}
			if err := <-read; !errors.Is(err, os.ErrClosed) {
				return err
			}
			for _, f := range all {
				f.print(os.Stdout)
			}
			return nil
		case <-tick.C:
		}
		p := routetime.Packet{Kind: routetime.Probe, Nonce: rand.Uint64(), Sequence: sequence}
		if err := m.Expect(p.Nonce, peer); err != nil {
			return err
		}
		if err := sender.Send(p.Append(nil), peer); err != nil {
			return err
		}
	}
}

// udpPeer answers in user space, as plain probers do.
func udpPeer(args []string, begin func() <-chan struct{}) error {
	conn, err := net.ListenPacket("udp4", netip.AddrPortFrom(netip.MustParseAddr(args[0]), truth.UDPPort).String())
	if err != nil {
		return err
	}
	end := begin()
	go func() {
		<-end
		conn.Close()
	}()
	b := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		p, err := routetime.Parse(b[:n])
		if err != nil {
			return err
		}
		p.Kind = routetime.AnsweredByUser
		if _, err := conn.WriteTo(p.Append(nil), from); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
	}
}

func udpOrigin(args []string, begin func() <-chan struct{}) error {
	conn, err := net.Dial("udp4", netip.AddrPortFrom(netip.MustParseAddr(args[1]), truth.UDPPort).String())
	if err != nil {
		return err
	}
	defer conn.Close()
	end := begin()
	var all []found
	b := make([]byte, 1500)
	for sequence := uint64(1); pace(end); sequence++ {
		p := routetime.Packet{Kind: routetime.Probe, Nonce: rand.Uint64(), Sequence: sequence}
		began := monotonic()
		if _, err := conn.Write(p.Append(nil)); err != nil {
			return err
		}
		conn.SetReadDeadline(time.Now().Add(lostAfter))
		for {
			n, err := conn.Read(b)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return err
			}
			if got, err := routetime.Parse(b[:n]); err != nil {
				return err
			} else if got.Nonce == p.Nonce {
				all = append(all, found{p.Nonce, began, monotonic() - began})
				break
			}
		}
	}
	for _, f := range all {
		f.print(os.Stdout)
	}
	return nil
}

// pace waits until it is time for the next probe, and tells whether there is one.
func pace(end <-chan struct{}) bool {
	timer := time.NewTimer(probeInterval)
	defer timer.Stop()
	select {
	case <-end:
		return false
	case <-timer.C:
		return true
	}
}

func httpPeer(args []string, begin func() <-chan struct{}) error {
	l, err := net.Listen("tcp4", netip.AddrPortFrom(netip.MustParseAddr(args[0]), truth.HTTPPort).String())
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })}
	end := begin()
	go func() {
		<-end
		server.Close()
	}()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// httpOrigin asks over one connection that stays, as a good prober does.
func httpOrigin(args []string, begin func() <-chan struct{}) error {
	url := fmt.Sprintf("http://%s/", netip.AddrPortFrom(netip.MustParseAddr(args[1]), truth.HTTPPort))
	client := &http.Client{Timeout: lostAfter}
	end := begin()
	var all []found
	for pace(end) {
		began := monotonic()
		answer, err := client.Get(url)
		if err != nil {
			continue // lost
		}
		_, err = io.Copy(io.Discard, answer.Body)
		if answer.Body.Close(); err == nil {
			all = append(all, found{0, began, monotonic() - began})
		}
	}
	for _, f := range all {
		f.print(os.Stdout)
	}
	return nil
}
