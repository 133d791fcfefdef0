package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// run is what one profile did in one round.
type run struct {
	perSecond float64 // pods bound while a backlog was there
	p50, p99  float64 // ms from the pod's being made to its being bound, of a steady stream
}

// load is what is scheduled in every round.
type load struct {
	pods int     // a backlog that waits when the scheduler starts
	more int     // then come in a stream
	rate float64 // pods a second of the stream
}

// bindings follows which pods are bound, and when it was seen.
type bindings struct {
	mu   sync.Mutex
	at   map[string]time.Time
	more chan struct{} // after each
}

// follow hears of all pods of a round. An API server ends a watch that is read too slowly; an informer begins anew.
func (b *bindings) follow(ctx context.Context, set kubernetes.Interface) error {
	factory := informers.NewSharedInformerFactoryWithOptions(set, 0, informers.WithNamespace("default"),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = "app=web" }))
	pods := factory.Core().V1().Pods().Informer()
	if _, err := pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { b.hear(obj) },
		UpdateFunc: func(_, obj any) { b.hear(obj) },
	}); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), pods.HasSynced) {
		return fmt.Errorf("list the pods of a round: %w", ctx.Err())
	}
	return nil
}

func (b *bindings) hear(obj any) {
	p, ok := obj.(*corev1.Pod)
	if !ok || p.Spec.NodeName == "" {
		return
	}
	b.mu.Lock()
	if _, known := b.at[p.Name]; !known {
		b.at[p.Name] = time.Now()
	}
	b.mu.Unlock()
	select {
	case b.more <- struct{}{}:
	default:
	}
}

// wait returns once so many pods are bound, or the scheduler has ended.
func (b *bindings) wait(ctx context.Context, n int, ended <-chan error) error {
	for {
		b.mu.Lock()
		bound := len(b.at)
		b.mu.Unlock()
		if bound >= n {
			return nil
		}
		select {
		case <-b.more:
		case err := <-ended:
			return fmt.Errorf("the scheduler ended with %d of %d pods bound: %v", bound, n, err)
		case <-ctx.Done():
			return fmt.Errorf("%d of %d pods are bound: %w", bound, n, ctx.Err())
		}
	}
}

// perSecond is at what rate pods were bound, from the first to the last.
func (b *bindings) perSecond() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	first, last := time.Time{}, time.Time{}
	for _, at := range b.at {
		if first.IsZero() || at.Before(first) {
			first = at
		}
		if at.After(last) {
			last = at
		}
	}
	return float64(len(b.at)-1) / last.Sub(first).Seconds()
}

// round has one profile schedule the load.
func (c *cluster) round(ctx context.Context, dir string, number int, p profile, l load) (r run, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	name := func(part string, i int) string { return fmt.Sprintf("web-%d-%s-%d", number, part, i) }
	create := func(name string) error {
		_, err := c.set.CoreV1().Pods("default").Create(ctx, newPod(name, p.peers), metav1.CreateOptions{})
		return err
	}
	if err := each(l.pods, func(i int) error { return create(name("backlog", i)) }); err != nil {
		return r, fmt.Errorf("make a backlog of pods: %w", err)
	}
	seen := &bindings{at: map[string]time.Time{}, more: make(chan struct{}, 1)}
	if err := seen.follow(ctx, c.set); err != nil {
		return r, err
	}

	stop, ended, err := c.start(ctx, dir, p)
	if err != nil {
		return r, err
	}
	defer func() {
		if e := stop(); err == nil {
			err = e
		}
		if e := c.clear(ctx); err == nil {
			err = e
		}
	}()
	if err := seen.wait(ctx, l.pods, ended); err != nil {
		return r, err
	}
	r.perSecond = seen.perSecond()

	made := map[string]time.Time{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	tick := time.NewTicker(time.Duration(float64(time.Second) / l.rate))
	defer tick.Stop()
	var failed error
	for i := range l.more {
		<-tick.C
		wg.Go(func() {
			err := create(name("stream", i))
			mu.Lock()
			defer mu.Unlock()
			made[name("stream", i)] = time.Now()
			if err != nil {
				failed = err
			}
		})
	}
	wg.Wait()
	if failed != nil {
		return r, fmt.Errorf("make a stream of pods: %w", failed)
	}
	if err := seen.wait(ctx, l.pods+l.more, ended); err != nil {
		return r, err
	}
	var latencies []float64
	seen.mu.Lock()
	defer seen.mu.Unlock()
	for name, at := range made {
		latencies = append(latencies, max(0, seen.at[name].Sub(at).Seconds()*1e3))
	}
	r.p50, r.p99 = median(latencies), quantile(latencies, 0.99)
	return r, nil
}

// start starts a scheduler as a process of its own. What it says is in a file beside its configuration.
func (c *cluster) start(ctx context.Context, dir string, p profile) (stop func() error, ended <-chan error, err error) {
	kubeconfig, file := filepath.Join(dir, "kubeconfig"), filepath.Join(dir, p.name+".yaml")
	if err := os.WriteFile(kubeconfig, c.kubeconfig, 0o600); err != nil {
		return nil, nil, err
	}
	if err := os.WriteFile(file, []byte(p.configuration(kubeconfig)), 0o600); err != nil {
		return nil, nil, err
	}
	said, err := os.Create(filepath.Join(dir, p.name+".log"))
	if err != nil {
		return nil, nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-schedule", file, "-nodes", fmt.Sprint(len(c.world.names)), fmt.Sprintf("-events=%v", c.events))
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start a scheduler: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait(); close(done); said.Close() }()
	return func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
			return nil
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			return fmt.Errorf("the scheduler of %s did not end within 20 s", p.name)
		}
	}, done, nil
}
