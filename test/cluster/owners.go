package cluster

import (
	"context"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
)

// StatefulSet is the ticker as a StatefulSet of one replica, named by the headless Service
// that Headless gives.
func (c *Cluster) StatefulSet(t Ticker) *appsv1.StatefulSet {
	return &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: t.Namespace, Name: t.Name},
		Spec: appsv1.StatefulSetSpec{
			Replicas: ptr(int32(1)), ServiceName: t.Name,
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": t.Name}},
			Template: c.PodTemplate(t),
		},
	}
}

// Headless is the Service that gives each of a ticker's pods a DNS name.
func (c *Cluster) Headless(t Ticker) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: t.Namespace, Name: t.Name},
		Spec: corev1.ServiceSpec{
			ClusterIP: corev1.ClusterIPNone, Selector: map[string]string{"app": t.Name},
			Ports: []corev1.ServicePort{{Port: 8080, TargetPort: intstr.FromInt32(8080)}},
		},
	}
}

// Job is the ticker as a Job that forgives no failure.
func (c *Cluster) Job(t Ticker) *batchv1.Job {
	p := c.PodTemplate(t)
	p.Spec.RestartPolicy = corev1.RestartPolicyNever
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: t.Namespace, Name: t.Name},
		Spec:       batchv1.JobSpec{BackoffLimit: ptr(int32(0)), Template: p},
	}
}

// Resolves waits until the Service tells DNS servers that the name is this pod's address
// and no other's.
func (c *Cluster) Resolves(ctx context.Context, service, hostname string, p *corev1.Pod) error {
	return Eventually(ctx, hostname+"."+service+" is "+p.Status.PodIP, func(ctx context.Context) (bool, string) {
		var slices discoveryv1.EndpointSliceList
		if err := c.Client.List(ctx, &slices, client.InNamespace(p.Namespace), client.MatchingLabels{discoveryv1.LabelServiceName: service}); err != nil {
			return false, err.Error()
		}
		var found []string
		for _, s := range slices.Items {
			for _, e := range s.Endpoints {
				if e.Hostname != nil && *e.Hostname == hostname && e.Conditions.Ready != nil && *e.Conditions.Ready {
					found = append(found, e.Addresses...)
				}
			}
		}
		return len(found) == 1 && found[0] == p.Status.PodIP, fmt.Sprint(found)
	})
}

// NothingOnHold waits until no move of the namespace has creations refused any more.
func (c *Cluster) NothingOnHold(ctx context.Context, ns string) error {
	return Eventually(ctx, "no hold", func(ctx context.Context) (bool, string) {
		var holds corev1.ConfigMap
		if err := c.Client.Get(ctx, client.ObjectKey{Namespace: "drover-system", Name: v1alpha1.HoldsConfigMap}, &holds); err != nil {
			return false, err.Error()
		}
		for _, holder := range holds.Data {
			if strings.HasPrefix(holder, ns+"/") {
				return false, fmt.Sprint(holds.Data)
			}
		}
		return true, ""
	})
}
