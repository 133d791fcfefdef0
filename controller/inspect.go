package controller

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/drover-project/drover/api/v1alpha1"
)

// asked is the replacement as it is asked for, but for its labels, and why images of it
// could not be pinned. It is the same whenever it is made of the same source.
func asked(m *v1alpha1.PodMigration, f Facts) (*corev1.Pod, []string, error) {
	p, err := Replacement(m, f.Pod)
	if err != nil {
		return nil, nil, err
	}
	return p, pinImages(&p.Spec, f.Pod), nil
}

// inspect looks at the replacement as the API server has it, before the agents learn of it:
// webhooks and admission plugins may have made another pod of it. What does not matter is
// said in conditions.
func (r *Reconciler) inspect(m *v1alpha1.PodMigration, f Facts, stored *corev1.Pod) (*Refusal, error) {
	want, unpinned, err := asked(m, f)
	if err != nil {
		return nil, err
	}
	why, harmless, err := judgeStored(want, stored)
	if why != nil || err != nil {
		return why, err
	}
	if len(harmless) > 0 {
		setCondition(m, f.Now, v1alpha1.ConditionSpecKept, true, "Harmless", "admission altered the replacement: "+strings.Join(harmless, "; "))
	}
	if len(unpinned) > 0 {
		setCondition(m, f.Now, v1alpha1.ConditionImagesPinned, false, "NoDigest", strings.Join(unpinned, "; ")+": the tag decides on the target")
	} else {
		setCondition(m, f.Now, v1alpha1.ConditionImagesPinned, true, "ByDigest", "the replacement names its images by digest")
	}
	return nil, nil
}

// noticeImages says so if the replacement runs another image than the source: the memory is
// the source's, but files that it opens from now on are not. That can be seen only once the
// container runs, and only of images that could not be pinned.
func (r *Reconciler) noticeImages(ctx context.Context, m *v1alpha1.PodMigration, f Facts, p, source *corev1.Pod) error {
	if source == nil || quieted(m, source) || meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionImagesPinned) {
		return nil
	}
	others := otherImages(p, source)
	if len(others) == 0 {
		return nil
	}
	says := strings.Join(others, "; ")
	if !setCondition(m, f.Now, v1alpha1.ConditionImagesPinned, false, "AnotherImage", says) {
		return nil
	}
	if err := r.save(ctx, m); err != nil {
		return err
	}
	r.event(m, corev1.EventTypeWarning, "AnotherImage", says, p)
	return nil
}
