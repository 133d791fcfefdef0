package e2e

import (
	"context"
	"fmt"
	"maps"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/test/cluster"
	"github.com/drover-project/drover/test/witness"
)

// owned is a pod with an owner whose move is watched.
type owned struct {
	pod *corev1.Pod
	was witness.Tick
	to  string
	// made are the UIDs of all pods of the namespace that were ever seen.
	made *watched
}

func own(ctx context.Context, t *testing.T, c *cluster.Cluster, pod *corev1.Pod) owned {
	t.Helper()
	o := owned{pod: pod, was: must[witness.Tick](t)(c.Status(ctx, pod)), to: other(pod.Spec.NodeName)}
	heard(ctx, t, c, o.was.Instance, 10)
	o.made = watchPods(ctx, t, c, pod.Namespace)
	return o
}

// moves orders the move and wants it to come to its good end.
func (o owned) moves(ctx context.Context, t *testing.T, c *cluster.Cluster) *v1alpha1.PodMigration {
	t.Helper()
	m := must[*v1alpha1.PodMigration](t)(c.Ended(ctx, must[*v1alpha1.PodMigration](t)(c.Order(ctx, o.pod, o.to))))
	if m.Status.Phase != v1alpha1.PhaseCompleted {
		t.Fatalf("phase %s: %s: %s; conditions %+v", m.Status.Phase, m.Status.DecisionReason, m.Status.DecisionMessage, m.Status.Conditions)
	}
	return m
}

// goesOn wants the process of before in the pod of now.
func (o owned) goesOn(ctx context.Context, t *testing.T, c *cluster.Cluster, now *corev1.Pod) {
	t.Helper()
	last, _ := c.Witness.Last(o.was.Instance)
	heard(ctx, t, c, o.was.Instance, last.Seq+50)
	is := must[witness.Tick](t)(c.Status(ctx, now))
	if now.Spec.NodeName != o.to || is.Instance != o.was.Instance || is.Start != o.was.Start || is.Now != is.Start || is.Seq < o.was.Seq {
		t.Errorf("before %+v, after %+v on %s: want the same process with its memory on %s", o.was, is, now.Spec.NodeName, o.to)
	}
	if fault := c.Witness.Account(o.was.Instance).Fault(); fault != "" {
		t.Error(fault)
	}
}

// A StatefulSet's pod has its name, its ordinal and its DNS name after the move, and its set
// has seen one pod all the time.
func TestStatefulSetMoves(t *testing.T) {
	ctx, c, ns := scene(t, "statefulset")
	tick := cluster.Ticker{Namespace: ns, Name: "counter", HeapMiB: 32, Movable: true}
	check(t, c.Client.Create(ctx, c.Headless(tick)))
	check(t, c.Client.Create(ctx, c.StatefulSet(tick)))
	o := own(ctx, t, c, must[*corev1.Pod](t)(c.Ready(ctx, ns, "counter-0")))
	check(t, c.Resolves(ctx, "counter", "counter-0", o.pod))
	m := o.moves(ctx, t, c)
	t.Logf("%+v", m.Status.Conditions)
	pod := must[*corev1.Pod](t)(c.Ready(ctx, ns, "counter-0"))
	if pod.UID == o.pod.UID || !maps.Equal(pod.Labels, o.pod.Labels) || len(pod.OwnerReferences) != 1 || pod.OwnerReferences[0].UID != o.pod.OwnerReferences[0].UID {
		t.Errorf("labels %v, owners %v, before %v, %v", pod.Labels, pod.OwnerReferences, o.pod.Labels, o.pod.OwnerReferences)
	}
	o.goesOn(ctx, t, c, pod)
	check(t, c.Resolves(ctx, "counter", "counter-0", pod))
	check(t, cluster.Eventually(ctx, "the set is whole", func(ctx context.Context) (bool, string) {
		var set appsv1.StatefulSet
		if err := c.Client.Get(ctx, client.ObjectKey{Namespace: ns, Name: "counter"}, &set); err != nil {
			return false, err.Error()
		}
		s := set.Status
		return s.Replicas == 1 && s.ReadyReplicas == 1 && s.AvailableReplicas == 1 && s.CurrentReplicas == 1, fmt.Sprintf("%+v", s)
	}))
	o.made.were(t, 3) // the source, the moved one, the one with the name
	check(t, c.NothingOnHold(ctx, ns))
	crashStartsFresh(ctx, t, c, pod, o.was.Instance)
}

// A bare pod that asks for it keeps its name.
func TestBarePodKeepsItsName(t *testing.T) {
	ctx, c, ns := scene(t, "keepname")
	p := c.Pod(cluster.Ticker{Namespace: ns, Name: "counter", HeapMiB: 16, Movable: true})
	p.Annotations[v1alpha1.AnnotationKeepName] = "true"
	check(t, c.Client.Create(ctx, p))
	o := own(ctx, t, c, must[*corev1.Pod](t)(c.Ready(ctx, ns, "counter")))
	o.moves(ctx, t, c)
	o.goesOn(ctx, t, c, must[*corev1.Pod](t)(c.Ready(ctx, ns, "counter")))
	check(t, c.NothingOnHold(ctx, ns))
}

// A Job that forgives nothing counts no failure, and its pod's end once.
func TestJobMoves(t *testing.T) {
	for _, indexed := range []bool{false, true} {
		t.Run(fmt.Sprintf("indexed %t", indexed), func(t *testing.T) {
			ctx, c, ns := scene(t, "job")
			job := c.Job(cluster.Ticker{Namespace: ns, Name: "counter", HeapMiB: 32, Movable: true})
			if indexed {
				job.Spec.CompletionMode, job.Spec.Completions = ptr(batchv1.IndexedCompletion), ptr(int32(1))
			}
			check(t, c.Client.Create(ctx, job))
			o := own(ctx, t, c, must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, "counter")))
			o.moves(ctx, t, c)
			pod := must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, "counter"))
			if !maps.Equal(pod.Labels, o.pod.Labels) || pod.Annotations[batchv1.JobCompletionIndexAnnotation] != o.pod.Annotations[batchv1.JobCompletionIndexAnnotation] {
				t.Errorf("labels %v, annotations %v, before %v, %v", pod.Labels, pod.Annotations, o.pod.Labels, o.pod.Annotations)
			}
			o.goesOn(ctx, t, c, pod)
			check(t, c.NothingOnHold(ctx, ns))
			check(t, c.Done(ctx, pod))
			check(t, cluster.Eventually(ctx, "the Job is complete", func(ctx context.Context) (bool, string) {
				if err := c.Client.Get(ctx, client.ObjectKeyFromObject(job), job); err != nil {
					return false, err.Error()
				}
				for _, cond := range job.Status.Conditions {
					if cond.Type == batchv1.JobComplete && cond.Status == corev1.ConditionTrue {
						return true, ""
					}
				}
				return false, fmt.Sprintf("%+v", job.Status)
			}))
			if job.Status.Failed != 0 || job.Status.Succeeded != 1 {
				t.Errorf("the Job counts %d failed and %d succeeded, want 0 and 1", job.Status.Failed, job.Status.Succeeded)
			}
			o.made.were(t, 2)
		})
	}
}

func ptr[T any](v T) *T { return &v }
