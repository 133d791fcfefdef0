package nodeagent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcertificatesv1 "k8s.io/client-go/kubernetes/typed/certificates/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/cgroup"
	"github.com/drover-project/drover/internal/cpufeature"
	"github.com/drover-project/drover/internal/durable"
	"github.com/drover-project/drover/internal/gossip"
	"github.com/drover-project/drover/internal/hosted"
	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/refusals"
	"github.com/drover-project/drover/nodeagent/decide"
	"github.com/drover-project/drover/nodeagent/examine"
	"github.com/drover-project/drover/nodeagent/files"
	"github.com/drover-project/drover/nodeagent/locate"
	"github.com/drover-project/drover/nodeagent/measure"
	"github.com/drover-project/drover/nodeagent/podlog"
	"github.com/drover-project/drover/nodeagent/podpath"
	"github.com/drover-project/drover/nodeagent/vault"
)

// agent is the parts of a running agent.
type agent struct {
	cfg        Config
	log        *slog.Logger
	registry   *prometheus.Registry
	bootID     string
	cpu        model.CPU
	proc       examine.Proc // the node's: the agent shares its process namespace
	files      files.Node
	names      names
	asked      map[types.UID]model.Resources // by open moves, by their UIDs; of the deciding goroutine alone
	unable     atomic.Pointer[string]        // why this node cannot restore; nil: not looked yet
	notTracked atomic.Pointer[string]        // why memory is not written in rounds before pods are frozen; nil: not looked yet
	notLater   atomic.Pointer[string]        // why copies need all of their memory before they run; nil: not looked yet
	blind      atomic.Pointer[string]        // why contention is not measured here; nil: it is, or is about to be
	deaf       atomic.Pointer[string]        // why connections are not followed here; nil likewise
	ranged     atomic.Bool                   // pods have addresses of their Node's ranges, as it was last
	running    atomic.Bool                   // every part was started
	joined     atomic.Bool                   // gossip was set up

	lastNode atomic.Pointer[corev1.Node] // the own one, as it was last
	cluster  *cluster
	events   record.EventRecorder
	keeper   *identity.Keeper
	gossip   *gossip.Gossip
	places   *locate.Places

	routes        *measure.Routes // by the node path
	podPath       *podpath.Path
	load          *measure.LoadMeter
	links         *measure.Links
	contention    *measure.Contention
	conversations *measure.Conversations
	talkers       talkers
	patterns      patterns
	logs          *podlog.Follower

	vault    *vault.Vault
	refusals *refusals.Counter
	mover
}

// Run is the agent, until ctx ends or a part of it fails for good.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	v, err := openVault(cfg)
	if err != nil {
		return err
	}
	if err := cfg.Layout.Prepare(); err != nil {
		return err
	}
	for _, dir := range []string{cfg.Layout.State, string(cfg.Layout.Fences()), string(cfg.Layout.Restored())} {
		if err := durable.Sweep(dir); err != nil { // of an agent that was killed
			return fmt.Errorf("clear away what was written in part: %w", err)
		}
	}
	a := &agent{vault: v, refusals: refusals.New(refusals.Caller, refusals.Images, refusals.Container, refusals.Copy),
		cfg: cfg, log: cfg.Log, registry: prometheus.NewRegistry(), places: locate.New(cfg.Node, cfg.Log), proc: "/proc",
		files: files.Node{Host: cfg.HostRoot, Limits: cfg.Files, Own: v.Own}}
	a.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	boot, err := os.ReadFile(filepath.Join(cfg.HostRoot, "proc/sys/kernel/random/boot_id"))
	if err != nil {
		return fmt.Errorf("read the kernel's boot ID: %w", err)
	}
	a.bootID = strings.TrimSpace(string(boot))
	cpuinfo, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return fmt.Errorf("read what the processors offer: %w", err)
	}
	a.cpu = cpufeature.Parse(string(cpuinfo), "")
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	if err := a.start(ctx, group); err != nil {
		stop() // what was started already ends, so that the agent does and is started again
		return errors.Join(err, group.Wait())
	}
	return group.Wait()
}

// openVault finds a safe place for images. Without one the agent does all but move pods.
func openVault(cfg Config) (*vault.Vault, error) {
	groups, err := cgroup.Host()
	if err != nil {
		return nil, err
	}
	v := vault.New(vault.Config{
		Dir: cfg.Layout.Vault(), Size: cfg.ImageMemory, Disk: cfg.ImageDir, Proc: "/proc", InMounts: hosted.InMounts,
		Limit: func() (model.Bytes, bool, error) {
			left, limited, err := groups.MemoryLeft(os.Getpid())
			return model.Bytes(left), limited, err
		},
	})
	if err := v.Open(); err != nil {
		cfg.Log.Error("this node can neither send nor take pods", "err", err)
	}
	return v, nil
}

