package controller

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
)

const jobName = "sum"

func jobLabels() map[string]string {
	return map[string]string{"app": "web", batchv1.ControllerUidLabel: "uid-" + jobName, batchv1.JobNameLabel: jobName}
}

// sumJob wants one pod, once, and forgives nothing.
func sumJob() *batchv1.Job {
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: jobName, UID: "uid-" + jobName},
		Spec: batchv1.JobSpec{
			Parallelism: ptr(int32(1)), Completions: ptr(int32(1)), BackoffLimit: ptr(int32(0)),
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{batchv1.ControllerUidLabel: "uid-" + jobName}},
		},
	}
}

func jobPod() *corev1.Pod {
	p := sourcePod()
	p.Labels, p.OwnerReferences = jobLabels(), owner("Job", "batch/v1", jobName)
	p.Finalizers = []string{batchv1.JobTrackingFinalizer}
	p.Spec.RestartPolicy = corev1.RestartPolicyNever
	return p
}

// jobController counts the ends of the pods that bear its finalizer, and keeps the number.
func (w *world) jobController() {
	job := w.job()
	if job == nil || job.DeletionTimestamp != nil {
		return
	}
	var pods corev1.PodList
	w.must(w.api.List(context.Background(), &pods, client.InNamespace(testNamespace), client.MatchingLabels{batchv1.ControllerUidLabel: string(job.UID)}))
	finished := jobEnd(job) != ""
	stops := finished || job.Spec.Suspend != nil && *job.Spec.Suspend
	var active []corev1.Pod
	for _, p := range pods.Items {
		switch tracked := slices.Contains(p.Finalizers, batchv1.JobTrackingFinalizer); {
		case controllerOf(&p) == nil && p.DeletionTimestamp == nil:
			p.OwnerReferences = owner("Job", "batch/v1", jobName) // it adopts what bears its labels
			w.must(w.api.Update(context.Background(), &p))
			active = append(active, p)
		case !tracked:
		case p.Status.Phase == corev1.PodSucceeded:
			job.Status.Succeeded++
			w.untrack(&p)
		case p.Status.Phase == corev1.PodFailed, p.DeletionTimestamp != nil:
			if !stops {
				job.Status.Failed++
			}
			w.untrack(&p)
		default:
			active = append(active, p)
		}
	}
	slices.SortFunc(active, func(a, b corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	want := int(*job.Spec.Parallelism)
	switch {
	case finished:
		want = 0
	case job.Status.Failed > *job.Spec.BackoffLimit:
		job.Status.Conditions, want = []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue}}, 0
	case job.Status.Succeeded >= *job.Spec.Completions:
		job.Status.Conditions, want = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}, 0
	case stops:
		want = 0
	}
	for len(active) > want {
		newest := active[len(active)-1]
		w.untrack(&newest) // what it deletes itself it does not count
		w.must(w.api.Delete(context.Background(), &newest))
		active = active[:len(active)-1]
	}
	if len(active) < want && !w.held(ownerHold(job.UID)) {
		w.thirds++
		p := jobPod()
		p.Name, p.UID, p.CreationTimestamp = "sum-third"+strconv.Itoa(w.thirds), "uid-third", metav1.NewTime(w.now)
		w.must(w.api.Create(context.Background(), p))
	}
	w.saveJob(job)
}

// saveJob writes spec and status.
func (w *world) saveJob(job *batchv1.Job) {
	status := job.Status
	w.must(w.api.Update(context.Background(), job))
	job.Status = status
	w.must(w.api.Status().Update(context.Background(), job))
}

func (w *world) untrack(p *corev1.Pod) {
	p.Finalizers = without(p.Finalizers, batchv1.JobTrackingFinalizer)
	w.must(w.api.Update(context.Background(), p))
}

// job reads the Job; nil when there is none.
func (w *world) job() *batchv1.Job {
	job, err := (&Reconciler{Reader: w.api}).job(context.Background(), testNamespace, jobName)
	w.must(err)
	return job
}

// held tells whether the API server refuses what that key names.
func (w *world) held(key string) bool {
	var holds corev1.ConfigMap
	w.must(w.api.Get(context.Background(), client.ObjectKey{Namespace: system, Name: v1alpha1.HoldsConfigMap}, &holds))
	return holds.Data[key] != ""
}

func changesJob(change func(*batchv1.Job)) func(*world) {
	return func(w *world) {
		job := w.job()
		change(job)
		w.saveJob(job)
	}
}

