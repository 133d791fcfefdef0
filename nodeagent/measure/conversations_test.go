package measure

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/drover-project/drover/bpf/conversation"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/traffic"
	"github.com/drover-project/drover/test/netspace"
)

// holdersOf is who has which address.
type holdersOf map[netip.Addr]traffic.Endpoint

func (h holdersOf) Local(a netip.Addr) (traffic.Endpoint, bool) {
	e := h[a]
	return e, e.Node == "n1"
}
func (h holdersOf) Remote(a netip.Addr) traffic.Endpoint { return h[a] }
func (h holdersOf) IsNode(id model.NodeID) bool          { return id == "n1" || id == "n2" }

// readings are a meter's.
type readings struct {
	source  conversation.Source
	refused error
	next    []conversation.Reading
}

func (r *readings) Source() (conversation.Source, error) { return r.source, r.refused }
func (r *readings) Close() error                         { return nil }
func (r *readings) Read() (conversation.Reading, error) {
	if len(r.next) == 0 {
		return conversation.Reading{}, errors.New("no more readings")
	}
	now := r.next[0]
	r.next = r.next[1:]
	return now, nil
}

func newConversations(h holdersOf, attach func() (ConversationMeter, error)) *Conversations {
	return NewConversations(ConversationsConfig{
		Node: "n1", Interval: 10 * time.Millisecond, Window: time.Minute, Attach: attach,
		Endpoints: func(context.Context) (Endpoints, error) {
			if h == nil {
				return nil, errors.New("the cache is not read")
			}
			return h, nil
		}, Log: slog.New(slog.DiscardHandler),
	})
}

func TestConversationsAreOfNodesAndPods(t *testing.T) {
	address := netip.MustParseAddr
	n1, n2, pod, far, elsewhere := address("10.0.0.1"), address("10.0.0.2"), address("10.1.0.9"), address("10.2.0.9"), address("10.9.9.9")
	web := traffic.Endpoint{Node: "n1", Pod: model.PodID{Namespace: "shop", Name: "web", UID: "u"}}
	h := holdersOf{n1: {Node: "n1"}, n2: {Node: "n2"}, pod: web, far: {Node: "n2", Address: far.String()}}
	reading := conversation.Reading{Lost: 4, Pairs: map[conversation.Pair]conversation.Traffic{
		{Local: n1, Remote: n2}:        {Sent: 100, Received: 10, Connections: 1, Segments: 3, SmoothedRTT: 3 * time.Millisecond, MinRTT: 2 * time.Millisecond},
		{Local: pod, Remote: far}:      {Sent: 7, Received: 8, Connections: 1, Segments: 1, SmoothedRTT: 5 * time.Millisecond},
		{Local: far, Remote: pod}:      {Sent: 8, Received: 7, Connections: 1}, // another node's, on the same machine
		{Local: elsewhere, Remote: n2}: {Sent: 1 << 40, Connections: 1},
	}}
	meter := &readings{source: conversation.SockOps, refused: errors.New("no tracepoint"), next: []conversation.Reading{reading}}
	c := newConversations(h, nil)
	now := time.Now()
	c.config.Endpoints = newConversations(nil, nil).config.Endpoints
	if err := c.read(t.Context(), now, now.Add(time.Second), meter); err == nil || len(meter.next) != 1 {
		t.Fatalf("%v: nobody's names are known, and %d readings are left", err, len(meter.next))
	}
	c.config.Endpoints = newConversations(h, nil).config.Endpoints
	if err := c.read(t.Context(), now, now.Add(2*time.Second), meter); err != nil {
		t.Fatal(err)
	}
	c.attached(conversation.SockOps)
	if got := c.Report().Talks; len(got) != 2 || got[0].Sent != 100 || got[0].Sending != 50 || got[1].Local != web || got[1].Remote != h[far] || got[1].Received != 8 {
		t.Errorf("%+v", got)
	}
	for _, m := range []struct {
		want   float64
		name   string
		labels []string
	}{
		{.003, "drover_connection_smoothed_rtt_seconds", []string{"path", "node", "peer", "n2"}},
		{.002, "drover_connection_min_rtt_seconds", []string{"path", "node", "peer", "n2"}},
		{.005, "drover_connection_smoothed_rtt_seconds", []string{"path", "pod", "peer", "n2"}},
		{107, "drover_connection_bytes_total", []string{"direction", "sent", "peer", "n2"}},
		{18, "drover_connection_bytes_total", []string{"direction", "received", "peer", "n2"}},
		{1, "drover_connection_source", []string{"source", "sock_ops"}},
		{0, "drover_connection_source", []string{"source", "tracepoint"}},
		{4, "drover_connection_lost_total", nil},
	} {
		if got := metric(t, c, m.name, m.labels...); got != m.want {
			t.Errorf("%s%v is %v, want %v", m.name, m.labels, got, m.want)
		}
	}
}

// On real connections over a link with a set delay, the round trips are at least that, and
// every byte is counted; of a node that shares the kernel nothing is told.
func TestConversationsOnRealConnections(t *testing.T) {
	const oneWay = 4 * time.Millisecond
	net := newRouteNet(t, "n1", "n2")
	net.delay(t, "n1", "n2", oneWay)
	h := holdersOf{net.address["n1"]: {Node: "n1"}, net.address["n2"]: {Node: "n2"}}
	c := newConversations(h, func() (ConversationMeter, error) { return AttachConversationMeter(Cgroups{}) })
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	until(t, "the programs are attached", func() bool { return metric(t, c, "drover_connection_source", "source", "tracepoint") == 1 })

	const asked, answered, times = 20, 3000, 10
	talk(t, net, asked, answered, times)
	until(t, "everything is counted", func() bool {
		return metric(t, c, "drover_connection_bytes_total", "direction", "received", "peer", "n2") >= answered*times &&
			metric(t, c, "drover_connection_bytes_total", "direction", "sent", "peer", "n2") >= asked*times
	})
	r := c.Report()
	if len(r.Talks) != 1 || len(r.Peers) != 1 || r.Peers[0].Sent != asked*times || r.Peers[0].Received != answered*times {
		t.Fatalf("%+v", r)
	}
	trip := r.Peers[0].RoundTrips[traffic.NodePath]
	if trip.Min < 2*oneWay || trip.Min > 3*oneWay || trip.Smoothed < trip.Min {
		t.Errorf("round trips %+v with a delay of %v each way", trip, oneWay)
	}
}

// talk has n1 ask and n2 answer so many times, on one connection.
func talk(t *testing.T, n *routeNet, asked, answered, times int) {
	t.Helper()
	var l *net.TCPListener
	var client net.Conn
	err := netspace.In(n.spaces["n2"], func() (err error) {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(n.address["n2"], 0)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := netspace.In(n.spaces["n1"], func() (err error) {
		client, err = net.DialTimeout("tcp", l.Addr().String(), 10*time.Second)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	for range times {
		for _, step := range []struct {
			from, to net.Conn
			n        int
		}{{client, server, asked}, {server, client, answered}} {
			if _, err := step.from.Write(make([]byte, step.n)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.CopyN(io.Discard, step.to, int64(step.n)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestConversationsThatCannotBeSeen(t *testing.T) {
	refused := errors.New("operation not permitted")
	c := newConversations(holdersOf{}, func() (ConversationMeter, error) { return nil, refused })
	if err := c.Run(t.Context()); !errors.Is(err, refused) {
		t.Errorf("Run gives %v", err)
	}
	if got := metric(t, c, "drover_connection_source", "source", "none"); got != 1 {
		t.Errorf("the source none is %v", got)
	}
}