// start starts all parts, each when what it needs is there.
func (a *agent) start(ctx context.Context, group *errgroup.Group) error {
	if err := a.connect(ctx, group); err != nil {
		return err
	}
	subject, roots, err := a.certificate(ctx, group)
	if err != nil {
		return err
	}
	// Moves come first: what an earlier life of the agent left held waits for it, and needs
	// neither a certificate nor a measurement to be let go or ended.
	if err := a.move(group, ctx); err != nil {
		return err
	}
	group.Go(func() error { return a.serveStatus(ctx) })
	if err := a.followRecords(ctx); err != nil {
		return err
	}
	if _, err := a.keeper.Wait(ctx); err != nil {
		return err
	}
	if err := a.join(ctx, group, subject, roots); err != nil {
		return err
	}
	if err := a.measure(group, ctx); err != nil {
		return err
	}
	group.Go(func() error { return a.publish(ctx) })
	group.Go(func() error { return a.tellPhases(ctx) })
	group.Go(func() error {
		return decide.NewLoop(decide.LoopConfig{
			Config: a.cfg.Decide, Interval: decideInterval, Gather: a.gather, Order: a.order, Log: a.cfg.Log,
		}).Run(ctx)
	})
	a.running.Store(true)
	return nil
}

// connect reaches the API server.
func (a *agent) connect(ctx context.Context, group *errgroup.Group) error {
	group.Go(func() error { return a.serveMetrics(ctx) })
	var err error
	if a.cluster, err = newCluster(a.cfg); err != nil {
		return err
	}
	if err := whileAway(ctx, a.log, a.cluster.watch); err != nil {
		return err
	}
	group.Go(func() error { return a.cluster.cache.Start(ctx) })
	if !a.cluster.cache.WaitForCacheSync(ctx) {
		return fmt.Errorf("the API server %s was not read: %w", a.cfg.Kubernetes.Host, context.Cause(ctx))
	}
	return a.record(ctx)
}

// record sets up Events. The clients of all of Kubernetes' types in one would be a sixth of the
// program.
func (a *agent) record(ctx context.Context) error {
	core, err := typedcorev1.NewForConfig(a.cfg.Kubernetes)
	if err != nil {
		return fmt.Errorf("client of %s: %w", a.cfg.Kubernetes.Host, err)
	}
	b := record.NewBroadcaster()
	b.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: core.Events("")})
	context.AfterFunc(ctx, b.Shutdown)
	s, err := scheme()
	if err != nil {
		panic(err) // the same scheme was made before
	}
	a.events = b.NewRecorder(s, corev1.EventSource{Component: "drover-agent", Host: a.cfg.Node})
	return nil
}

// certificate begins to ask for the certificate that ties the agent's key to its Node
// object.
func (a *agent) certificate(ctx context.Context, group *errgroup.Group) (identity.Subject, *x509.CertPool, error) {
	roots, err := identity.LoadRoots(a.cfg.CAFile)
	if err != nil {
		return identity.Subject{}, nil, err
	}
	node, err := a.cluster.self(ctx)
	if err != nil {
		return identity.Subject{}, nil, err
	}
	certificates, err := typedcertificatesv1.NewForConfig(a.cfg.Kubernetes)
	if err != nil {
		return identity.Subject{}, nil, fmt.Errorf("client of %s: %w", a.cfg.Kubernetes.Host, err)
	}
	subject := identity.Subject{Node: model.NodeID(a.cfg.Node), NodeUID: string(node.UID)}
	a.keeper = identity.NewKeeper(identity.Config{
		Subject: subject, IPs: []net.IP{a.cfg.Address.AsSlice()}, Roots: roots,
		Requests: certificates.CertificateSigningRequests(),
		File:     filepath.Join(a.cfg.Layout.State, "identity.pem"), Log: a.log,
	})
	group.Go(func() error { return a.keeper.Run(ctx) })
	return subject, roots, nil
}

func (a *agent) join(ctx context.Context, group *errgroup.Group, subject identity.Subject, roots *x509.CertPool) error {
	var err error
	a.gossip, err = gossip.New(gossip.Config{
		Self: subject, Identity: a.keeper.Current, Roots: roots, KeyFile: a.cfg.GossipKeyFile,
		BindAddr: a.cfg.Address.String(), BindPort: gossip.DefaultPort,
		Seeds: a.seeds, Confirmer: a.places, Registerer: a.registry, Log: a.log,
	})
	if err != nil {
		return err
	}
	group.Go(func() error { return a.gossip.Run(ctx) })
	a.joined.Store(true)
	a.places.To(a.gossip)
	return nil
}

// seeds are the addresses of the cluster's nodes: an agent is on each.
func (a *agent) seeds(ctx context.Context) ([]string, error) {
	all, err := a.cluster.addresses(ctx)
	if err != nil {
		return nil, err
	}
	var seeds []string
	for id, addr := range all {
		if string(id) != a.cfg.Node {
			seeds = append(seeds, net.JoinHostPort(addr.String(), strconv.Itoa(gossip.DefaultPort)))
		}
	}
	return seeds, nil
}

