package simulate

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/scheme"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/validation"
	frameworkplugins "k8s.io/kubernetes/pkg/scheduler/framework/plugins"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
)

// Configuration reads a KubeSchedulerConfiguration, sets its defaults and checks it. more are the
// plugins that are known beside kube-scheduler's own; from is where it comes from, for errors.
func Configuration(raw []byte, from string, more frameworkruntime.Registry) (*config.KubeSchedulerConfiguration, error) {
	obj, kind, err := scheme.Codecs.UniversalDecoder().Decode(raw, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: want a KubeSchedulerConfiguration", from, oneLine(err))
	}
	c, ok := obj.(*config.KubeSchedulerConfiguration)
	if !ok {
		return nil, fmt.Errorf("%s is a %s: want a KubeSchedulerConfiguration", from, kind.Kind)
	}
	c.APIVersion = kind.GroupVersion().String() // as kube-scheduler's own reader does
	if err := validation.ValidateKubeSchedulerConfiguration(c); err != nil {
		return nil, fmt.Errorf("%s: %s", from, oneLine(err))
	}
	if len(c.Extenders) > 0 {
		return nil, fmt.Errorf("%s: extenders: these are programs beside the scheduler, which cannot be simulated: leave them out", from)
	}
	known := frameworkplugins.NewInTreeRegistry()
	if err := known.Merge(more); err != nil {
		return nil, err
	}
	for i := range c.Profiles {
		for _, name := range pluginsOf(&c.Profiles[i]) {
			if _, is := known[name]; !is {
				return nil, fmt.Errorf("%s: profile %s: plugin %q is not known here: kube-scheduler's own are, and %s", from, c.Profiles[i].SchedulerName, name, strings.Join(namesOf(more), ", "))
			}
		}
	}
	return c, nil
}

// pluginsOf lists the plugins that a profile enables anywhere.
func pluginsOf(p *config.KubeSchedulerProfile) []string {
	if p.Plugins == nil {
		return nil
	}
	names := p.Plugins.Names()
	for _, plugin := range p.Plugins.MultiPoint.Enabled {
		names = append(names, plugin.Name)
	}
	return names
}

func namesOf(r frameworkruntime.Registry) []string {
	var names []string
	for name := range r {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
