package deploy

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/handoff"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// schema is the CRD's.
func schema(t *testing.T) apiextensionsv1.JSONSchemaProps {
	t.Helper()
	data, err := os.ReadFile("../../manifests/drover/crds/drover.dev_podmigrations.yaml")
	if err != nil {
		t.Fatal(err)
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict(data, crd); err != nil {
		t.Fatal(err)
	}
	return *crd.Spec.Versions[0].Schema.OpenAPIV3Schema
}

// unbounded names the strings and lists in a schema that may have any length.
func unbounded(path string, s apiextensionsv1.JSONSchemaProps) (all []string) {
	switch s.Type {
	case "string":
		if s.MaxLength == nil && len(s.Enum) == 0 {
			all = append(all, path)
		}
	case "array":
		if s.MaxItems == nil {
			all = append(all, path)
		}
		all = append(all, unbounded(path+"[]", *s.Items.Schema)...)
	case "object":
		if s.AdditionalProperties != nil && s.MaxProperties == nil {
			all = append(all, path)
		}
		for name, p := range s.Properties {
			all = append(all, unbounded(path+"."+name, p)...)
		}
	}
	return all
}

func TestEverythingInARecordIsBounded(t *testing.T) {
	s := schema(t).Properties
	for _, part := range []string{"spec", "status"} {
		for _, path := range unbounded(part, s[part]) {
			t.Errorf("%s has no bound", path)
		}
	}
	status := s["status"].Properties
	timeline, containers := status["timeline"], status["source"].Properties["containers"]
	for what, bound := range map[string][2]int64{
		"messages":   {*timeline.Items.Schema.Properties["message"].MaxLength, v1alpha1.MaxMessage},
		"decisions'": {*status["decisionMessage"].MaxLength, v1alpha1.MaxMessage},
		"proofs":     {*status["returnProof"].MaxLength, v1alpha1.MaxMessage},
		"losses'":    {*status["lostMessage"].MaxLength, v1alpha1.MaxMessage},
		"failures'":  {*status["target"].Properties["failedMessage"].MaxLength, v1alpha1.MaxMessage},
		"steps":      {*timeline.MaxItems, v1alpha1.MaxSteps},
		"containers": {*containers.MaxItems, v1alpha1.MaxContainers},
	} {
		if bound[0] != bound[1] {
			t.Errorf("%s: the schema's bound is %d, the programs' %d", what, bound[0], bound[1])
		}
	}
}

// Two agents that write all that they may leave the others room for theirs, and do not spend
// what the API server grants the policies.
func TestFullRecordCanBeWritten(t *testing.T) {
	c := newCluster(t)
	ctx := t.Context()
	controller, src, dst := c.program("drover-controller", ""), c.program("drover-agent", "n1"), c.program("drover-agent", "n2")
	pm := c.wish("m", "p", "")
	c.make(pm)
	type st = v1alpha1.PodMigrationStatus
	jane := c.user("jane", "drover-resolve")
	write := func(as client.Client, do func(*st), o ...client.SubResourceUpdateOption) error {
		now := &v1alpha1.PodMigration{}
		if err := c.admin.Get(ctx, client.ObjectKeyFromObject(pm), now); err != nil {
			t.Fatal(err)
		}
		do(&now.Status)
		return as.Status().Update(ctx, now, o...)
	}
	at := metav1.NowMicro()
	// One that is written as six bytes.
	long := func(n int) string { return strings.Repeat("<", n) }
	steps := func(s *st, by string, n int) {
		for range n {
			at = metav1.NewMicroTime(at.Add(time.Microsecond))
			s.Timeline = append(s.Timeline, v1alpha1.TimelineEntry{Step: "Frozen", By: by, At: at, Message: long(v1alpha1.MaxMessage)})
		}
	}
	c.until("the controller may not write", func(ctx context.Context) bool {
		return write(controller, func(s *st) {
			s.Epoch = 2
			s.Source = v1alpha1.SourceStatus{Node: "n1", PodName: "p", PodUID: "u1"}
			s.Target = v1alpha1.TargetStatus{Node: "n2", PodName: "p-dm2", PodUID: "u2"}
		}) == nil
	})
	c.until("the policy does not come into force", func(ctx context.Context) bool {
		return write(c.program("drover-agent", "n3"), func(s *st) { s.Phase = "Restoring" }) != nil
	})
	movable := metav1.Condition{Type: v1alpha1.ConditionMovable, Status: "False", Reason: "X", Message: long(32768), LastTransitionTime: metav1.Now()}
	if err := write(src, func(s *st) { steps(s, "n1", v1alpha1.MaxNodeSteps+1) }); err == nil || !strings.Contains(err.Error(), "at most 16 steps") {
		t.Error("one step too many:", err)
	}
	if err := write(src, func(s *st) {
		steps(s, "n1", 1)
		s.Timeline[0].Message += "<"
	}); err == nil || !strings.Contains(err.Error(), "may not be more than 2048") {
		t.Error("a message that is too long:", err)
	}
	for what, err := range map[string]error{
		"the source fills its part": write(src, func(s *st) { steps(s, "n1", v1alpha1.MaxNodeSteps); s.Conditions = append(s.Conditions, movable) }),
		"the target fills its part": write(dst, func(s *st) { steps(s, "n2", v1alpha1.MaxNodeSteps); s.Target.FailedMessage = long(v1alpha1.MaxMessage) }),
		"the source offers":         write(src, func(s *st) { s.Source.Offered = true }),
		"a user aborts": write(jane, func(s *st) {
			m := &v1alpha1.PodMigration{Status: *s}
			if err := (migrate.Word{Verb: handoff.Abort, User: "jane"}).Write(m, at.Time); err != nil {
				t.Error(err)
			}
			*s = m.Status
		}, client.DryRunAll),
		"the target commits": write(dst, func(s *st) {
			s.Decision, s.DecisionBy, s.DecidedAt, s.DecisionMessage = v1alpha1.Commit, "target n2", &at, long(v1alpha1.MaxMessage)
		}),
		"the controller goes on": write(controller, func(s *st) {
			steps(s, "controller", v1alpha1.MaxSteps-2*v1alpha1.MaxNodeSteps)
			s.Conditions = append(s.Conditions, metav1.Condition{
				Type: v1alpha1.ConditionComplete, Status: "False", Reason: "X", Message: long(v1alpha1.MaxMessage), LastTransitionTime: metav1.Now()})
		}),
		"the source ends": write(src, func(s *st) {
			s.Source.Ended, s.LostMessage, s.ReturnProof = true, long(v1alpha1.MaxMessage), long(v1alpha1.MaxMessage)
		}),
	} {
		if err != nil {
			t.Errorf("%s: %.500v", what, err)
		}
	}
}
