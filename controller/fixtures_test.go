package controller

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/drover-project/drover/api/v1alpha1"
)

const (
	testNamespace = "shop"
	system        = "drover-system"
)

var start = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func ptr[T any](v T) *T { return &v }

func wish() *v1alpha1.PodMigration {
	return &v1alpha1.PodMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: "move", UID: "uid-move", CreationTimestamp: metav1.NewTime(start)},
		Spec:       v1alpha1.PodMigrationSpec{PodName: "web-5d4-abcde"},
	}
}

func owner(kind, api, name string) []metav1.OwnerReference {
	return []metav1.OwnerReference{{
		APIVersion: api, Kind: kind, Name: name, UID: types.UID("uid-" + name),
		Controller: ptr(true), BlockOwnerDeletion: ptr(true),
	}}
}

// sourcePod is a running pod of the Deployment web on node n1 that has opted in.
func sourcePod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: testNamespace, Name: "web-5d4-abcde", UID: "uid-source",
			Labels:            map[string]string{"app": "web", appsv1.DefaultDeploymentUniqueLabelKey: "5d4"},
			Annotations:       map[string]string{v1alpha1.AnnotationMigrate: "true"},
			OwnerReferences:   owner("ReplicaSet", "apps/v1", "web-5d4"),
			CreationTimestamp: metav1.NewTime(start.Add(-time.Hour)),
		},
		Spec: corev1.PodSpec{
			NodeName:         "n1",
			RuntimeClassName: ptr(v1alpha1.RuntimeClassName),
			Containers:       []corev1.Container{{Name: "app", Image: "web:1"}},
		},
		Status: corev1.PodStatus{
			Phase:      corev1.PodRunning,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
			ContainerStatuses: []corev1.ContainerStatus{{
				Name: "app", ContainerID: "containerd://c0ffee", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
			}},
		},
	}
}

func template() corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "web:1"}}},
	}
}

func replicaSet() *appsv1.ReplicaSet {
	t := template()
	t.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = "5d4"
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: testNamespace, Name: "web-5d4", UID: "uid-web-5d4", OwnerReferences: owner("Deployment", "apps/v1", "web"),
		},
		Spec: appsv1.ReplicaSetSpec{Replicas: ptr(int32(1)), Template: t, Selector: &metav1.LabelSelector{MatchLabels: t.Labels}},
	}
}

func deployment() *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: "web", UID: "uid-web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr(int32(1)), Template: template(), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
		},
		Status: appsv1.DeploymentStatus{Replicas: 1, UpdatedReplicas: 1},
	}
}

func node(name string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name)},
		Status: corev1.NodeStatus{
			NodeInfo:   corev1.NodeSystemInfo{BootID: "boot-" + name},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	}
}

func agent(on string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: system, Name: "drover-agent-" + on, UID: types.UID("uid-agent-" + on),
			Labels: map[string]string{"app.kubernetes.io/name": "drover-agent"},
		},
		Spec: corev1.PodSpec{NodeName: on},
		Status: corev1.PodStatus{
			Phase:      corev1.PodRunning,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
}

// goodFacts is what is seen of a pod that may be moved.
func goodFacts() Facts {
	return Facts{
		Now: start, Pod: sourcePod(), ReplicaSet: replicaSet(), Deployment: deployment(),
		SourceNode: node("n1"), AgentOnSource: true, AgentOnTarget: true,
	}
}
