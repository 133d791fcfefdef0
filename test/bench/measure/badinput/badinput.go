package badinput

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"runtime"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/bpf/routetime"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/measure"
)

// Config of a run.
type Config struct {
	// Datagrams to send, of all kinds in turn; Rate of them per second, 0 for all there is.
	Datagrams, Rate int
	IPv6            bool
	Seed            uint64
}

// Result is what a run cost. What is said per datagram is a mean over all kinds.
type Result struct {
	Datagrams int     `json:"datagrams"`
	IPv6      bool    `json:"ipv6"`
	Seconds   float64 `json:"seconds"`
	// ProgramNanoseconds is what the node's eBPF programs took per datagram, by the kernel's
	// account; AgentNanoseconds the CPU time of its agent's goroutines, less what they take
	// otherwise; StackNanoseconds that of the sender, in whose time all of the kernel's work
	// is done, the programs' too, less what sending takes. The sum of the latter two is the
	// cost to the node.
	ProgramNanoseconds float64 `json:"program_ns_per_datagram"`
	AgentNanoseconds   float64 `json:"agent_ns_per_datagram"`
	StackNanoseconds   float64 `json:"stack_ns_per_datagram"`
	// Answered counts the resent probes of a peer: an answer each, of the same size.
	Answered uint64 `json:"answered"`
}

// Cores is the part of a core that so many datagrams per second would take.
func (r Result) Cores(perSecond float64) float64 {
	return perSecond * (r.AgentNanoseconds + r.StackNanoseconds) / 1e9
}

// figures are what bad input may not change.
type figures struct {
	Routes                            map[model.NodeID]model.RouteTime
	Answered, Failed, Measured, Trips uint64
	TripSeconds                       float64
}

// Run attacks a node in network namespaces of its own. It is an error if a figure changed, if
// a datagram did not come to be counted as what it is, or if more was sent than was received.
func Run(ctx context.Context, c Config) (Result, error) {
	if c.Datagrams < len(Kinds) {
		return Result{}, fmt.Errorf("%d datagrams: want at least one of each of %d kinds", c.Datagrams, len(Kinds))
	}
	s, err := newScene(c.IPv6)
	if err != nil {
		return Result{}, err
	}
	defer s.close()
	if err := s.warmUp(ctx); err != nil {
		return Result{}, err
	}
	statistics, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		return Result{}, fmt.Errorf("have the kernel count what programs take: %w", err)
	}
	defer statistics.Close()
	idle, err := s.agentShare(ctx, time.Second)
	if err != nil {
		return Result{}, err
	}
	bare, err := s.sendingTo(unroutable, c)
	if err != nil {
		return Result{}, err
	}

	before, counted, err := s.figures()
	if err != nil {
		return Result{}, err
	}
	_, ranBefore, err := s.meter.Runtime()
	if err != nil {
		return Result{}, err
	}
	spent, err := s.sendingTo(node, c)
	if err != nil {
		return Result{}, err
	}
	_, ran, err := s.meter.Runtime()
	if err != nil {
		return Result{}, err
	}
	after, now, err := s.figures()
	if err != nil {
		return Result{}, err
	}
	n := float64(c.Datagrams)
	r := Result{
		Datagrams: c.Datagrams, IPv6: c.IPv6, Seconds: spent.took.Seconds(),
		ProgramNanoseconds: float64(ran-ranBefore) / n,
		AgentNanoseconds:   max(0, float64(spent.others)-idle*float64(spent.took)) / n,
		StackNanoseconds:   max(0, float64(spent.sender)-float64(bare.sender)) / n,
		Answered:           now.Answered - counted.Answered,
	}
	return r, errors.Join(unchanged(before, after), spent.counted(counted, now))
}

func unchanged(before, after figures) error {
	if !reflect.DeepEqual(before, after) {
		return fmt.Errorf("bad input changed a figure: from %+v to %+v", before, after)
	}
	return nil
}

// spending is what a round of sending took: as time, as CPU time of the sender and as CPU
// time of everything else in the process.
type spending struct {
	sent                 map[Kind]uint64
	took, sender, others time.Duration
}

