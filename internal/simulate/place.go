// Package simulate places pods in a cluster that is not there: what would a profile of the scheduler
// have done? Every profile places the same pods, in the same order, from the same start, by
// kube-scheduler's own code against a client that is held in memory.
//
// What is not simulated: the order of the scheduler's queue, preemption, extenders, and what other
// controllers do meanwhile. Clocks stand still at the moment of the measurements.
package simulate

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
)

// Placement is what became of one pod.
type Placement struct {
	// Pod is as it was bound; as it was to be placed, where it was not.
	Pod *corev1.Pod
	// Node is empty where the pod is pending.
	Node string
	// Reason is why it is pending, in the scheduler's words.
	Reason string
}

// placer places pods by one profile.
type placer struct {
	scheduler *scheduler.Scheduler
	profile   framework.Framework
	pods      cache.Indexer
}

// place places the pods by one profile of a configuration; lots are drawn by seed. placed is told
// after each.
func place(ctx context.Context, c *Cluster, pods []*corev1.Pod, conf *config.KubeSchedulerConfiguration, profile config.KubeSchedulerProfile, more frameworkruntime.Registry, seed uint64, placed func()) ([]Placement, error) {
	ctx, stop := context.WithCancel(ctx)
	p, ended, err := newPlacer(ctx, c, conf, profile, more, seed)
	defer func() {
		stop()
		ended()
	}()
	if err != nil {
		return nil, fmt.Errorf("profile %s: %s", profile.SchedulerName, oneLine(err))
	}
	all := make([]Placement, 0, len(pods))
	for _, pod := range pods {
		pod = pod.DeepCopy()
		pod.Spec.SchedulerName = profile.SchedulerName
		one, err := p.one(ctx, pod)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("profile %s: %w", profile.SchedulerName, ctx.Err())
		}
		if err != nil {
			return nil, fmt.Errorf("profile %s: place pod %s/%s: %s", profile.SchedulerName, pod.Namespace, pod.Name, oneLine(err))
		}
		all = append(all, one)
		placed()
	}
	return all, nil
}

// newPlacer makes a scheduler that knows the cluster. ended waits, once the context has ended,
// until all that was started has.
func newPlacer(ctx context.Context, c *Cluster, conf *config.KubeSchedulerConfiguration, profile config.KubeSchedulerProfile, more frameworkruntime.Registry, seed uint64) (p *placer, ended func(), err error) {
	client, err := c.client()
	if err != nil {
		return nil, func() {}, err
	}
	informers, handlers := newInformers(client)
	s, err := scheduler.New(ctx, client, informers, nil, func(string) events.EventRecorder { return silence{} },
		scheduler.WithComponentConfigVersion(conf.APIVersion),
		scheduler.WithProfiles(profile),
		scheduler.WithPercentageOfNodesToScore(conf.PercentageOfNodesToScore),
		// One at a time: which nodes are looked at first is no race then.
		scheduler.WithParallelism(1),
		scheduler.WithFrameworkOutOfTreeRegistry(more),
	)
	if err != nil {
		return nil, informers.Shutdown, err
	}
	informers.Start(ctx.Done())
	if err := handlers.wait(ctx); err != nil {
		return nil, informers.Shutdown, err
	}
	informers.WaitForCacheSync(ctx.Done())
	if err := s.WaitForHandlersSync(ctx); err != nil {
		return nil, informers.Shutdown, err
	}
	return &placer{
		scheduler: s,
		profile:   newChooser(s.Profiles[profile.SchedulerName], seed),
		pods:      informers.Core().V1().Pods().Informer().GetIndexer(),
	}, informers.Shutdown, nil
}

// one does what Scheduler.ScheduleOne does, but for what it does beside the next pod, and for
// preemption. The pod counts for the next ones as one that was bound.
func (p *placer) one(ctx context.Context, pod *corev1.Pod) (Placement, error) {
	log := klog.FromContext(ctx)
	for _, gate := range p.profile.PreEnqueuePlugins() {
		if s := gate.PreEnqueue(ctx, pod); !s.IsSuccess() {
			return Placement{Pod: pod, Reason: s.Message()}, nil
		}
	}
	state := framework.NewCycleState()
	state.Write(framework.PodsToActivateKey, framework.NewPodsToActivate())
	found, err := p.scheduler.SchedulePod(ctx, p.profile, state, pod)
	var unfit *framework.FitError
	if errors.As(err, &unfit) {
		return Placement{Pod: pod, Reason: unfit.Error()}, nil
	}
	if err != nil {
		return Placement{}, err
	}
	bound := pod.DeepCopy()
	bound.Spec.NodeName = found.SuggestedHost
	if err := p.scheduler.Cache.AssumePod(log, bound); err != nil {
		return Placement{}, err
	}
	status := p.profile.RunReservePluginsReserve(ctx, state, bound, bound.Spec.NodeName)
	if status.IsSuccess() {
		status = p.profile.RunPermitPlugins(ctx, state, bound, bound.Spec.NodeName)
	}
	if status.IsSuccess() {
		return Placement{Pod: bound, Node: bound.Spec.NodeName}, p.pods.Add(bound)
	}
	p.profile.RunReservePluginsUnreserve(ctx, state, bound, bound.Spec.NodeName)
	if err := p.scheduler.Cache.ForgetPod(log, bound); err != nil {
		return Placement{}, err
	}
	if status.IsRejected() || status.IsWait() {
		return Placement{Pod: pod, Reason: status.Message()}, nil
	}
	return Placement{}, status.AsError()
}
