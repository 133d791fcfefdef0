package main

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/scheduler/framework"

	"github.com/drover-project/drover/internal/gossip"
	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/keyring"
	"github.com/drover-project/drover/internal/view"
)

// restartPause is waited before gossip is tried again that could not listen.
const restartPause = 5 * time.Second

// observer hears the agents' gossip and gives the newest picture. The scheduler makes its
// plugins before gossip runs and its informers after, so both are put in later; until
// then the picture is empty and no agent is known.
type observer struct {
	gossip atomic.Pointer[gossip.Gossip]
	pods   atomic.Pointer[corelisters.PodLister]
}

// Snapshot implements plugin.Views.
func (o *observer) Snapshot() view.Snapshot {
	if g := o.gossip.Load(); g != nil {
		return g.Snapshot()
	}
	return view.Snapshot{At: time.Now()}
}

// find takes the pods' informer from the scheduler: the agents' addresses come from the
// pods that it watches anyway.
func (o *observer) find(h framework.Handle) {
	lister := h.SharedInformerFactory().Core().V1().Pods().Lister()
	o.pods.Store(&lister)
}

// prepare reads the files and gives the function that takes part until its context ends.
func (o *observer) prepare(opts *options, registry prometheus.Registerer, log klog.Logger) (func(context.Context), error) {
	if _, err := keyring.Load(opts.gossipKeyFile); err != nil {
		return nil, err
	}
	roots, err := identity.LoadRoots(opts.caFile)
	if err != nil {
		return nil, err
	}
	g, err := gossip.New(gossip.Config{
		Self:       identity.Subject{Observer: opts.podName},
		Roots:      roots,
		KeyFile:    opts.gossipKeyFile,
		BindAddr:   opts.bindAddress,
		BindPort:   opts.port,
		Seeds:      func(context.Context) ([]string, error) { return o.seeds(opts) },
		Registerer: registry,
		Log:        slog.New(logr.ToSlogHandler(log.WithName("gossip"))),
	})
	if err != nil {
		return nil, err
	}
	o.gossip.Store(g)
	return func(ctx context.Context) { keep(ctx, g, log) }, nil
}

// keep runs gossip again when it cannot listen: pods are scheduled in the meantime, only
// without measurements.
func keep(ctx context.Context, g *gossip.Gossip, log klog.Logger) {
	for {
		err := g.Run(ctx)
		if ctx.Err() != nil {
			if err != nil {
				log.Error(err, "Gossip did not end cleanly")
			}
			return
		}
		log.Error(err, "Gossip ended, pods are placed without measurements until it runs again", "in", restartPause)
		select {
		case <-ctx.Done():
			return
		case <-time.After(restartPause):
		}
	}
}

// seeds are the addresses of the agents that run, from the informer's memory.
func (o *observer) seeds(opts *options) ([]string, error) {
	lister := o.pods.Load()
	if lister == nil {
		return nil, nil
	}
	selector, err := labels.Parse(opts.agents)
	if err != nil {
		return nil, err
	}
	pods, err := (*lister).Pods(opts.namespace).List(selector)
	if err != nil {
		return nil, err
	}
	var seeds []string
	for _, p := range pods {
		if p.Status.Phase == corev1.PodRunning && p.Status.PodIP != "" {
			seeds = append(seeds, net.JoinHostPort(p.Status.PodIP, strconv.Itoa(opts.port)))
		}
	}
	slices.Sort(seeds)
	return seeds, nil
}
