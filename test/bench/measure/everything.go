package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/pressure"
	"github.com/drover-project/drover/internal/processors"
	"github.com/drover-project/drover/internal/traffic"
	"github.com/drover-project/drover/nodeagent/measure"
)

// The pod whose container the servers are in.
const (
	podUID = "0a1b2c3d-1111-4222-8333-444455556666"
	podsIn = benchGroup + "/kubepods"
)

var container = path.Join(podsIn, "pod"+podUID, strings.Repeat("c", 64))

type names struct{}

func (names) Container(uid, _ string) (model.PodID, string, bool) {
	return model.PodID{Namespace: "bench", Name: "server", UID: uid}, "server", true
}

// endpoints are the two hosts.
type endpoints struct{ self netip.Addr }

func (e endpoints) Local(a netip.Addr) (traffic.Endpoint, bool) {
	return traffic.Endpoint{Node: "origin"}, a == e.self
}

func (endpoints) Remote(netip.Addr) traffic.Endpoint { return traffic.Endpoint{Node: "peer"} }

func (endpoints) IsNode(model.NodeID) bool { return true }

// everything measures as an agent does, at its pace. The second of two on one machine leaves
// out what is there once a kernel.
func everything(args []string, begin func() <-chan struct{}) error {
	self, peer := netip.MustParseAddr(args[0]), netip.MustParseAddr(args[1])
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	if err := processors.Rest(); err != nil {
		return err
	}
	routes := measure.NewRoutes(measure.RoutesConfig{Address: self, Interval: measure.RouteInterval,
		Window: measure.RouteWindow, Open: measure.OpenRouteMeter("", log), Log: log})
	routes.SetPeers(map[model.NodeID]netip.Addr{"peer": peer})
	cgroups, err := measure.OpenCgroups("/sys/fs/cgroup")
	if err != nil {
		return err
	}
	contention := measure.NewContention(measure.ContentionConfig{Cgroups: cgroups, Kubepods: podsIn, Proc: "/proc",
		Interval: time.Second, Thresholds: pressure.Default(), Attach: measure.AttachWaitMeter("", log), Triggers: measure.OpenTriggers, Names: names{}, Log: log})
	conversations := measure.NewConversations(measure.ConversationsConfig{Node: "origin", Interval: measure.ConversationInterval,
		Window: measure.ConversationWindow, Attach: func() (measure.ConversationMeter, error) { return measure.AttachConversationMeter(cgroups) },
		Endpoints: func(context.Context) (measure.Endpoints, error) { return endpoints{self}, nil }, Log: log})
	group, ctx := errgroup.WithContext(context.Background())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	end := begin()
	group.Go(func() error { return routes.Run(ctx) })
	if args[2] == "first" {
		group.Go(func() error { return contention.Run(ctx) })
		group.Go(func() error { return conversations.Run(ctx) })
	}
	// It counts from when there is something to show.
	if err := until(ctx, func() bool {
		return len(routes.Snapshot()) > 0 && (args[2] != "first" || !contention.Snapshot().At.IsZero())
	}); err != nil {
		return fmt.Errorf("nothing was measured: %w", err)
	}
	fmt.Println("measuring")
	<-end
	cancel()
	return group.Wait()
}

func until(ctx context.Context, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}
