package deploy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/drover-project/drover/api/v1alpha1"
)

// server is a real API server with the chart's accounts, roles and policies, one for all
// tests: each has a namespace of its own.
type server struct {
	env    *envtest.Environment
	config *rest.Config
	scheme *runtime.Scheme
	admin  client.Client
	set    *kubernetes.Clientset
}

var shared struct {
	sync.Once
	server
	err error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.env != nil {
		if err := shared.env.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop the API server:", err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

func (s *server) start(manifest string) (err error) {
	s.env = &envtest.Environment{CRDDirectoryPaths: []string{"../../manifests/drover/crds"}, ErrorIfCRDPathMissing: true}
	if s.config, err = s.env.Start(); err != nil {
		return err
	}
	s.scheme = runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(s.scheme), v1alpha1.AddToScheme(s.scheme)); err != nil {
		return err
	}
	if s.set, err = kubernetes.NewForConfig(s.config); err != nil {
		return err
	}
	if s.admin, err = client.New(s.config, client.Options{Scheme: s.scheme}); err != nil {
		return err
	}
	objects, err := admissible(manifest)
	if err != nil {
		return err
	}
	first := []client.Object{&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: Namespace}}}
	for _, n := range []string{"n1", "n2", "n3"} {
		first = append(first, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n}})
	}
	for _, o := range append(first, objects...) {
		if err := s.admin.Create(context.Background(), o); err != nil {
			return fmt.Errorf("create %T %s: %w", o, o.GetName(), err)
		}
	}
	return nil
}

// admissible is what the chart has of accounts, roles, policies and what these read.
func admissible(manifest string) (all []client.Object, _ error) {
	kinds := map[string]func() client.Object{
		"ConfigMap":                        func() client.Object { return &corev1.ConfigMap{} },
		"ServiceAccount":                   func() client.Object { return &corev1.ServiceAccount{} },
		"ClusterRole":                      func() client.Object { return &rbacv1.ClusterRole{} },
		"ClusterRoleBinding":               func() client.Object { return &rbacv1.ClusterRoleBinding{} },
		"Role":                             func() client.Object { return &rbacv1.Role{} },
		"RoleBinding":                      func() client.Object { return &rbacv1.RoleBinding{} },
		"ValidatingAdmissionPolicy":        func() client.Object { return &admissionv1.ValidatingAdmissionPolicy{} },
		"ValidatingAdmissionPolicyBinding": func() client.Object { return &admissionv1.ValidatingAdmissionPolicyBinding{} },
	}
	for _, doc := range strings.Split(manifest, "\n---") {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(doc), &kind); err != nil {
			return nil, err
		}
		if kinds[kind.Kind] == nil {
			continue
		}
		o := kinds[kind.Kind]()
		if err := yaml.UnmarshalStrict([]byte(doc), o); err != nil {
			return nil, fmt.Errorf("%s: %w", kind.Kind, err)
		}
		if slices.Contains([]string{"ConfigMap", "ServiceAccount", "Role", "RoleBinding"}, kind.Kind) && o.GetNamespace() == "" {
			o.SetNamespace(Namespace)
		}
		all = append(all, o)
	}
	return all, nil
}

// cluster is the API server as one test has it. Nobody but the test itself is an
// administrator.
type cluster struct {
	*testing.T
	*server
	ns string // the test's own
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Skip("KUBEBUILDER_ASSETS is not set: no kube-apiserver to test with")
	}
	shared.Do(func() {
		manifest, err := render(t, nil)
		if err != nil {
			t.Fatal(err)
		}
		shared.err = shared.start(manifest)
	})
	if shared.err != nil {
		t.Fatal("start the API server: ", shared.err)
	}
	c := &cluster{T: t, server: &shared.server}
	own := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: strings.ToLower(t.Name()) + "-"}}
	c.make(own)
	c.ns = own.Name
	return c
}

func (c *cluster) make(o client.Object) {
	c.Helper()
	if err := c.admin.Create(c.Context(), o); err != nil {
		c.Fatalf("create %T %s: %v", o, o.GetName(), err)
	}
}

// until waits for what the API server hears of a moment after it was made: policies, roles.
func (c *cluster) until(what string, is func(context.Context) bool) {
	c.Helper()
	err := wait.PollUntilContextTimeout(c.Context(), 20*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		return is(ctx), nil
	})
	if err != nil {
		c.Fatalf("%s: %v", what, err)
	}
}

// pod makes a pod on a node.
func (c *cluster) pod(namespace, name, account, node string) *corev1.Pod {
	c.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.PodSpec{ServiceAccountName: account, NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	c.make(p)
	return p
}

func (c *cluster) wish(name, pod, to string) *v1alpha1.PodMigration {
	return &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: name}, Spec: v1alpha1.PodMigrationSpec{PodName: pod, TargetNode: to}}
}

// account gives clients with the token that a pod of a service account on a node gets from its
// kubelet: what an attacker finds there.
func (c *cluster) account(name, node string) (client.Client, *kubernetes.Clientset) {
	c.Helper()
	p := c.pod(Namespace, strings.Join([]string{name, node, c.ns}, "-"), name, node)
	t, err := c.set.CoreV1().ServiceAccounts(Namespace).CreateToken(c.Context(), name, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{
			Kind: "Pod", APIVersion: "v1", Name: p.Name, UID: p.UID}},
	}, metav1.CreateOptions{})
	if err != nil {
		c.Fatal(err)
	}
	config := rest.AnonymousClientConfig(c.config)
	config.BearerToken = t.Status.Token
	k, err := client.New(config, client.Options{Scheme: c.scheme})
	if err != nil {
		c.Fatal(err)
	}
	return k, kubernetes.NewForConfigOrDie(config)
}

// program is one of Drover's by name, with a token of that node; empty: of none.
func (c *cluster) program(name, node string) client.Client {
	c.Helper()
	return c.as("system:serviceaccount:"+Namespace+":"+name, node)
}

// role makes a ClusterRole and gives its name.
func (c *cluster) role(rules ...rbacv1.PolicyRule) string {
	c.Helper()
	r := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{GenerateName: c.ns + "-"}, Rules: rules}
	c.make(r)
	return r.Name
}

// user is one with these ClusterRoles in the test's namespace.
func (c *cluster) user(name string, roles ...string) client.Client {
	c.Helper()
	k := c.as(name, "n1")
	for _, role := range roles {
		before := c.rules(k)
		c.make(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: name + "-" + role},
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: name}}})
		c.until(name+" does not get the role "+role, func(context.Context) bool { return c.rules(k) > before })
	}
	return k
}

func (c *cluster) as(user, node string) client.Client {
	c.Helper()
	config := rest.CopyConfig(c.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{"system:authenticated"}}
	if node != "" {
		config.Impersonate.Extra = map[string][]string{"authentication.kubernetes.io/node-name": {node}}
	}
	k, err := client.New(config, client.Options{Scheme: c.scheme})
	if err != nil {
		c.Fatal(err)
	}
	return k
}

// rules is how many rules of RBAC apply to somebody in the test's namespace.
func (c *cluster) rules(who client.Client) int {
	c.Helper()
	r := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: c.ns}}
	if err := who.Create(c.Context(), r); err != nil {
		c.Fatal(err)
	}
	return len(r.Status.ResourceRules)
}
