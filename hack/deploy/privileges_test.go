package deploy

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// agentSet is the agents' DaemonSet.
func agentSet(t *testing.T) *appsv1.DaemonSet {
	t.Helper()
	d := &appsv1.DaemonSet{}
	if !object(t, nil, "DaemonSet", "drover-agent", d) {
		t.Fatal("the chart has no DaemonSet drover-agent")
	}
	return d
}

// table reads the rows of the table in docs/threat-model.md whose first column has that head.
func table(t *testing.T, head string) (rows [][]string) {
	t.Helper()
	data, err := os.ReadFile("../../docs/threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	inside := false
	for _, line := range strings.Split(string(data), "\n") {
		if !strings.HasPrefix(line, "|") {
			inside = false
			continue
		}
		var cells []string
		for _, c := range strings.Split(strings.Trim(line, "|"), "|") {
			cells = append(cells, strings.TrimSpace(c))
		}
		switch {
		case cells[0] == head:
			inside = true
		case inside && !strings.HasPrefix(cells[0], "---"):
			rows = append(rows, cells)
		}
	}
	if len(rows) == 0 {
		t.Fatalf("docs/threat-model.md has no table of %q", head)
	}
	return rows
}

// What the DaemonSet may do is what the threat model says, no more and no less.
func TestAgentPrivilegesAreThoseOfTheThreatModel(t *testing.T) {
	spec := agentSet(t).Spec.Template.Spec
	agent := spec.Containers[0]
	s := agent.SecurityContext
	if *s.Privileged || !*s.ReadOnlyRootFilesystem || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Errorf("security context %+v", s)
	}
	var has, told []string
	for _, c := range s.Capabilities.Add {
		has = append(has, string(c))
	}
	for _, row := range table(t, "capability") {
		told = append(told, row[0])
	}
	slices.Sort(has)
	slices.Sort(told)
	if !slices.Equal(has, told) {
		t.Errorf("the chart adds capabilities %q, docs/threat-model.md tells of %q", has, told)
	}
	has, told = nil, nil
	for _, m := range agent.VolumeMounts {
		mode := "read and write"
		if m.ReadOnly {
			mode = "read only"
		}
		has = append(has, fmt.Sprintf("%s %s", m.MountPath, mode))
	}
	for _, row := range table(t, "mount") {
		told = append(told, fmt.Sprintf("%s %s", row[0], row[1]))
	}
	slices.Sort(has)
	slices.Sort(told)
	if !slices.Equal(has, told) {
		t.Errorf("the chart mounts %q, docs/threat-model.md tells of %q", has, told)
	}
	var settings []string
	for _, row := range table(t, "setting") {
		settings = append(settings, row[0])
	}
	said := strings.Join(settings, " ")
	for setting, on := range map[string]bool{"hostNetwork": spec.HostNetwork, "hostPID": spec.HostPID, "hostIPC": spec.HostIPC,
		"readOnlyRootFilesystem": *s.ReadOnlyRootFilesystem, "seccomp": s.SeccompProfile.Type == corev1.SeccompProfileTypeUnconfined} {
		if on != strings.Contains(said, setting) {
			t.Errorf("%s is %v in the chart, and docs/threat-model.md tells of %q", setting, on, settings)
		}
	}
}

func TestInstallerHasNoPrivileges(t *testing.T) {
	for _, c := range agentSet(t).Spec.Template.Spec.InitContainers {
		s := c.SecurityContext
		if s == nil || *s.AllowPrivilegeEscalation || len(s.Capabilities.Add) > 0 || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) ||
			len(c.VolumeMounts) != 1 || c.VolumeMounts[0].Name != "bin" {
			t.Errorf("init container %s: %+v, mounts %v", c.Name, s, c.VolumeMounts)
		}
	}
}

// A test that the threat model names is there.
func TestThreatModelNamesTestsThatExist(t *testing.T) {
	data, err := os.ReadFile("../../docs/threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`\b(Test|Fuzz)[A-Z][A-Za-z]+\b`).FindAllString(string(data), -1)
	if len(names) < 10 {
		t.Fatalf("only %q are named", names)
	}
	tests := testFunctions(t, "../..")
	for _, n := range names {
		if !tests[n] {
			t.Errorf("docs/threat-model.md names %s, which is no test of this repository", n)
		}
	}
}
