package migrate

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/fence"
	"github.com/drover-project/drover/internal/handoff"
)

var (
	_ Records  = Kube{}
	_ Cluster  = Kube{}
	_ Fences   = fence.Dir("")
	_ Arrivals = fence.RestoredDir("")
	_ Marks    = MarkDir("")
)

func kube(t *testing.T, funcs interceptor.Funcs, objects ...client.Object) Kube {
	s := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(s), v1alpha1.AddToScheme(s)); err != nil {
		t.Fatal(err)
	}
	return Kube{fake.NewClientBuilder().WithScheme(s).WithStatusSubresource(&v1alpha1.PodMigration{}).
		WithObjects(objects...).WithInterceptorFuncs(funcs).Build()}
}

func TestUpdateStatus(t *testing.T) {
	gr := schema.GroupResource{Resource: "podmigrations"}
	for name, c := range map[string]struct {
		fail  error
		stale bool
		want  handoff.Outcome
	}{
		"stored":        {want: handoff.OK},
		"stale":         {stale: true, want: handoff.Conflict},
		"invalid":       {fail: apierrors.NewInvalid(schema.GroupKind{}, "move", nil), want: handoff.Conflict},
		"gone":          {fail: apierrors.NewNotFound(gr, "move"), want: handoff.Conflict},
		"forbidden":     {fail: apierrors.NewForbidden(gr, "move", nil), want: handoff.Conflict},
		"timed out":     {fail: context.DeadlineExceeded, want: handoff.Unknown},
		"server's time": {fail: apierrors.NewTimeoutError("slow", 1), want: handoff.Unknown},
		"broken":        {fail: errors.New("connection reset by peer"), want: handoff.Unknown},
		"server error":  {fail: apierrors.NewInternalError(errors.New("etcd")), want: handoff.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			pm := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "move"}}
			k := kube(t, interceptor.Funcs{SubResourceUpdate: func(ctx context.Context, cl client.Client, sub string, o client.Object, opts ...client.SubResourceUpdateOption) error {
				if c.fail != nil {
					return c.fail
				}
				return cl.SubResource(sub).Update(ctx, o, opts...)
			}}, pm)
			got, err := k.Get(ctx, "default", "move")
			if err != nil {
				t.Fatal(err)
			}
			if c.stale {
				if _, o, err := k.UpdateStatus(ctx, got); o != handoff.OK {
					t.Fatal(o, err)
				}
				got.Status.Epoch = 9
			}
			_, outcome, err := k.UpdateStatus(ctx, got)
			if outcome != c.want || (err == nil) != (c.want == handoff.OK) {
				t.Errorf("%s, %v; want %s", outcome, err, c.want)
			}
		})
	}
}

func TestUnwanted(t *testing.T) {
	owner := metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", UID: "rs", Controller: new(bool)}
	*owner.Controller = true
	pod := func(name, uid string, change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(uid)}}
		if change != nil {
			change(p)
		}
		return p
	}
	deleted := func(p *corev1.Pod) {
		now := metav1.Now()
		p.DeletionTimestamp, p.Finalizers = &now, []string{"drover.dev/test"}
	}
	owned := func(p *corev1.Pod) { p.OwnerReferences = []metav1.OwnerReference{owner} }
	rs := func(uid string) client.Object {
		return &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: types.UID(uid)}}
	}
	for name, c := range map[string]struct {
		objects []client.Object
		owner   string
		want    string
	}{
		"bare":                   {objects: []client.Object{pod("web", "1", nil), pod("web-dm2", "2", nil)}},
		"source gone":            {objects: []client.Object{pod("web-dm2", "2", nil)}, want: "pod web is gone"},
		"source another":         {objects: []client.Object{pod("web", "7", nil), pod("web-dm2", "2", nil)}, want: "another one"},
		"source deleted":         {objects: []client.Object{pod("web", "1", deleted), pod("web-dm2", "2", nil)}, want: "pod web is being deleted"},
		"replacement gone":       {objects: []client.Object{pod("web", "1", nil)}, want: "pod web-dm2 is gone"},
		"owned":                  {objects: []client.Object{pod("web", "1", owned), pod("web-dm2", "2", nil), rs("rs")}, owner: "rs"},
		"owner gone":             {objects: []client.Object{pod("web", "1", owned), pod("web-dm2", "2", nil)}, owner: "rs", want: "ReplicaSet web is gone"},
		"owner another":          {objects: []client.Object{pod("web", "1", owned), pod("web-dm2", "2", nil), rs("x")}, owner: "rs", want: "ReplicaSet web is gone"},
		"owner not the record's": {objects: []client.Object{pod("web", "1", owned), pod("web-dm2", "2", nil), rs("rs")}, owner: "old", want: "another owner"},
		"owner let go":           {objects: []client.Object{pod("web", "1", nil), pod("web-dm2", "2", nil)}, owner: "rs", want: "lost its owner"},
	} {
		t.Run(name, func(t *testing.T) {
			k := kube(t, interceptor.Funcs{}, c.objects...)
			m := Move{OwnerUID: c.owner, Source: Pod{Namespace: "default", Name: "web", UID: "1"}, Target: Pod{Namespace: "default", Name: "web-dm2", UID: "2"}}
			got, err := k.Unwanted(context.Background(), m)
			if err != nil || got != c.want && (c.want == "" || !strings.Contains(got, c.want)) {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
		})
	}
}

// The two pods are read beside each other, and one that cannot be read hides nothing that speaks
// against the move.
func TestUnwantedReadsBothAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		fails, want string
	}{
		"both there":                  {"", ""},
		"source unknown, target gone": {"web", "pod web-dm2 is gone"},
		"target unknown, source gone": {"web-dm2", "pod web is gone"},
	} {
		synctest.Test(t, func(t *testing.T) {
			read := map[string]chan bool{"web": make(chan bool), "web-dm2": make(chan bool)}
			away := errors.New("the API server is away")
			k := kube(t, interceptor.Funcs{Get: func(_ context.Context, _ client.WithWatch, key client.ObjectKey, o client.Object, _ ...client.GetOption) error {
				close(read[key.Name])
				for _, other := range read {
					<-other
				}
				switch {
				case c.fails == key.Name:
					return away
				case c.fails != "":
					return apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, key.Name)
				}
				o.SetUID(types.UID(key.Name))
				return nil
			}})
			m := Move{Source: Pod{Namespace: "default", Name: "web", UID: "web"}, Target: Pod{Namespace: "default", Name: "web-dm2", UID: "web-dm2"}}
			if got, err := k.Unwanted(t.Context(), m); got != c.want || err != nil {
				t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
			}
		})
	}
}

func TestBootID(t *testing.T) {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b"}}
	n.Status.NodeInfo.BootID = "boot-b"
	k := kube(t, interceptor.Funcs{}, n)
	if id, gone, err := k.BootID(context.Background(), "b"); id != "boot-b" || gone || err != nil {
		t.Error(id, gone, err)
	}
	if id, gone, err := k.BootID(context.Background(), "c"); id != "" || !gone || err != nil {
		t.Error(id, gone, err)
	}
}

func TestMarkDir(t *testing.T) {
	d, m := MarkDir(t.TempDir()+"/begun"), Move{Target: Pod{UID: targetPod}}
	for _, want := range []bool{false, true, false} {
		if got, err := d.Begun(m); got != want || err != nil {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
		do := d.Begin
		if want {
			do = d.Forget
		}
		if err := do(m); err != nil {
			t.Error(err)
		}
	}
	if err := d.Begin(Move{Target: Pod{UID: "../x"}}); err == nil {
		t.Error("a UID that is a path was taken")
	}
}
