package controller

import (
	"context"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
)

// players are the scheduler, the two agents, kubelet and the ReplicaSet controller, each
// as simple as it can be, and what a test wants to happen.
type players struct {
	noScheduler bool
	// unbound: so many turns the scheduler takes.
	unbound  int
	noCommit bool
	// noWaiter: the replacement's create never reaches drover-runc.
	noWaiter bool
	// targetDies: after the commit, before the acknowledgement; the source takes the pod back.
	targetDies bool
	// targetFails: after the commit its copy is dead, and nobody takes the pod back.
	targetFails bool
	// targetLost: its node is gone after the commit, when the copy was starting.
	targetLost bool
	// neverEnds: the source's agent never says that the processes are gone.
	neverEnds bool
	// readyEarly: the replacement looks ready before the acknowledgement.
	readyEarly bool
	// endsSoon: the restored container has done its work as soon as it runs.
	endsSoon bool
	settling int
	// unready: so many turns kubelet takes to say that the replacement runs, and is ready.
	unready int
	// slow: so many turns the target takes to resume.
	slow int
	// loading: so many turns the copy of a move with postCopy lacks memory.
	loading int
	// ending: how long kubelet has been at ending a pod with the finalizer grace.
	ending int
	// event happens once, when the condition is true.
	when func(*v1alpha1.PodMigration) bool
	at   func(*world) bool
	then func(*world)
	// noRoom: so many second steps find no node; step2Dies: of so many the target dies
	// after the commit.
	noRoom, step2Dies int
	// refuses is what another than the chart's policy says to a dry run of a creation.
	refuses error
	// apart: the pods' spec keeps pods of their labels apart.
	apart bool
	// later is how many replacements are made beside the first, at most.
	later int
	// notCarried: the network does not carry what the target's agent sends to the old address.
	notCarried bool
	// notAsked: the agents know nothing of connections.
	notAsked bool
	// endless connections of the old address, or how long there have been none.
	endless bool
	idle    int
	// targetAway: the target's agent has not heard that the lease has ended.
	targetAway bool
	// holderAway: the agent that holds an address of before has not heard where the pod is now.
	holderAway bool
	// refusesImage is what is said to another image of the source.
	refusesImage error
	// mirrors: a webhook gives pods another image than they are given.
	mirrors bool
	// refusesRelease is what is said when the source is to lose its owner.
	refusesRelease error
	// stale: the server that serves another's policies is away; unlistable is what is said to who lists
	// them.
	stale      bool
	unlistable error
	// relabels: something gives the source a label back that it loses; strips: it takes the mark of
	// a lease off again.
	relabels, strips bool
	// adopting is the replacement that was given away last.
	adopting types.UID
}

// play gives everybody one turn.
func (w *world) play() {
	for _, m := range w.moves() {
		w.schedule(&m)
		w.agents(w.refresh(&m))
	}
	for _, m := range w.moves() {
		w.carry(&m)
	}
	if w.when != nil && w.when(w.move()) || w.at != nil && w.at(w) {
		w.when, w.at = nil, nil
		w.then(w)
	}
	w.ended()
	for _, m := range w.moves() {
		w.kubelet(&m)
	}
	w.owner()
	w.jobController()
	w.setController()
	w.disruption()
}

func (w *world) schedule(m *v1alpha1.PodMigration) {
	p := w.pod(m.Status.Target.PodName)
	second, _ := strconv.Atoi(m.Name[len(m.Name)-1:])
	if p == nil || p.UID != m.Status.Target.PodUID || p.Spec.NodeName != "" || w.noScheduler || returnsName(m) && second <= w.noRoom {
		return
	}
	if w.unbound > 0 {
		w.unbound--
		return
	}
	p.Spec.NodeName = "n2"
	if m.Spec.TargetNode == "" && m.Status.Source.Node == "n2" {
		p.Spec.NodeName = "n1"
	}
	w.must(w.api.Update(context.Background(), p))
}