// counted checks that the programs saw every datagram for what it was.
func (s spending) counted(before, after routetime.Stats) error {
	var errs []error
	for _, c := range []struct {
		what      string
		got, want uint64
	}{
		{"answered", after.Answered - before.Answered, s.sent[Resent]},
		{"strangers", after.Stranger - before.Stranger, s.sent[Stranger]},
		// A probe that is under way may end while its nonce is in use.
		{"unknown and from the wrong peer", after.Unknown + after.WrongPeer - before.Unknown - before.WrongPeer,
			s.sent[Replayed] + s.sent[Forged] + s.sent[Misattributed]},
	} {
		if c.got != c.want {
			errs = append(errs, fmt.Errorf("%d datagrams were counted as %s, want %d", c.got, c.what, c.want))
		}
	}
	if s.sent[Misattributed] > 0 && after.WrongPeer == before.WrongPeer {
		errs = append(errs, errors.New("no answer to a probe under way was sent from a wrong address: nothing was tried"))
	}
	return errors.Join(errs...)
}

// target is where datagrams go.
type target int

const (
	node       target = iota
	unroutable        // a hardware address that nobody has: only sending costs anything
)

// sendingTo sends all datagrams of a run from a thread of its own.
func (s *scene) sendingTo(to target, c Config) (spending, error) {
	type result struct {
		spending
		err error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // its CPU time is taken; never unlocked
		spent, err := s.send(to, c)
		done <- result{spent, err}
	}()
	r := <-done
	return r.spending, r.err
}

func (s *scene) send(to target, c Config) (spending, error) {
	l := s.link
	if to == unroutable {
		l.nodeMAC = []byte{2, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	rng := rand.New(rand.NewPCG(c.Seed, uint64(to)))
	spent := spending{sent: map[Kind]uint64{}}
	// What is made before is not taken for cost.
	var frames [][]byte
	var kinds []Kind
	for i := range min(c.Datagrams, 4096) {
		kind := Kinds[i%len(Kinds)]
		kinds = append(kinds, kind)
		if kind == Misattributed {
			frames = append(frames, nil) // probes under way are known when it is sent
			continue
		}
		frames = append(frames, l.frame(kind, s.answered, rng))
	}
	start := time.Now()
	own, all, err := cpuTimes()
	if err != nil {
		return spending{}, err
	}
	var live []uint64
	for i := range c.Datagrams {
		frame, kind := frames[i%len(frames)], kinds[i%len(frames)]
		if kind == Misattributed {
			if i%512 < len(Kinds) || live == nil {
				if live, err = s.underWay(live); err != nil {
					return spending{}, err
				}
			}
			frame = l.frame(kind, live, rng)
		}
		if err := unix.Sendto(s.socket, frame, 0, &s.device); err != nil {
			return spending{}, fmt.Errorf("send datagram %d, %s, of %d bytes: %w", i, kind, len(frame), err)
		}
		spent.sent[kind]++
		if c.Rate > 0 {
			time.Sleep(time.Until(start.Add(time.Duration(i) * time.Second / time.Duration(c.Rate))))
		}
	}
	spent.took = time.Since(start)
	ownAfter, allAfter, err := cpuTimes()
	if err != nil {
		return spending{}, err
	}
	spent.sender = ownAfter - own
	spent.others = allAfter - all - spent.sender
	return spent, nil
}

// cpuTimes are the CPU time of the calling thread and of the whole process.
func cpuTimes() (thread, process time.Duration, err error) {
	for who, to := range map[int]*time.Duration{unix.RUSAGE_THREAD: &thread, unix.RUSAGE_SELF: &process} {
		var used unix.Rusage
		if err := unix.Getrusage(who, &used); err != nil {
			return 0, 0, fmt.Errorf("read the CPU time used: %w", err)
		}
		*to = time.Duration(used.Utime.Nano() + used.Stime.Nano())
	}
	return thread, process, nil
}

// address is the n-th of the run's network.
func address(v6 bool, n byte) netip.Addr {
	if v6 {
		return netip.AddrFrom16([16]byte{0xfd, 0, 14: 0xb, 15: n})
	}
	return netip.AddrFrom4([4]byte{10, 236, 0, n})
}

func routes(at netip.Addr, open func() (*routetime.Meter, error)) *measure.Routes {
	return measure.NewRoutes(measure.RoutesConfig{
		Address: at, Interval: 10 * time.Millisecond, Window: time.Hour,
		Open: open, Log: slog.New(slog.DiscardHandler),
	})
}