func suspends(j *batchv1.Job) { j.Spec.Suspend = ptr(true) }

// deletesJob deletes it as kubectl does: the garbage collector deletes its pods.
func deletesJob(w *world) {
	w.must(w.api.Delete(context.Background(), sumJob()))
	for _, name := range []string{oldName, newName} {
		if p := w.pod(name); p != nil && ofJob(p) {
			w.untrack(p)
			deletes(name)(w)
		}
	}
}

// orphansJob deletes it without its pods: they lose their owner and keep their labels.
func orphansJob(w *world) {
	w.must(w.api.Delete(context.Background(), sumJob()))
	if p := w.pod(oldName); p != nil {
		p.OwnerReferences, p.Finalizers = nil, without(p.Finalizers, batchv1.JobTrackingFinalizer)
		w.must(w.api.Update(context.Background(), p))
	}
}

func jobScenarios() []scenario {
	moved := []string{newName}
	all := []scenario{
		{name: "Job", phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: moved},
		{name: "Job whose pod ends right after the move", players: players{endsSoon: true},
			phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: moved},
		{name: "Job suspended in the middle", players: players{when: waiting, then: gracefully(changesJob(suspends))},
			phase: v1alpha1.PhaseAborted, reason: ReasonPodTerminating},
		{name: "Job suspended after the commit", players: players{when: resumed, then: gracefully(changesJob(suspends))},
			phase: v1alpha1.PhaseAborted, reason: ReasonPodTerminating},
		{name: "Job with parallelism 0 after the commit", players: players{when: resumed, then: gracefully(changesJob(func(j *batchv1.Job) { j.Spec.Parallelism = ptr(int32(0)) }))},
			phase: v1alpha1.PhaseAborted, reason: ReasonPodTerminating},
		{name: "Job past its deadline after the commit", players: players{when: resumed, then: gracefully(changesJob(func(j *batchv1.Job) {
			j.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue, Reason: "DeadlineExceeded"}}
		}))}, phase: v1alpha1.PhaseAborted, reason: ReasonPodTerminating},
		{name: "Job deleted after the commit", players: players{when: resumed, then: gracefully(deletesJob)},
			phase: v1alpha1.PhaseAborted, reason: ReasonPodTerminating},
		{name: "Job deleted after the commit without its pod", players: players{when: resumed, then: orphansJob},
			phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: moved},
		{name: "Job whose target is lost", players: players{targetLost: true}, phase: v1alpha1.PhaseLost, reason: "TargetLost"},
		{name: "Job cancelled too late", players: players{when: committed, then: cancels}, gone: true, pods: moved},
		{name: "Job whose target dies after the commit", players: players{targetDies: true},
			phase: v1alpha1.PhaseReturned, reason: "Returned", pods: []string{oldName}},
		{name: "Job that does not lose its pod for some time", players: players{refusesRelease: refusals()[0], at: refusedJobs, then: func(w *world) { w.refusesRelease = nil }},
			phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: moved},
		{name: "Job whose source never ends", players: players{neverEnds: true, when: resumed, then: losesSourceNode},
			phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: moved},
	}
	for _, no := range refusals() {
		all = append(all, scenario{name: "Job whose hold is refused: " + no.Error()[:40],
			players: players{refuses: no, at: waitsFor("WaitingForHold", no.Error()[:1000]), then: func(*world) {}},
			phase:   v1alpha1.PhaseCompleted, reason: "Moved", pods: moved})
	}
	for i := range all {
		all[i].job, all[i].calm = true, !slices.Contains([]string{"Job", "Job whose pod ends right after the move", "Job deleted after the commit"}, all[i].name)
	}
	return all
}

// losesSourceNode takes the node, not the pod: nobody is left to end it.
func losesSourceNode(w *world) { w.must(w.api.Delete(context.Background(), node("n1"))) }

// checkJob: no move makes a Job count an end that was none.
func (w *world) checkJob(s scenario) {
	w.t.Helper()
	job := w.job()
	if job == nil {
		return
	}
	want := int32(0)
	if s.players.endsSoon {
		want = 1
	}
	failed := int32(0)
	if s.players.targetLost {
		failed = 1 // its memory is lost: that is a failure
	}
	if job.Status.Failed != failed || job.Status.Succeeded != want {
		w.t.Errorf("the Job counts %d failed and %d succeeded, want %d and %d", job.Status.Failed, job.Status.Succeeded, failed, want)
	}
	if w.held(ownerHold(job.UID)) {
		w.t.Error("the Job is on hold still")
	}
}

