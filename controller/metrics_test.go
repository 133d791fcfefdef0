package controller

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/api/v1alpha1"
)

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	metrics := NewMetrics(reg)
	m := wish()
	m.Status.Phase, m.Status.Bytes, m.Status.FrozenTime = v1alpha1.PhaseCompleted, 1<<20, &metav1.Duration{Duration: 300 * time.Millisecond}
	setCondition(m, start, v1alpha1.ConditionComplete, true, "Moved", "")
	metrics.finished(m, start.Add(3*time.Second))
	fresh := wish()
	fresh.Name = "fresh"
	w := newWorld(t, m, fresh)
	reg.MustRegister(NewPhaseCollector(w.api, func() time.Time { return start.Add(time.Minute) }))
	want := `
# HELP drover_controller_migration_bytes_total Bytes of checkpoint images sent for finished PodMigrations.
# TYPE drover_controller_migration_bytes_total counter
drover_controller_migration_bytes_total 1.048576e+06
# HELP drover_controller_migrations_total Finished PodMigrations by outcome and reason.
# TYPE drover_controller_migrations_total counter
drover_controller_migrations_total{outcome="completed",reason="Moved"} 1
# HELP drover_migration_oldest_seconds Age of the oldest PodMigration that has not ended; 0 when there is none.
# TYPE drover_migration_oldest_seconds gauge
drover_migration_oldest_seconds 60
# HELP drover_migration_phase Number of PodMigrations in each phase.
# TYPE drover_migration_phase gauge
drover_migration_phase{phase="aborted"} 0
drover_migration_phase{phase="committed"} 0
drover_migration_phase{phase="completed"} 1
drover_migration_phase{phase="lost"} 0
drover_migration_phase{phase="pending"} 1
drover_migration_phase{phase="preparing"} 0
drover_migration_phase{phase="rejected"} 0
drover_migration_phase{phase="reserving"} 0
drover_migration_phase{phase="restoring"} 0
drover_migration_phase{phase="returned"} 0
drover_migration_phase{phase="transferring"} 0
`
	err := testutil.GatherAndCompare(reg, strings.NewReader(want),
		"drover_controller_migration_bytes_total", "drover_controller_migrations_total", "drover_migration_phase", "drover_migration_oldest_seconds")
	if err != nil {
		t.Error(err)
	}
	// A counter that comes with its first count does not rise: all ends are there from the start.
	if n, err := testutil.GatherAndCount(reg, "drover_controller_migration_duration_seconds"); err != nil || n != len(ends) {
		t.Errorf("durations of %d ends (%v), want %d", n, err, len(ends))
	}
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("metrics that break conventions: %v, %v", problems, err)
	}
}
