// Package args turns the arguments of RouteTime into the formula's parameters, also for
// programs that want to explain a score and have nothing but the scheduler's
// configuration.
package args

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	configv1alpha1 "github.com/drover-project/drover/api/config/v1alpha1"
	"github.com/drover-project/drover/internal/placement"
)

// Plugin is the plugin's name in profiles.
const Plugin = "RouteTime"

// Params gives the parameters of arguments whose defaults are set.
func Params(a *configv1alpha1.RouteTimeArgs) placement.Params {
	return placement.Params{
		Alpha:      *a.Alpha,
		Beta:       *a.Beta,
		Tau:        *a.Tau,
		Floor:      a.RouteTimeFloor.Duration,
		Exponent:   *a.RouteTimeExponent,
		StaleAfter: a.StaleAfter.Duration,
	}
}

// configuration is what is of interest in a KubeSchedulerConfiguration, so that a small
// program need not link the scheduler.
type configuration struct {
	Profiles []struct {
		SchedulerName string `json:"schedulerName"`
		PluginConfig  []struct {
			Name string               `json:"name"`
			Args runtime.RawExtension `json:"args"`
		} `json:"pluginConfig"`
	} `json:"profiles"`
}

// FromConfig reads the parameters of one profile from a KubeSchedulerConfiguration in YAML
// or JSON; those that the profile does not set are the defaults.
func FromConfig(raw []byte, scheduler string) (placement.Params, error) {
	var c configuration
	if err := yaml.Unmarshal(raw, &c); err != nil {
		return placement.Params{}, fmt.Errorf("read the scheduler's configuration: %w", err)
	}
	for _, p := range c.Profiles {
		if p.SchedulerName != scheduler {
			continue
		}
		var obj runtime.Object
		for _, pc := range p.PluginConfig {
			if pc.Name == Plugin {
				obj = &runtime.Unknown{Raw: pc.Args.Raw}
			}
		}
		a, err := configv1alpha1.DecodeRouteTimeArgs(obj)
		if err != nil {
			return placement.Params{}, fmt.Errorf("profile %s: %w", scheduler, err)
		}
		return Params(a), nil
	}
	return placement.Params{}, fmt.Errorf("the scheduler's configuration has no profile %q", scheduler)
}
