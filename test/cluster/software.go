package cluster

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/hack/deploy"
)

// Software is a program from Debian's packages that runs as a movable Deployment of one pod,
// in the image that LoadSoftware loads.
type Software struct {
	Namespace, Name, Image string
	Command                []string
	Env                    map[string]string
	// Files are mounted below /files.
	Files map[string]string
	// Port, if there is one, gets a readiness probe and the Service NAME.
	Port int32
	// Node is where the first pod starts, past every scheduler; empty: anywhere.
	Node string
	// Keep is for how long it asks to keep its connections (annotation drover.dev/keep-connections); empty: it does not.
	Keep string
	// Seccomp puts it under the container runtime's default profile.
	Seccomp bool
}

// LoadSoftware builds the image of Debian packages, loads it into the nodes, and gives its
// reference. The first time on a machine it fetches the packages; of one cluster it does it once.
func (c *Cluster) LoadSoftware(ctx context.Context) (string, error) {
	c.loading.Lock()
	defer c.loading.Unlock()
	if c.software != "" {
		return c.software, nil
	}
	step := c.step("building the image of Debian packages")
	built, err := deploy.Build(ctx, c.root, c.log, deploy.Software)
	if err != nil {
		return "", err
	}
	step()
	step = c.step("loading it into the nodes")
	for _, t := range built.Tars {
		if err := c.Lab.LoadImage(ctx, t); err != nil {
			return "", err
		}
	}
	step()
	c.software = deploy.Software[0].Ref(built.Tag)
	return c.software, nil
}

// Start creates the program's objects.
func (c *Cluster) Start(ctx context.Context, s Software) error {
	meta := metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name}
	labels := map[string]string{"app": s.Name}
	if err := c.Client.Create(ctx, &corev1.ConfigMap{ObjectMeta: meta, Data: s.Files}); err != nil {
		return fmt.Errorf("files of %s: %w", s.Name, err)
	}
	if s.Port != 0 {
		service := &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Port: s.Port}}}}
		if err := c.Client.Create(ctx, service); err != nil {
			return fmt.Errorf("service %s: %w", s.Name, err)
		}
	}
	d := &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{
		Replicas: ptr(int32(1)),
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: map[string]string{v1alpha1.AnnotationMigrate: "true"}},
			Spec: corev1.PodSpec{
				Containers:                    []corev1.Container{s.container()},
				SchedulerName:                 v1alpha1.SchedulerName,
				NodeName:                      s.Node,
				RuntimeClassName:              ptr(v1alpha1.RuntimeClassName),
				TerminationGracePeriodSeconds: ptr(int64(1)),
				Volumes: []corev1.Volume{{Name: "files", VolumeSource: corev1.VolumeSource{
					ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: s.Name}},
				}}},
			},
		},
	}}
	if s.Keep != "" {
		d.Spec.Template.Annotations[v1alpha1.AnnotationKeepConnections] = s.Keep
	}
	if err := c.Client.Create(ctx, d); err != nil {
		return fmt.Errorf("deployment %s: %w", s.Name, err)
	}
	return nil
}

func (s Software) container() corev1.Container {
	container := corev1.Container{
		Name: s.Name, Image: s.Image, ImagePullPolicy: corev1.PullNever, Command: s.Command,
		VolumeMounts: []corev1.VolumeMount{{Name: "files", MountPath: "/files", ReadOnly: true}},
	}
	if s.Seccomp {
		container.SecurityContext = &corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
	}
	for name, value := range s.Env {
		container.Env = append(container.Env, corev1.EnvVar{Name: name, Value: value})
	}
	if s.Port != 0 {
		container.ReadinessProbe = &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(s.Port)}},
			PeriodSeconds: 1, TimeoutSeconds: 5,
		}
	}
	return container
}