// agents do what internal/handoff does on the two nodes, without any of its care.
func (w *world) agents(m *v1alpha1.PodMigration) {
	if m == nil {
		return
	}
	second, _ := strconv.Atoi(m.Name[len(m.Name)-1:])
	targetDies := w.targetDies || returnsName(m) && second <= w.step2Dies
	s, src, dst := &m.Status, &m.Status.Source, &m.Status.Target
	at := metav1.NewMicroTime(w.now)
	switch {
	case s.Decision == v1alpha1.Abort || s.Returned:
		if w.settling++; w.settling < 4 {
			return // it takes them some time
		}
		src.Released, dst.Cleaned = src.Node != "", dst.Node != ""
	case s.Decision == v1alpha1.Undecided && (dst.Node == "" || w.noWaiter):
		return
	case s.Decision == v1alpha1.Undecided && !dst.Waiting:
		dst.Waiting, dst.BootID, dst.Deadline = true, "boot-"+dst.Node, &at
	case s.Decision == v1alpha1.Undecided && s.Connections != nil && s.Connections.State == v1alpha1.ConnectionsProbing && !w.notAsked:
		w.probe(s.Connections)
	case s.Decision == v1alpha1.Undecided && !src.Offered:
		src.Offered = true
	case s.Decision == v1alpha1.Undecided && !w.noCommit:
		s.Decision, s.DecisionBy, s.DecidedAt = v1alpha1.Commit, "target n2", &at
	case s.Decision == v1alpha1.Commit && targetDies:
		dst.Failed, s.Returned, s.ReturnProof = true, true, "boot ID changed"
		s.Epoch++
	case s.Decision == v1alpha1.Commit && w.targetFails:
		dst.Failed, dst.FailedMessage = true, "CRIU: no such page"
	case s.Decision == v1alpha1.Commit && w.targetLost && !s.Lost:
		dst.Starting, s.Lost, s.LostMessage = true, true, "node n2 is gone"
	case s.Decision == v1alpha1.Commit && !dst.Resumed && !s.Lost && w.slow > 0:
		w.slow--
		return
	case s.Decision == v1alpha1.Commit && !dst.Resumed && !s.Lost:
		dst.Starting, dst.Resumed = true, true
	case s.Decision == v1alpha1.Commit && dst.Resumed && needsSource(m):
		gone := w.pod(dst.PodName) == nil
		if w.loading--; w.loading >= 0 && !gone && !src.Forfeited {
			return
		}
		dst.Loaded = true
	case s.Decision == v1alpha1.Commit && !src.Ended && !w.neverEnds && (!v1alpha1.SourceKept(s) || s.Adopted || s.Lost):
		w.endSource(m)
		src.Ended, s.Bytes, s.FrozenTime = true, 1<<20, &metav1.Duration{Duration: 300 * time.Millisecond}
	case leasing(m) && s.HandedOver && !w.endless:
		if w.idle++; w.idle < 3 {
			return
		}
		s.Connections.LeaseEnded, s.Connections.TargetLeft, s.Connections.LeaseReason = true, true, v1alpha1.ReasonLastConnection
	case keepsAddress(m) && !leasing(m) && !s.Connections.TargetLeft && !w.targetAway && newest(m, w.moves()).UID == m.UID:
		s.Connections.TargetLeft = true
	default:
		return
	}
	w.must(w.api.Status().Update(context.Background(), m))
}

// carry is what agents do for an address of before that has gone along: who holds it turns it, and the newest
// target leaves it when its lease has ended.
func (w *world) carry(m *v1alpha1.PodMigration) {
	by := newest(m, w.moves())
	e := carried(by, m)
	switch {
	case by.UID == m.UID:
	case leasing(m) && m.Status.Connections.TurnedTo != by.UID && !w.holderAway:
		m.Status.Connections.TurnedTo = by.UID
		w.must(w.api.Status().Update(context.Background(), m))
	case (e.Ended || !leasing(m)) && !e.TargetLeft && !w.targetAway:
		e.Ended, e.TargetLeft = true, true
		w.must(w.api.Status().Update(context.Background(), by))
	}
}

