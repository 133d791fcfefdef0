package simulate

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/core"
	defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/validation"
)

// MaxPods is how many pods can be placed at most.
const MaxPods = 100_000

// Workload gives the pods of manifests, in their order, each as the API server would have it:
// with its defaults, and refused where it refuses. Objects without pods, as Services, join the
// cluster, as they would with kubectl apply. Objects without a namespace come to the given one.
func (c *Cluster) Workload(manifests []Object, namespace string) ([]*corev1.Pod, error) {
	w := workload{cluster: c, namespace: namespace}
	for _, o := range manifests {
		if err := w.add(o); err != nil {
			return nil, err
		}
	}
	if len(w.pods) == 0 {
		return nil, fmt.Errorf("there are no pods to place: want Pods, Deployments, ReplicaSets, StatefulSets or Jobs with replicas")
	}
	return w.pods, nil
}

type workload struct {
	cluster   *Cluster
	namespace string
	pods      []*corev1.Pod
}

// replicas are the pods of one object.
type replicas struct {
	of       metav1.Object
	kind     string
	owner    metav1.OwnerReference
	template corev1.PodTemplateSpec
	claims   []corev1.PersistentVolumeClaim
	count    int32
}

func (w *workload) add(o Object) error {
	m, err := meta.Accessor(o.Object)
	if err != nil {
		return fmt.Errorf("%s: %w", o.Where, err)
	}
	kind := kindOf(o.Object)
	switch o.Object.(type) {
	case *corev1.Pod, *appsv1.Deployment, *batchv1.Job:
		if m.GetNamespace() == "" {
			m.SetNamespace(w.namespace)
		}
		err = w.cluster.note(o)
	case *corev1.Node, *appsv1.DaemonSet, *batchv1.CronJob, *corev1.ReplicationController:
		err = fmt.Errorf("%s: %s %s cannot be placed: want Pods, Deployments, ReplicaSets, StatefulSets or Jobs", o.Where, kind, m.GetName())
	default:
		err = w.cluster.join(o, w.namespace)
	}
	if err != nil {
		return err
	}
	r := replicas{of: m, kind: kind}
	switch obj := o.Object.(type) {
	case *corev1.Pod:
		return w.addPod(obj, o.Where, "")
	case *appsv1.Deployment:
		// Its pods belong to a ReplicaSet: the scheduler spreads them by its selector.
		set := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: obj.Name + "-simulated", Namespace: obj.Namespace}}
		set.Spec.Selector, set.Spec.Replicas = obj.Spec.Selector, obj.Spec.Replicas
		w.cluster.Others = append(w.cluster.Others, set)
		r.owner, r.template, r.count = owner(set, "ReplicaSet"), obj.Spec.Template, or(obj.Spec.Replicas, 1)
	case *appsv1.ReplicaSet:
		r.owner, r.template, r.count = owner(obj, kind), obj.Spec.Template, or(obj.Spec.Replicas, 1)
	case *appsv1.StatefulSet:
		r.owner, r.template, r.count, r.claims = owner(obj, kind), obj.Spec.Template, or(obj.Spec.Replicas, 1), obj.Spec.VolumeClaimTemplates
	case *batchv1.Job:
		// As many as run at a time.
		r.owner, r.template, r.count = owner(obj, kind), obj.Spec.Template, or(obj.Spec.Parallelism, 1)
		r.count = min(r.count, or(obj.Spec.Completions, r.count))
	default:
		return nil
	}
	return w.replicate(r, o.Where)
}

func or(n *int32, otherwise int32) int32 {
	if n == nil {
		return otherwise
	}
	return *n
}

// owner has an object be found as the controller of its pods.
func owner(o metav1.Object, kind string) metav1.OwnerReference {
	if o.GetUID() == "" {
		o.SetUID(types.UID(kind + "/" + named(o)))
	}
	group := appsv1.SchemeGroupVersion
	if kind == "Job" {
		group = batchv1.SchemeGroupVersion
	}
	return *metav1.NewControllerRef(o, group.WithKind(kind))
}

// replicate makes the pods, numbered from 0.
func (w *workload) replicate(r replicas, where string) error {
	if r.count < 0 || int(r.count)+len(w.pods) > MaxPods {
		return fmt.Errorf("%s: %s %s has %d replicas: want 0 or more, and at most %d pods in all", where, r.kind, r.of.GetName(), r.count, MaxPods)
	}
	for i := range r.count {
		pod := &corev1.Pod{ObjectMeta: *r.template.ObjectMeta.DeepCopy(), Spec: *r.template.Spec.DeepCopy()}
		pod.Name, pod.Namespace = fmt.Sprintf("%s-%d", r.of.GetName(), i), r.of.GetNamespace()
		pod.OwnerReferences = []metav1.OwnerReference{r.owner}
		if r.kind == "StatefulSet" {
			pod.Labels = with(pod.Labels, appsv1.StatefulSetPodNameLabel, pod.Name)
			w.claim(pod, r.claims, r.owner)
		}
		if err := w.cluster.note(Object{pod, where}); err != nil {
			return err
		}
		if err := w.addPod(pod, where, fmt.Sprintf("%s %s: ", r.kind, r.of.GetName())); err != nil {
			return err
		}
	}
	return nil
}

func with(labels map[string]string, key, value string) map[string]string {
	if labels == nil {
		labels = map[string]string{}
	}
	labels[key] = value
	return labels
}

// claim gives a StatefulSet's pod its volumes; the cluster has the claims, or gets them.
func (w *workload) claim(pod *corev1.Pod, templates []corev1.PersistentVolumeClaim, by metav1.OwnerReference) {
	for _, t := range templates {
		c := t.DeepCopy()
		c.Name, c.Namespace, c.OwnerReferences = t.Name+"-"+pod.Name, pod.Namespace, []metav1.OwnerReference{by}
		c.UID = types.UID("PersistentVolumeClaim/" + named(c))
		defaults.SetObjectDefaults_PersistentVolumeClaim(c)
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: t.Name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: c.Name},
		}})
		_ = w.cluster.join(Object{c, by.Kind + " " + by.Name}, pod.Namespace) // a claim that is there is used
	}
}

// addPod checks a pod as the API server does.
func (w *workload) addPod(pod *corev1.Pod, where, of string) error {
	if pod.Spec.NodeName != "" {
		return fmt.Errorf("%s: %spod %s names the node %q: no scheduler places it; leave spec.nodeName out", where, of, pod.Name, pod.Spec.NodeName)
	}
	complete(pod)
	internal := &core.Pod{}
	if err := defaults.Convert_v1_Pod_To_core_Pod(pod, internal, nil); err != nil {
		return fmt.Errorf("%s: %spod %s: %s", where, of, pod.Name, oneLine(err))
	}
	opts := podutil.GetValidationOptionsFromPodSpecAndMeta(&internal.Spec, nil, &internal.ObjectMeta, nil)
	if faults := validation.ValidatePodCreate(internal, opts); len(faults) > 0 {
		return fmt.Errorf("%s: %spod %s: %s", where, of, pod.Name, first(faults))
	}
	w.pods = append(w.pods, pod)
	return nil
}

// first is the first fault, and how many more there are.
func first(faults field.ErrorList) string {
	text := oneLine(faults[0])
	if more := len(faults) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	return text
}
