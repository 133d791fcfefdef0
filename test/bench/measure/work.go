package main

import (
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"github.com/drover-project/drover/test/bench/measure/truth"
)

// work computes on some threads, each for a part of each period.
func work(args []string, begin func() <-chan struct{}) error {
	threads, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	part, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	period, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	runtime.GOMAXPROCS(threads + 1)
	end := begin()
	for range threads {
		go func() {
			runtime.LockOSThread()
			for next := time.Now(); ; {
				for from := time.Now(); period == 0 || time.Since(from) < part; {
				}
				if next = next.Add(period); time.Until(next) < 0 {
					next = time.Now()
				}
				time.Sleep(time.Until(next)) // the pace is the load
			}
		}()
	}
	<-end
	return nil
}

// forks starts processes that end at once, several at a time.
func forks(args []string, begin func() <-chan struct{}) error {
	at, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	end := begin()
	for range at {
		go func() {
			for {
				exec.Command("/bin/true").Run()
			}
		}()
	}
	<-end
	return nil
}

// flood sends datagrams that nobody takes, as fast as it can, from all CPUs but the pods'. The
// kernel handles them on the pods' CPU.
func flood(args []string, begin func() <-chan struct{}) error {
	to := netip.AddrPortFrom(netip.MustParseAddr(args[1]), truth.UDPPort+10)
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return err
	}
	end := begin()
	b := make([]byte, 64)
	for {
		select {
		case <-end:
			return nil
		default:
			conn.Write(b) // refused, as it should be
		}
	}
}
