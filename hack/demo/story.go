package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/test/cluster"
	"github.com/drover-project/drover/test/witness"
)

const ns = "demo"

// story holds what was seen so far.
type story struct {
	*cluster.Cluster
	saw report
}

func (s *story) tell(ctx context.Context) error {
	remove, err := s.Namespace(ctx, ns)
	if err != nil {
		return err
	}
	defer remove()
	chapter("1. Three nodes; the route times between them, measured in the kernel")
	if err := s.show(ctx, "status"); err != nil {
		return err
	}
	counter, err := s.place(ctx)
	if err != nil {
		return err
	}
	if err := s.starve(ctx, counter); err != nil {
		return err
	}
	return s.saw.write("out/demo.json")
}

func chapter(title string) { fmt.Printf("\n\033[1m%s\033[0m\n\n", title) }

// show runs a verb of kubectl-drover and prints what it says.
func (s *story) show(ctx context.Context, args ...string) error {
	fmt.Printf("$ kubectl drover")
	for _, a := range args {
		fmt.Printf(" %s", a)
	}
	fmt.Println()
	out, err := s.Tool(ctx, append([]string{"-n", ns}, args...)...)
	fmt.Print(out)
	if err != nil {
		return fmt.Errorf("kubectl drover %v: %w", args, err)
	}
	return nil
}

// place puts a peer on n1, closes n1 to others, and lets the scheduler place the service.
func (s *story) place(ctx context.Context) (*corev1.Pod, error) {
	chapter("2. A service is placed near its peer")
	if err := s.Client.Create(ctx, s.Pod(cluster.Ticker{Namespace: ns, Name: "db", Node: "n1", Silent: true})); err != nil {
		return nil, err
	}
	if _, err := s.Ready(ctx, ns, "db"); err != nil {
		return nil, err
	}
	if err := s.Cordon(ctx, "n1", true); err != nil {
		return nil, err
	}
	fmt.Println("The peer, db, is on n1, and n1 is cordoned: the service has to go to n2 or n3.")
	err := s.Client.Create(ctx, s.Deployment(cluster.Ticker{
		Namespace: ns, Name: "counter", HeapMiB: 64, Work: 2 * time.Millisecond, Peers: "app=db", Movable: true,
	}))
	if err != nil {
		return nil, err
	}
	pod, err := s.OnlyPod(ctx, ns, "counter")
	if err != nil {
		return nil, err
	}
	if err := s.show(ctx, "explain", pod.Name); err != nil {
		return nil, err
	}
	if err := s.placement(ctx, pod, "n1"); err != nil {
		return nil, err
	}
	fmt.Printf("It was placed on %s.\n", pod.Spec.NodeName)
	if pod.Spec.NodeName != "n2" {
		return nil, fmt.Errorf("the service is on %s, want n2, the nearest to its peer", pod.Spec.NodeName)
	}
	return pod, nil
}

// starve lets a neighbour burn the service's node, and follows what the agent does.
func (s *story) starve(ctx context.Context, pod *corev1.Pod) error {
	was, err := s.Status(ctx, pod)
	if err != nil {
		return err
	}
	chapter("3. A noisy neighbour starves it")
	fmt.Printf("The service is process %s, at tick %d, with a heap of checksum %016x.\n", was.Instance, was.Seq, was.Start)
	if err := s.Client.Create(ctx, s.Neighbour(ns, "noisy", pod.Spec.NodeName, 8)); err != nil {
		return err
	}
	from := time.Now()
	fmt.Printf("A neighbour with 8 spinning threads has come to %s.\n", pod.Spec.NodeName)
	move, err := s.Ordered(ctx, ns)
	if err != nil {
		return err
	}
	fmt.Printf("After %.1f s the agent on %s decided: %s\n", time.Since(from).Seconds(), pod.Spec.NodeName, move.Spec.Message)

	chapter("4. It is moved, with its memory")
	if move, err = s.Ended(ctx, move); err != nil {
		return err
	}
	for _, e := range move.Status.Timeline {
		fmt.Printf("%8.3f s  %-12s %-16s %s\n", e.At.Sub(move.Status.Timeline[0].At.Time).Seconds(), e.By, e.Step, e.Message)
	}
	if move.Status.Phase != v1alpha1.PhaseCompleted {
		return fmt.Errorf("the move ended as %s: %s", move.Status.Phase, move.Status.DecisionMessage)
	}
	after, err := s.OnlyPod(ctx, ns, "counter")
	if err != nil {
		return err
	}
	return s.arrived(ctx, move, was, after)
}

// arrived holds what is there after the move against what was there before.
func (s *story) arrived(ctx context.Context, move *v1alpha1.PodMigration, was witness.Tick, pod *corev1.Pod) error {
	last, _ := s.Witness.Last(was.Instance)
	if err := s.Witness.Await(ctx, was.Instance, last.Seq+50); err != nil { // 50 ticks sum the whole heap
		return err
	}
	is, err := s.Status(ctx, pod)
	if err != nil {
		return err
	}
	fmt.Printf("\nNow it is process %s, at tick %d, with a heap of checksum %016x.\n", is.Instance, is.Seq, is.Now)
	chapter("5. Every node knows where it is")
	agree := s.AllKnow(ctx, pod, pod.Spec.NodeName)
	shown := s.show(ctx, "where", pod.Name)
	a := s.Witness.Account(was.Instance)
	s.saw.migration(move, a, is.Instance == was.Instance && is.Now == was.Start, agree == nil && shown == nil)
	if err := s.placement(ctx, pod, "n1", model.NodeID(move.Status.Source.Node)); err != nil {
		return err
	}
	fmt.Printf("\nThe witness heard %d ticks from %d places: none twice, none missing; the longest silence was %.0f ms, after tick %d.\n",
		a.Ticks, len(a.Froms), float64(a.Gap.Microseconds())/1000, a.GapAfter)
	if fault := a.Fault(); fault != "" {
		return fmt.Errorf("the witness: %s", fault)
	}
	if is.Instance != was.Instance || is.Now != was.Start {
		return fmt.Errorf("before %+v, after %+v: not the same process with its memory", was, is)
	}
	if agree != nil {
		return agree
	}
	return shown
}
