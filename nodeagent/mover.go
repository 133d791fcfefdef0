package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/cgroup"
	"github.com/drover-project/drover/internal/filetree"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/refusals"
	"github.com/drover-project/drover/nodeagent/chain"
	"github.com/drover-project/drover/nodeagent/checkpoint"
	"github.com/drover-project/drover/nodeagent/files"
	"github.com/drover-project/drover/nodeagent/inspect"
	"github.com/drover-project/drover/nodeagent/lease"
	"github.com/drover-project/drover/nodeagent/migrate"
	"github.com/drover-project/drover/nodeagent/pages"
	"github.com/drover-project/drover/nodeagent/restore"
	"github.com/drover-project/drover/nodeagent/runtimeapi"
	"github.com/drover-project/drover/nodeagent/transfer"
)

// mover is the parts that move pods.
type mover struct {
	driver   *migrate.Driver
	receiver *transfer.Receiver
	sender   *transfer.Sender
	pages    *pages.Server
	marks    migrate.MarkDir
}

// ownGroup is the control group, beside the pods', for what Drover runs on the node.
const ownGroup = "drover"

// move wires the parts that move pods, and starts them.
func (a *agent) move(group *errgroup.Group, ctx context.Context) error {
	groups, err := cgroup.Host()
	if err != nil {
		return err
	}
	own, err := groups.Beside(os.Getpid(), ownGroup)
	if err != nil {
		return fmt.Errorf("find a control group for CRIU: %w", err)
	}
	kube := migrate.Kube{Client: a.cluster.direct}
	ends := lease.New(a.cfg.Layout, a.cfg.HostRoot, kube, a.log)
	dumps := checkpoint.New(checkpoint.Config{
		Layout: a.cfg.Layout, Groups: groups, Cgroup: own,
		Wrapper: a.cfg.Program, HostRoot: a.cfg.HostRoot, Runc: a.cfg.Runc, Root: checkpoint.DefaultRoot, Files: &a.files, LeaveFrom: a.leaveFrom, Frozen: ends.Hold, Log: a.log,
	})
	fetcher := &pages.Client{Address: a.agentOn, TLS: a.keeper.ClientConfig}
	copies := restore.New(restore.Config{Layout: a.cfg.Layout, Groups: groups, Cgroup: own, Log: a.log,
		Unpack: func(ctx context.Context, c files.Container, others []string) error {
			err := a.files.Unpack(ctx, c, others)
			if errors.Is(err, filetree.ErrUnfit) {
				a.refusals.Count(refusals.Copy)
			}
			return err
		},
		Inspect: func(images, bundle string, begun []string) error {
			err := inspect.Copy(images, a.cfg.HostRoot, bundle, begun...)
			if errors.Is(err, inspect.ErrRefused) {
				a.refusals.Count(refusals.Copy)
			}
			return err
		},
		Wrapper: a.cfg.Program, HostRoot: a.cfg.HostRoot, Memory: a.memory, Pages: fetcher.Read, Lost: a.memoryLost})
	a.marks = migrate.MarkDir(filepath.Join(a.cfg.Layout.Run, "begun"))
	images := &transfer.Store{Dir: a.cfg.Layout.Images(), Room: a.vault.ForCopy, Join: chain.Join}
	if err := images.Sweep(); err != nil {
		return err
	}
	metrics := transfer.NewMetrics()
	a.registry.MustRegister(metrics, a.refusals)
	a.sender = &transfer.Sender{Address: a.agentOn, TLS: a.keeper.ClientConfig, Metrics: metrics, Log: a.log}
	ahead := early{Checkpointer: migrate.Holding{Checkpointer: dumps, Addresses: ends}, sender: a.sender, size: dumps.Memory, files: dumps.Files, processes: dumps.Processes, hint: dumps.HintFiles, images: dumps.Images, log: a.log}
	if a.cfg.Precopy {
		ahead.limits = defaultPrecopy
		ahead.rounds = &tracked{cannot: a.cannotTrack, room: a.roomForRounds, write: dumps.PreDump, push: a.sender.Push, unpush: a.sender.Unpush, limits: defaultRounds}
	}
	a.driver = migrate.New(migrate.Config{Node: a.cfg.Node, BootID: a.bootID}, migrate.Ports{
		Records: kube, Cluster: evidence{kube, a},
		Checkpointer: spacious{Checkpointer: ahead, loaded: dumps.Loaded, size: dumps.Memory, files: dumps.Files, own: a.vault.Own, here: a.vault.ForDump, there: a.sender.Room, refusals: a.refusals}, Sender: a.sender, Images: stillNeeded{images, copies}, Runtime: copies,
		Fences: a.cfg.Layout.Fences(), Arrivals: a.cfg.Layout.Restored(),
		Marks: a.marks, Guard: guard{a}, Addresses: ends, Log: a.log,
	})
	if err := a.driver.Register(a.registry); err != nil {
		return err
	}
	a.receiver = &transfer.Receiver{
		Node: a.cfg.Node, Store: images, Admission: transfer.ByRecord{Records: kube}, Arrivals: a.driver, Metrics: metrics,
		Refusals: a.refusals, Log: a.log,
	}
	a.pages = &pages.Server{Node: a.cfg.Node, Admission: pages.ByRecord{Records: migrate.Kube{Client: a.cluster.asked}}, Held: dumps.Pages, Holds: dumps.Holds, Refusals: a.refusals, Log: a.log}
	group.Go(func() error { return dumps.Run(ctx, a.driver) })
	group.Go(func() error { return errors.Join(copies.Run(ctx, a.driver), fetcher.Close()) })
	server := &runtimeapi.Server{Socket: a.cfg.Layout.Socket(), Creates: copies, Dumps: dumps, Restores: copies}
	group.Go(func() error { return server.Run(ctx) })
	group.Go(func() error { return a.servePeers(ctx) })
	group.Go(func() error { return a.driver.Run(ctx) })
	leases := lease.NewWatch(lease.Config{Node: a.cfg.Node, Ends: ends, Records: kube, Fences: a.cfg.Layout.Fences(), Log: a.log,
		List: func(ctx context.Context) ([]v1alpha1.PodMigration, error) { return a.cluster.moves(ctx, false) }})
	group.Go(func() error { return leases.Run(ctx) })
	group.Go(func() error { return a.watchAbility(ctx) })
	group.Go(func() error { return a.keepForgetting(ctx) })
	group.Go(func() error { return a.keepForgettingImages(ctx, images, dumps) })
	group.Go(func() error { return a.keepEndingOrphans(ctx, dumps, copies) })
	changed := toolscache.ResourceEventHandlerFuncs{AddFunc: func(any) { leases.Changed() }, UpdateFunc: func(any, any) { leases.Changed() }}
	for _, h := range []toolscache.ResourceEventHandler{migrate.FollowMigrations(a.driver), changed} {
		if err := a.follow(ctx, &v1alpha1.PodMigration{}, h); err != nil {
			return err
		}
	}
	return a.follow(ctx, &corev1.Pod{}, migrate.FollowPods(a.driver))
}

