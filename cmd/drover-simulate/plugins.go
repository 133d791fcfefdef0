package main

import (
	"slices"

	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	_ "sigs.k8s.io/scheduler-plugins/apis/config/scheme" // registers the arguments of the plugins below
	"sigs.k8s.io/scheduler-plugins/pkg/noderesources"
	"sigs.k8s.io/scheduler-plugins/pkg/podstate"

	"github.com/drover-project/drover/internal/simulate"
	"github.com/drover-project/drover/internal/view"
	"github.com/drover-project/drover/plugin"
)

// defaultConfig is what is compared when nothing is said: the chart's profile beside the default.
const defaultConfig = `
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: default-scheduler
- schedulerName: drover-scheduler
  plugins:
    multiPoint:
      enabled: [{name: RouteTime, weight: 10}]
  pluginConfig:
  - name: RouteTime
    args: {apiVersion: drover.dev/v1alpha1, kind: RouteTimeArgs}
`

// plugins are those beside kube-scheduler's own: RouteTime by what was measured, and those of
// scheduler-plugins that read nothing but what kube-scheduler reads.
func plugins(measured view.Snapshot) frameworkruntime.Registry {
	return frameworkruntime.Registry{
		plugin.Name:                   plugin.Still(measured),
		noderesources.AllocatableName: noderesources.NewAllocatable,
		podstate.Name:                 podstate.New,
	}
}

// withDefault reads a configuration, and adds the profile default-scheduler if it has none.
func withDefault(raw []byte, from string) (*config.KubeSchedulerConfiguration, error) {
	known := plugins(view.Snapshot{})
	c, err := simulate.Configuration(raw, from, known)
	if err != nil {
		return nil, err
	}
	d, err := simulate.Configuration([]byte(defaultConfig), "default", known)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(c.Profiles, func(p config.KubeSchedulerProfile) bool { return p.SchedulerName == d.Profiles[0].SchedulerName }) {
		c.Profiles = slices.Insert(c.Profiles, 0, d.Profiles[0])
	}
	return c, nil
}