// An Indexed Job's pod keeps its index and its name inside.
func TestIndexedJobsPod(t *testing.T) {
	w := named("Job").begin(t, fault{})
	p := w.pod(oldName)
	p.Labels[batchv1.JobCompletionIndexAnnotation] = "3"
	p.Annotations[batchv1.JobCompletionIndexAnnotation] = "3"
	p.Spec.Hostname = "sum-3"
	w.must(w.api.Update(context.Background(), p))
	labels := p.Labels
	w.run()
	got := w.pod(newName)
	if diff := cmp.Diff(labels, got.Labels); diff != "" {
		t.Errorf("labels:\n%s", diff)
	}
	if got.Annotations[batchv1.JobCompletionIndexAnnotation] != "3" || got.Spec.Hostname != "sum-3" {
		t.Errorf("annotations %v, hostname %q", got.Annotations, got.Spec.Hostname)
	}
	if !ofJob(got) || !slices.Equal(got.Finalizers, []string{batchv1.JobTrackingFinalizer}) {
		t.Errorf("owners %v, finalizers %v: not the Job's", got.OwnerReferences, got.Finalizers)
	}
}

// A Job that goes between release and adoption: its pod goes with it or is left, as asked.
func TestJobGoesBetweenReleaseAndAdoption(t *testing.T) {
	for _, orphan := range []bool{false, true} {
		w := named("Job").begin(t, fault{})
		w.when, w.then = resumed, func(w *world) {
			saved := w.pod(oldName)
			source := saved.DeepCopy()
			source.Labels, source.OwnerReferences, source.Finalizers = nil, nil, nil
			w.must(w.api.Update(context.Background(), source))
			job := w.job()
			if orphan {
				job.Finalizers = []string{metav1.FinalizerOrphanDependents}
				w.must(w.api.Update(context.Background(), job))
			}
			w.must(w.api.Delete(context.Background(), job))
		}
		m := w.run()
		kept := w.pod(newName) != nil
		if kept != orphan || (m.Status.Phase == v1alpha1.PhaseCompleted) != orphan {
			t.Errorf("orphan %t: kept %t, phase %s", orphan, kept, m.Status.Phase)
		}
		if kept && (controllerOf(w.pod(newName)) != nil || w.pod(newName).Labels["app"] != "web") {
			t.Errorf("the orphan has owners %v, labels %v", w.pod(newName).OwnerReferences, w.pod(newName).Labels)
		}
	}
}

func TestJudgeJob(t *testing.T) {
	now := metav1.NewTime(start)
	for _, c := range []struct {
		name   string
		change func(*batchv1.Job)
		want   string
		says   string
	}{
		{"wants its pod", func(*batchv1.Job) {}, "", ""},
		{"indexed", func(j *batchv1.Job) { j.Spec.CompletionMode = ptr(batchv1.IndexedCompletion) }, "", ""},
		{"of a CronJob", func(j *batchv1.Job) { j.OwnerReferences = owner("CronJob", "batch/v1", "nightly") }, "", ""},
		{"another", func(j *batchv1.Job) { j.UID = "x" }, ReasonOwnerGone, "does not exist"},
		{"going", func(j *batchv1.Job) { j.DeletionTimestamp = &now }, ReasonOwnerGone, "being deleted"},
		{"suspended", suspends, ReasonOwnerSuspended, "suspended"},
		{"at 0", func(j *batchv1.Job) { j.Spec.Parallelism = ptr(int32(0)) }, ReasonOwnerScaledToZero, "parallelism 0"},
		{"of another controller", func(j *batchv1.Job) { j.Spec.ManagedBy = ptr("kueue.x-k8s.io/multikueue") }, ReasonUnsupportedOwner, "kueue"},
		{"failing", func(j *batchv1.Job) {
			j.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailureTarget, Status: corev1.ConditionTrue}}
		}, ReasonOwnerFinished, "FailureTarget"},
		{"complete", func(j *batchv1.Job) {
			j.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}
		}, ReasonOwnerFinished, "Complete"},
	} {
		job, f := sumJob(), goodFacts()
		c.change(job)
		f.Pod, f.Job = jobPod(), job
		got := Admit(wish(), f)
		if got == nil && c.want == "" {
			continue
		}
		if got == nil || got.Reason != c.want || !strings.Contains(got.Message, c.says) {
			t.Errorf("%s: %+v, want %q that says %q", c.name, got, c.want, c.says)
		}
	}
}