// followRecords feeds the places from the records of moves.
func (a *agent) followRecords(ctx context.Context) error {
	return a.follow(ctx, &v1alpha1.PodMigration{}, toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) {
			if m, ok := o.(*v1alpha1.PodMigration); ok {
				a.places.See(m)
			}
		},
		UpdateFunc: func(_, o any) {
			if m, ok := o.(*v1alpha1.PodMigration); ok {
				a.places.See(m)
			}
		},
		DeleteFunc: func(o any) {
			if last, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
				o = last.Obj
			}
			if m, ok := o.(*v1alpha1.PodMigration); ok {
				a.places.Forget(m)
			}
		},
	})
}

func (a *agent) follow(ctx context.Context, of client.Object, h toolscache.ResourceEventHandler) error {
	informer, err := a.cluster.cache.GetInformer(ctx, of)
	if err == nil {
		_, err = informer.AddEventHandler(h)
	}
	if err != nil {
		return fmt.Errorf("follow %T: %w", of, err)
	}
	return nil
}

// measure starts what reads the kernel.
func (a *agent) measure(group *errgroup.Group, ctx context.Context) error {
	groups, kubepods, err := a.kubepods()
	if err != nil {
		return err
	}
	a.load = measure.NewLoadMeter(groups, kubepods, "/proc")
	pace := &measure.Pace{} // of both paths' probes
	routes := func(by model.Path, from netip.Addr, pins string) *measure.Routes {
		return measure.NewRoutes(measure.RoutesConfig{
			Address: from, Interval: measure.RouteInterval, Window: measure.RouteWindow, Pace: pace,
			Open: measure.OpenRouteMeter(pins, a.log), XDP: a.cfg.RouteXDP && by == model.PathNode, Log: a.log.With("path", by),
		})
	}
	a.routes = routes(model.PathNode, a.cfg.Address, a.pins("routetime"))
	a.podPath = podpath.New(podpath.Config{
		Proc: string(a.proc), Processes: a.proc.Of, Log: a.log,
		Routes: func(from netip.Addr) *measure.Routes { return routes(model.PathPod, from, "") },
	})
	a.contention = measure.NewContention(measure.ContentionConfig{
		Cgroups: groups, Kubepods: kubepods, Proc: "/proc", Interval: time.Second,
		Thresholds: a.cfg.Thresholds, Attach: measure.AttachWaitMeter(a.pins("contention"), a.log), Triggers: measure.OpenTriggers, Names: &a.names, Log: a.log,
	})
	a.links = measure.NewLinks("/sys", measure.RouteWindow, a.routes)
	a.conversations = measure.NewConversations(measure.ConversationsConfig{
		Node: model.NodeID(a.cfg.Node), Interval: measure.ConversationInterval, Window: measure.ConversationWindow,
		Attach:    func() (measure.ConversationMeter, error) { return measure.AttachConversationMeter(groups) },
		Endpoints: a.endpoints, Log: a.log,
	})
	a.logs = podlog.New(podlog.Config{HostRoot: a.cfg.HostRoot, Containers: a.patterned, Log: a.log})
	a.registry.MustRegister(a.load, a.links, a.contention, a.conversations, a.logs, healthMetrics{&a.names})
	for by, c := range map[model.Path]prometheus.Collector{model.PathNode: a.routes, model.PathPod: a.podPath} {
		prometheus.WrapRegistererWith(prometheus.Labels{"path": string(by)}, a.registry).MustRegister(c)
	}
	if _, err := a.refresh(ctx); err != nil {
		return err
	}
	group.Go(func() error { return a.routes.Run(ctx) })
	group.Go(func() error { return a.podPath.Run(ctx) })
	group.Go(func() error { return a.logs.Run(ctx) })
	group.Go(func() error {
		return a.keepMeasuring(ctx, "contention is not measured here", &a.blind, a.contention.Run)
	})
	group.Go(func() error {
		return a.keepMeasuring(ctx, "connections are not followed here", &a.deaf, a.conversations.Run)
	})
	return nil
}

// pins is where the programs of one kind are pinned; empty: nowhere.
func (a *agent) pins(kind string) string {
	if a.cfg.PinDir == "" {
		return ""
	}
	return filepath.Join(a.cfg.PinDir, kind)
}

// keepMeasuring runs one measurement. A kernel that refuses its programs costs the node what
// comes of them, not its agent: what is held here depends on it.
func (a *agent) keepMeasuring(ctx context.Context, otherwise string, refused *atomic.Pointer[string], run func(context.Context) error) error {
	for ctx.Err() == nil {
		refused.Store(nil)
		if err := run(ctx); err != nil && ctx.Err() == nil {
			why := err.Error()
			refused.Store(&why)
			a.log.Error(otherwise+", trying again", "error", err, "in", attachPause)
		}
		select {
		case <-ctx.Done():
		case <-time.After(attachPause):
		}
	}
	return nil
}

const attachPause = 30 * time.Second

// unready says what the agent still waits for; empty: nothing.
func (a *agent) unready() string {
	if !a.running.Load() {
		return "not running yet: waiting for the API server or for a certificate"
	}
	if a.unable.Load() == nil {
		return "not running yet: looking for CRIU"
	}
	return ""
}
