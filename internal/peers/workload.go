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
// itself. A replacement belongs to what the pod belongs to that it takes over from.
func WorkloadOf(pod *corev1.Pod) model.Workload {
	owner := controllerOf(pod)
	if owner == nil {
		return model.WorkloadOf(pod.Namespace, "Pod", pod.Name)
	}
	kind, name := owner.Kind, owner.Name
	switch owner.Kind {
	case "ReplicaSet":
		// A Deployment names its ReplicaSets by this label's value; other ReplicaSets' pods have none.
		hash := pod.Labels["pod-template-hash"]
		if of, made := strings.CutSuffix(owner.Name, "-"+hash); made && hash != "" && of != "" {
			kind, name = "Deployment", of
		}
	case "Job":
		i := strings.LastIndexByte(owner.Name, '-')
		if i > 0 && len(owner.Name)-i-1 == cronJobMinutes && strings.Trim(owner.Name[i+1:], "0123456789") == "" {
			kind, name = "CronJob", owner.Name[:i]
		}
	}
	return model.WorkloadOf(pod.Namespace, kind, name)
}

func controllerOf(pod *corev1.Pod) *metav1.OwnerReference {
	if owner := metav1.GetControllerOfNoCopy(pod); owner != nil {
		return owner
	}
	hand := pod.Annotations[v1alpha1.AnnotationHandOver]
	if hand == "" {
		return nil
	}
	var to metav1.ObjectMeta
	var of struct {
		Owners []metav1.OwnerReference `json:"owners"`
	}
	if json.Unmarshal([]byte(hand), &of) != nil {
		return nil
	}
	to.OwnerReferences = of.Owners
	return metav1.GetControllerOfNoCopy(&to)
}