// endSource kills the source's processes; kubelet on n1 reports that.
func (w *world) endSource(m *v1alpha1.PodMigration) {
	p := w.pod(m.Status.Source.PodName)
	switch {
	case p == nil:
		return
	case keepsAddress(m): // kubelet would start it anew, and drover-runc does not
		p.Status.Conditions = nil
		p.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CreateContainerError"}}
	default:
		p.Status.Phase = corev1.PodFailed
	}
	w.must(w.api.Status().Update(context.Background(), p))
}

// grace stands in for the grace period of a pod: it keeps the terminating object.
const grace = "test.drover.dev/grace"

// ended: kubelet lets a terminating pod go in its third turn.
func (w *world) ended() {
	p := w.pod(w.old)
	if p == nil || p.DeletionTimestamp == nil {
		p = w.pod(newName)
	}
	if p == nil || p.DeletionTimestamp == nil {
		return
	}
	if w.ending++; w.ending >= 3 {
		p.Finalizers = without(p.Finalizers, grace)
		w.must(w.api.Update(context.Background(), p))
	}
}

// kubelet on n2 reports the pod that was restored.
func (w *world) kubelet(m *v1alpha1.PodMigration) {
	if !m.Status.Target.Resumed && !(w.readyEarly && committed(m)) {
		return
	}
	p := w.pod(m.Status.Target.PodName)
	if p == nil || p.UID != m.Status.Target.PodUID || p.Status.Phase == corev1.PodRunning || p.Status.Phase == corev1.PodSucceeded {
		return
	}
	if w.unready--; w.unready >= 0 {
		return
	}
	p.Status.Phase = corev1.PodRunning
	p.Status.ContainerStatuses = sourcePod().Status.ContainerStatuses
	p.Status.PodIPs = []corev1.PodIP{{IP: "10.0.2.9"}}
	if w.endsSoon {
		p.Status.Phase = corev1.PodSucceeded
	}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	w.must(w.api.Status().Update(context.Background(), p))
}

// owner is the ReplicaSet controller: it takes pods that match and have no owner for its
// own, keeps the number, and deletes the cheapest.
func (w *world) owner() {
	var rs appsv1.ReplicaSet
	err := w.api.Get(context.Background(), client.ObjectKey{Namespace: testNamespace, Name: "web-5d4"}, &rs)
	if err != nil {
		return
	}
	var pods corev1.PodList
	w.must(w.api.List(context.Background(), &pods, client.InNamespace(testNamespace), client.MatchingLabels{"app": "web"}))
	for i := range pods.Items {
		p := &pods.Items[i]
		if controllerOf(p) == nil && p.DeletionTimestamp == nil && p.Labels[appsv1.DefaultDeploymentUniqueLabelKey] == "5d4" && p.Name != siblingName {
			p.OwnerReferences = owner("ReplicaSet", "apps/v1", "web-5d4")
			w.must(w.api.Update(context.Background(), p))
		}
	}
	own := slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool {
		return p.DeletionTimestamp != nil || ownerUID(&p) != rs.UID
	})
	slices.SortFunc(own, func(a, b corev1.Pod) int { return cost(&a) - cost(&b) })
	for len(own) > int(*rs.Spec.Replicas) {
		w.must(w.api.Delete(context.Background(), &own[0]))
		own = own[1:]
	}
	if len(own) < int(*rs.Spec.Replicas) && !w.held(ownerHold(rs.UID)) {
		w.thirds++
		p := sourcePod()
		p.Name, p.UID = "web-5d4-third"+strconv.Itoa(w.thirds), "uid-third"
		w.must(w.api.Create(context.Background(), p))
	}
}

func cost(p *corev1.Pod) int {
	c, _ := strconv.Atoi(p.Annotations[corev1.PodDeletionCost])
	return c
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}