// evidence is what the API server says, held against what gossip knows.
type evidence struct {
	migrate.Kube
	agent *agent
}

// BootID is that of the Node object. That the object is gone counts as a node's death only
// when the other nodes hold it for dead, too, or have forgotten it as one that has left: somebody
// may have deleted the object of a node that runs.
func (e evidence) BootID(ctx context.Context, node string) (bootID string, gone bool, err error) {
	bootID, gone, err = e.Kube.BootID(ctx, node)
	if err != nil || !gone {
		return bootID, gone, err
	}
	if !e.agent.joined.Load() {
		return "", false, fmt.Errorf("node %s has no Node object, and whether its agent lives is not known before gossip has been joined", node)
	}
	if why := unproven(e.agent.gossip.Snapshot(), e.agent.gossip.Settled(), model.NodeID(node)); why != "" {
		return "", false, fmt.Errorf("node %s has no Node object, but %s", node, why)
	}
	return "", true, nil
}

// agentOn is where another node's agent takes images.
func (a *agent) agentOn(node string) (string, error) {
	all, err := a.cluster.addresses(context.Background()) // from memory
	if err != nil {
		return "", err
	}
	addr, ok := all[model.NodeID(node)]
	if !ok {
		return "", fmt.Errorf("node %q has no internal address", node)
	}
	return net.JoinHostPort(addr.String(), strconv.Itoa(transfer.Port)), nil
}

// abilityInterval is how often the node is asked again whether it can take pods: CRIU may
// be installed, upgraded or broken at any time.
const abilityInterval = time.Minute

// recoveryInterval is the same while it cannot: moves wait for it.
const recoveryInterval = 5 * time.Second

func (a *agent) watchAbility(ctx context.Context) error {
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-next.C:
		}
		if a.vault.Problem() != "" {
			// What was in the way may be gone; Problem tells.
			if a.vault.Open() == nil {
				if err := a.cfg.Layout.Prepare(); err != nil {
					return err
				}
			}
		}
		why := a.vault.Problem()
		if why == "" {
			why = checkpoint.CannotRestore(ctx, a.cfg.Runc)
		}
		if why == "" {
			a.watchLazy(ctx)
			a.watchTracking(ctx)
		}
		if was := a.unable.Swap(&why); (was == nil || *was != why) && ctx.Err() == nil {
			a.log.Info("whether this node can take moved pods", "obstacle", why)
		}
		if why == "" {
			next.Reset(abilityInterval)
		} else {
			next.Reset(recoveryInterval)
		}
	}
}

func (a *agent) cannotRestore() string {
	if why := a.unable.Load(); why != nil {
		return *why
	}
	return "it has not been looked at yet"
}
