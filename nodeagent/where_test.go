package nodeagent

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/gossip"
	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/identity/identitytest"
	"github.com/drover-project/drover/internal/location"
	"github.com/drover-project/drover/internal/model"
)

// committed is a move of ns/from to the pod to.
func committed(name, from, to, uid string) *v1alpha1.PodMigration {
	m := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: v1alpha1.PodMigrationSpec{PodName: from}}
	m.Status.Decision = v1alpha1.Commit
	m.Status.Target.PodName, m.Status.Target.PodUID = to, types.UID(uid)
	return m
}

func TestSuccessors(t *testing.T) {
	back := committed("m5", "home", "home-dm1", "u5")
	back.Status.Returned = true
	undecided := committed("m6", "wait", "wait-dm1", "u6")
	undecided.Status.Decision = v1alpha1.Undecided
	other := committed("m7", "web", "web-dm1", "u7")
	other.Namespace = "other"
	circle := committed("m8", "x", "x", "u8") // a pod that keeps its name
	second := committed("m2", "web-dm1", "web-dm2", "u2")
	second.Status.Source.PodUID = "u1"
	moves := []v1alpha1.PodMigration{*second, *committed("m1", "web", "web-dm1", "u1"), *back, *undecided, *other, *circle}
	for pod, want := range map[string][]string{
		"web": {"u1", "u2"}, "web-dm1": {"u2"}, "u1": {"u2"}, "web-dm2": nil, "home": nil, "wait": nil, "x": {"u8"}, "nobody": nil,
	} {
		got := successors(moves, "ns", pod)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", pod, diff)
		}
	}
}

func TestWhere(t *testing.T) {
	ended := testPod()
	ended.Name, ended.UID, ended.Status.Phase = "ended", "u3", corev1.PodSucceeded
	moved := testPod()
	moved.Name, moved.UID = "api-dm1", "u2"
	a, m, _ := testAgent(t, Observe, testPod(), moved, ended, committed("m1", "api", "api-dm1", "u2"))
	ask := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		a.status().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w
	}
	if w := ask("/v1/where/ns/web"); w.Code != http.StatusServiceUnavailable {
		t.Errorf("before gossip was joined: %d %s", w.Code, w.Body)
	}
	ca := identitytest.NewAuthority(t)
	id := ca.Node(t, "n1")
	var err error
	a.gossip, err = gossip.New(gossip.Config{Self: id.Subject, Identity: func() *identity.Identity { return id }, Roots: ca.Pool(), SecretKey: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	a.joined.Store(true)
	if err := a.gossip.Publish(model.NodeState{Phase: model.Normal}); err != nil {
		t.Fatal(err)
	}
	for pod, want := range map[string]model.PodID{"web": podID(testPod()), "u1": podID(testPod()), "api": podID(moved), "api-dm1": podID(moved)} {
		w := ask("/v1/where/ns/" + pod)
		var got location.Answer
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", pod, w.Code, w.Body)
		}
		if len(got.Places) != 1 || got.Places[0].Pod != want || got.Places[0].Node != "n1" || got.Places[0].Phase != model.Normal || got.Self != "n1" {
			t.Errorf("%s: %+v", pod, got)
		}
	}
	for _, pod := range []string{"ns/nobody", "other/web", "ns/ended", "ns/%2e%2e%2fweb"} {
		if w := ask("/v1/where/" + pod); w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), "is known on node n1") {
			t.Errorf("%s: %d %s", pod, w.Code, w.Body)
		}
	}
	m.fail = errors.New("the cache is not there")
	if w := ask("/v1/where/ns/web"); w.Code != http.StatusInternalServerError {
		t.Errorf("unreadable: %d %s", w.Code, w.Body)
	}
}
