package args

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	configv1alpha1 "github.com/drover-project/drover/api/config/v1alpha1"
	"github.com/drover-project/drover/internal/placement"
)

func TestDefaultsAreThoseOfTheFormula(t *testing.T) {
	a := &configv1alpha1.RouteTimeArgs{}
	a.SetDefaults()
	if diff := cmp.Diff(placement.Defaults(), Params(a)); diff != "" {
		t.Errorf("the arguments' defaults (+) differ from the formula's (-):\n%s", diff)
	}
	if configv1alpha1.MaxRouteTimeExponent != placement.MaxExponent {
		t.Error("the greatest exponents differ")
	}
	if p := placement.Defaults().Problem(); p != "" {
		t.Error(p)
	}
}

const config = `
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection: {leaderElect: false}
profiles:
- schedulerName: plain
- schedulerName: drover-scheduler
  plugins: {multiPoint: {enabled: [{name: RouteTime, weight: 10}]}}
  pluginConfig:
  - name: NodeResourcesFit
    args: {}
  - name: RouteTime
    args:
      apiVersion: drover.dev/v1alpha1
      kind: RouteTimeArgs
      alpha: 2
      staleAfter: 15s
- schedulerName: wrong
  pluginConfig: [{name: RouteTime, args: {tau: 0}}]
`

func TestFromConfig(t *testing.T) {
	want := placement.Defaults()
	got, err := FromConfig([]byte(config), "plain")
	if err != nil || got != want {
		t.Errorf("a profile without arguments: %+v, %v; want the defaults", got, err)
	}
	want.Alpha, want.StaleAfter = 2, 15*time.Second
	got, err = FromConfig([]byte(config), "drover-scheduler")
	if err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	for name, raw := range map[string]string{"wrong": config, "absent": config, "drover-scheduler": "{"} {
		_, err := FromConfig([]byte(raw), name)
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("profile %s: error %v, want one line", name, err)
		}
	}
}
