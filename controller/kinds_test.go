package controller

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// asking counts; err is its answer.
type asking struct {
	times int
	err   error
}

func (a *asking) GroupsAndMaybeResources() (*metav1.APIGroupList, map[schema.GroupVersion]*metav1.APIResourceList, map[schema.GroupVersion]error, error) {
	a.times++
	return &metav1.APIGroupList{}, map[schema.GroupVersion]*metav1.APIResourceList{}, nil, a.err
}

// Many leases ask the API server once in a while what it serves; what it could not say is asked again.
func TestKindsAreRemembered(t *testing.T) {
	now, server := start, &asking{err: errors.New("away")}
	r := &remembered{kinds: server, now: func() time.Time { return now }}
	for i, c := range []struct {
		later time.Duration
		err   error
		times int
	}{{0, server.err, 1}, {0, nil, 2}, {0, nil, 2}, {fresh - 1, nil, 2}, {1, nil, 3}, {fresh, server.err, 4}, {0, nil, 5}} {
		now, server.err = now.Add(c.later), c.err
		if _, _, _, err := r.GroupsAndMaybeResources(); err != c.err || server.times != c.times {
			t.Errorf("%d: %v, asked %d times; want %v, %d", i, err, server.times, c.err, c.times)
		}
	}
}

// The chart lets the controller list every kind of policy that it looks for.
func TestChartListsPolicies(t *testing.T) {
	chart, err := os.ReadFile("../manifests/drover/templates/controller.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range unreadable {
		name := strings.ToLower(kind.Kind)
		for one, more := range map[string]string{"y": "ies", "s": "ses", "p": "ps"} {
			if stem, is := strings.CutSuffix(name, one); is {
				name = stem + more
				break
			}
		}
		rule := regexp.MustCompile(`apiGroups: \[[^]]*\b` + regexp.QuoteMeta(kind.Group) + `\b[^]]*]\s+resources: \[[^]]*\b` + name + `\b[^]]*]\s+verbs: \[list]`)
		if !rule.Match(chart) {
			t.Errorf("no rule of the chart lets the controller list %s (%s)", kind, name)
		}
	}
}
