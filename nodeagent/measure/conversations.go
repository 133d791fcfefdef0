package measure

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/drover-project/drover/bpf/conversation"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/traffic"
)

const (
	// ConversationInterval is the time between two readings of connections' counters.
	ConversationInterval = 5 * time.Second
	// ConversationWindow is what rates and round trips of connections are of.
	ConversationWindow = time.Minute

	// mostTalks bounds how many pairs of endpoints are told apart.
	mostTalks = 4096
)

// ConversationMeter counts what connections carry. conversation.Attach gives the real one.
type ConversationMeter interface {
	Read() (conversation.Reading, error)
	Source() (conversation.Source, error)
	Close() error
}

// AttachConversationMeter loads the kernel programs; groups tell where sock_ops goes when the
// tracepoint cannot be had.
func AttachConversationMeter(groups Cgroups) (ConversationMeter, error) {
	return conversation.Attach(groups.unified())
}

// Endpoints say who has an address at the moment that they were made.
type Endpoints interface {
	// Local is false for an address that is neither the node's nor of one of its pods.
	Local(netip.Addr) (traffic.Endpoint, bool)
	Remote(netip.Addr) traffic.Endpoint
	// IsNode tells whether there is such a node.
	IsNode(model.NodeID) bool
}

// ConversationsConfig is what a Conversations works with. All fields are wanted.
type ConversationsConfig struct {
	Node model.NodeID
	// Interval between two readings, and the Window of rates and round trips:
	// ConversationInterval and ConversationWindow.
	Interval, Window time.Duration
	Attach           func() (ConversationMeter, error)
	// Endpoints is called for every reading.
	Endpoints func(context.Context) (Endpoints, error)
	Log       *slog.Logger
}

// Conversations follows what the connections of the node and its pods carry. It is also a
// prometheus.Collector.
type Conversations struct {
	config ConversationsConfig

	mu     sync.Mutex
	ledger *traffic.Ledger
	at     time.Time // of the last reading
	source conversation.Source
	lost   uint64
}

// NewConversations makes a Conversations; Run starts it.
func NewConversations(config ConversationsConfig) *Conversations {
	return &Conversations{config: config, ledger: traffic.NewLedger(config.Node, config.Window, mostTalks)}
}

// Run loads the kernel programs and reads at every interval until ctx ends. It returns an
// error when they cannot be loaded; one reading that fails is logged and made up for by the next.
func (c *Conversations) Run(ctx context.Context) error {
	meter, err := c.config.Attach()
	if err != nil {
		return fmt.Errorf("follow connections: %w", err)
	}
	source, refused := meter.Source()
	if refused != nil {
		c.config.Log.Warn("connections that are open already are not seen", "source", source, "error", refused)
	}
	c.attached(source)
	defer c.attached("")
	begin := time.Now()
	tick := time.NewTicker(c.config.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return meter.Close()
		case <-tick.C:
		}
		now := time.Now()
		if err := c.read(ctx, begin, now, meter); err != nil {
			c.config.Log.Warn("what connections carry was not read", "error", err)
			continue
		}
		begin = now
	}
}

func (c *Conversations) attached(source conversation.Source) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.source = source
}

// read takes in what was carried between then and now. Who has an address is asked first: a
// reading that was taken is not given again.
func (c *Conversations) read(ctx context.Context, then, now time.Time, meter ConversationMeter) error {
	endpoints, err := c.config.Endpoints(ctx)
	if err != nil {
		return err
	}
	r, err := meter.Read()
	if err != nil {
		return err
	}
	exchanges := make([]traffic.Exchange, 0, len(r.Pairs))
	for pair, t := range r.Pairs {
		local, ok := endpoints.Local(pair.Local)
		if !ok {
			continue
		}
		exchanges = append(exchanges, traffic.Exchange{
			Local: local, Remote: endpoints.Remote(pair.Remote), Sent: model.Bytes(t.Sent), Received: model.Bytes(t.Received),
			RoundTrip: traffic.RoundTrip{Smoothed: t.SmoothedRTT, Min: t.MinRTT, Segments: t.Segments},
		})
	}
	// Who talks most is told apart first.
	slices.SortFunc(exchanges, func(a, b traffic.Exchange) int { return cmp.Compare(b.Sent+b.Received, a.Sent+a.Received) })
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ledger.Feed(then, now, exchanges)
	c.ledger.Keep(endpoints.IsNode)
	c.at, c.lost = now, r.Lost
	return nil
}

// Report gives the last reading; its At is zero before the first one. Links are for the caller.
func (c *Conversations) Report() traffic.Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	return traffic.Report{At: c.at, Window: c.config.Window, Source: string(c.source), Lost: c.lost,
		Talks: c.ledger.Talks(), Peers: c.ledger.Peers()}
}

// Peers gives what is known of the other nodes' connections, and when it was read; zero: never.
func (c *Conversations) Peers() ([]traffic.Peer, time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ledger.Peers(), c.at
}
