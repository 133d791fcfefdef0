package simulate

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	helper "k8s.io/component-helpers/resource"
	defaults "k8s.io/kubernetes/pkg/apis/core/v1"

	"github.com/drover-project/drover/internal/model"
)

// Cluster is where pods are placed, as it is before the first of them: every profile begins with the
// same.
type Cluster struct {
	// Nodes are in the order of their names.
	Nodes []*corev1.Node
	// Pods are those that are on nodes and have not ended.
	Pods []*corev1.Pod
	// Others are all other objects that the scheduler may read.
	Others []runtime.Object
	// Waiting is how many pods are on no node. They are left out.
	Waiting int

	known map[string]string // what there is, and where it was read
}

// scoped are the kinds that the scheduler reads beside Nodes and Pods, and whether they are of a namespace.
var scoped = map[string]bool{
	"Namespace": false, "Service": true, "ReplicationController": true, "ReplicaSet": true, "StatefulSet": true,
	"PersistentVolume": false, "PersistentVolumeClaim": true, "StorageClass": false,
	"CSINode": false, "CSIDriver": false, "CSIStorageCapacity": true, "VolumeAttachment": false,
	"DeviceClass": false, "ResourceSlice": false, "ResourceClaim": true,
}

// NewCluster checks the objects of a cluster. It keeps them, but for those of kinds that the scheduler
// does not read.
func NewCluster(objects []Object) (*Cluster, error) {
	c := &Cluster{known: map[string]string{}}
	names := map[string]bool{}
	for _, o := range objects {
		if node, ok := o.Object.(*corev1.Node); ok {
			if why := wrongNode(node); why != "" {
				return nil, fmt.Errorf("%s: node %q: %s", o.Where, node.Name, why)
			}
			names[node.Name] = true
		}
	}
	if len(names) == 0 {
		return nil, errors.New("the cluster has no Node: nothing can be placed (kubectl get nodes -o yaml gives them)")
	}
	for _, o := range objects {
		var err error
		switch obj := o.Object.(type) {
		case *corev1.Node:
			err = c.note(o)
			c.Nodes = append(c.Nodes, obj)
		case *corev1.Pod:
			if obj.Namespace == "" {
				obj.Namespace = metav1.NamespaceDefault
			}
			if err = c.note(o); err == nil {
				err = c.addPod(obj, o.Where, names)
			}
		default:
			err = c.join(o, metav1.NamespaceDefault)
		}
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(c.Nodes, func(a, b *corev1.Node) int { return cmp.Compare(a.Name, b.Name) })
	return c, nil
}

// join adds an object that is neither a Node nor a Pod, if the scheduler reads its kind.
func (c *Cluster) join(o Object, namespace string) error {
	of, reads := scoped[kindOf(o.Object)]
	if !reads {
		return nil
	}
	if m, err := meta.Accessor(o.Object); err == nil && of && m.GetNamespace() == "" {
		m.SetNamespace(namespace)
	}
	if err := c.note(o); err != nil {
		return err
	}
	c.Others = append(c.Others, o.Object)
	return nil
}

// note refuses what has no name, or is there already.
func (c *Cluster) note(o Object) error {
	m, err := meta.Accessor(o.Object)
	if err != nil {
		return fmt.Errorf("%s: %w", o.Where, err)
	}
	kind := kindOf(o.Object)
	if m.GetName() == "" {
		return fmt.Errorf("%s: a %s has no metadata.name", o.Where, kind)
	}
	key := kind + " " + named(m)
	if first, known := c.known[key]; known {
		return fmt.Errorf("%s: %s is there twice: first in %s", o.Where, key, first)
	}
	c.known[key] = o.Where
	return nil
}

func kindOf(o runtime.Object) string {
	kinds, _, err := scheme.Scheme.ObjectKinds(o)
	if err != nil || len(kinds) == 0 {
		return fmt.Sprintf("%T", o)
	}
	return kinds[0].Kind
}

// named is namespace/name, or the name of what has no namespace.
func named(m metav1.Object) string {
	if m.GetNamespace() == "" {
		return m.GetName()
	}
	return m.GetNamespace() + "/" + m.GetName()
}

// addPod adds a pod that runs.
func (c *Cluster) addPod(pod *corev1.Pod, where string, nodes map[string]bool) error {
	switch {
	case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		return nil
	case pod.Spec.NodeName == "":
		c.Waiting++
		return nil
	case !nodes[pod.Spec.NodeName]:
		return fmt.Errorf("%s: pod %s/%s is on node %q, which is not among the nodes: add it or leave the pod out", where, pod.Namespace, pod.Name, pod.Spec.NodeName)
	}
	complete(pod)
	if why := negative(helper.PodRequests(pod, helper.PodResourcesOptions{})); why != "" {
		return fmt.Errorf("%s: pod %s/%s: it requests %s", where, pod.Namespace, pod.Name, why)
	}
	c.Pods = append(c.Pods, pod)
	return nil
}

// complete sets what the API server sets in each pod.
func complete(pod *corev1.Pod) {
	if pod.UID == "" {
		pod.UID = types.UID(pod.Namespace + "/" + pod.Name)
	}
	defaults.SetObjectDefaults_Pod(pod)
}

// wrongNode says what a node lacks to be placed on.
func wrongNode(n *corev1.Node) string {
	if n.Status.Allocatable == nil {
		n.Status.Allocatable = n.Status.Capacity // as the API server does
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourcePods} {
		if _, has := n.Status.Allocatable[name]; !has {
			return fmt.Sprintf("status.allocatable.%s is missing: without it no pod fits", name)
		}
	}
	if why := negative(n.Status.Allocatable); why != "" {
		return "status.allocatable: " + why
	}
	return ""
}

// negative names a resource of which there is less than nothing.
func negative(l corev1.ResourceList) string {
	for name, q := range l {
		if q.Sign() < 0 {
			return fmt.Sprintf("%s of %s, must be 0 or more", q.String(), name)
		}
	}
	return ""
}

// zoneOf is the zone of a node; empty: not known.
func zoneOf(n *corev1.Node) string { return n.Labels[corev1.LabelTopologyZone] }

// requested is what a pod requests of CPU and memory.
func requested(pod *corev1.Pod) model.Resources {
	return amounts(helper.PodRequests(pod, helper.PodResourcesOptions{}))
}

func amounts(l corev1.ResourceList) model.Resources {
	return model.Resources{CPU: model.Cores(l.Cpu().AsApproximateFloat64()), Memory: model.Bytes(l.Memory().Value())}
}
