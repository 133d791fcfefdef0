package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"helm.sh/helm/v3/pkg/chartutil"
)

// sysResource is what CRIU needs for processes that are not root's, and what some build
// machines do not have. A container cannot be given what its node lacks.
const sysResource = "SYS_RESOURCE"

// asTheMachineHas takes SYS_RESOURCE out of the agent's capabilities if this machine lacks it:
// all else is tested as it is in the chart.
func asTheMachineHas(root string, values map[string]any) (map[string]any, error) {
	has, err := bounding(unix.CAP_SYS_RESOURCE)
	if has || err != nil {
		return values, err
	}
	chart, err := chartutil.ReadValuesFile(filepath.Join(root, "manifests", "drover", "values.yaml"))
	if err != nil {
		return nil, err
	}
	agent, err := chart.Table("agent")
	if err != nil {
		return nil, err
	}
	all, ok := agent["capabilities"].([]any)
	if !ok {
		return nil, fmt.Errorf("the chart's agent.capabilities is a %T", agent["capabilities"])
	}
	left := slices.DeleteFunc(all, func(c any) bool { return c == sysResource })
	return chartutil.CoalesceTables(map[string]any{"agent": map[string]any{"capabilities": left}}, values), nil
}

// bounding tells whether this process could have a capability (proc(5) status, CapBnd).
func bounding(capability int) (bool, error) {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(data)) {
		if hex, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return set&(1<<capability) != 0, err
		}
	}
	return false, fmt.Errorf("/proc/self/status names no CapBnd")
}
