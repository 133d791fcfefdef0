package peers

import (
	"encoding/json"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/model"
)

// cronJobMinutes is how many digits the minutes since 1970 have that a CronJob puts behind the names of
// its Jobs, until 2160.
const cronJobMinutes = 8

// WorkloadOf is what a pod belongs to, by its own metadata: its controller, of a ReplicaSet the
// Deployment and of a Job the CronJob that made it, so that the next one inherits; without any, the pod
// itself. A replacement belongs to what the pod belongs to that it takes over from. What an owner or a
// hand-over says that is no name of an object counts for none: whoever may write pods writes it.
func WorkloadOf(pod *corev1.Pod) model.Workload {
	if owner, labels := controllerOf(pod); owner != nil {
		if w := madeBy(owner, labels, pod.Namespace); w.Valid() {
			return w
		}
	}
	return model.WorkloadOf(pod.Namespace, "Pod", pod.Name)
}

func madeBy(owner *metav1.OwnerReference, labels map[string]string, namespace string) model.Workload {
	kind, name := owner.Kind, owner.Name
	switch owner.Kind {
	case "ReplicaSet":
		// A Deployment names its ReplicaSets by this label's value; other ReplicaSets' pods have none.
		hash := labels["pod-template-hash"]
		if of, made := strings.CutSuffix(owner.Name, "-"+hash); made && hash != "" && of != "" {
			kind, name = "Deployment", of
		}
	case "Job":
		i := strings.LastIndexByte(owner.Name, '-')
		if i > 0 && len(owner.Name)-i-1 == cronJobMinutes && strings.Trim(owner.Name[i+1:], "0123456789") == "" {
			kind, name = "CronJob", owner.Name[:i]
		}
	}
	return model.WorkloadOf(namespace, kind, name)
}

// controllerOf is a pod's controller, and the labels by which the pod is its; of a replacement both are its
// source's, until it is handed over.
func controllerOf(pod *corev1.Pod) (*metav1.OwnerReference, map[string]string) {
	if owner := metav1.GetControllerOfNoCopy(pod); owner != nil {
		return owner, pod.Labels
	}
	hand := pod.Annotations[v1alpha1.AnnotationHandOver]
	if hand == "" {
		return nil, nil
	}
	var of struct {
		Labels map[string]string       `json:"labels"`
		Owners []metav1.OwnerReference `json:"owners"`
	}
	if json.Unmarshal([]byte(hand), &of) != nil {
		return nil, nil
	}
	return metav1.GetControllerOfNoCopy(&metav1.ObjectMeta{OwnerReferences: of.Owners}), of.Labels
}
