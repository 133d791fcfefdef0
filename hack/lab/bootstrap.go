package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// poll is how often the cluster is asked whether it is there yet.
const poll = 50 * time.Millisecond

// until calls f until it is satisfied or ctx ends; the error then tells what was still amiss.
func until(ctx context.Context, what string, f func(context.Context) error) error {
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w: %w", what, context.Cause(ctx), err)
		case <-time.After(poll):
		}
	}
}

// grantRoles gives the lab's own users what they need.
func grantRoles(ctx context.Context, client kubernetes.Interface) error {
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: prometheusUser},
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"pods", "nodes"}, Verbs: []string{"get", "list", "watch"}},
			{NonResourceURLs: []string{"/metrics"}, Verbs: []string{"get"}},
		},
	}
	if _, err := client.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create role of Prometheus: %w", err)
	}
	for user, role := range map[string]string{prometheusUser: prometheusUser, kubeletClientUser: "system:kubelet-api-admin"} {
		binding := &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: user},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: user}},
			RoleRef:    rbacv1.RoleRef{Kind: "ClusterRole", APIGroup: rbacv1.GroupName, Name: role},
		}
		if _, err := client.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("give %s to %s: %w", role, user, err)
		}
	}
	return nil
}

// settleNode waits for a node to be Ready, and gives it its pod range and labels.
func settleNode(ctx context.Context, client kubernetes.Interface, m machine, labels map[string]string) error {
	settled := false
	return until(ctx, "node "+m.name+" is Ready", func(ctx context.Context) error {
		node, err := client.CoreV1().Nodes().Get(ctx, m.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if !settled {
			change := map[string]any{"spec": map[string]any{"podCIDR": m.podRanges()[0], "podCIDRs": m.podRanges()}}
			if len(labels) > 0 { // an empty value would take away all that kubelet has set
				change["metadata"] = map[string]any{"labels": labels}
			}
			patch, err := json.Marshal(change)
			if err != nil {
				return err
			}
			if _, err := client.CoreV1().Nodes().Patch(ctx, m.name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
				return err
			}
			settled = true
		}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("node %s is not Ready", m.name)
	})
}
