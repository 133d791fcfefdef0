package v1alpha1

import "testing"

// A source that is kept for its address is not kept for ever where drover-controller does not know of that: it
// says when the move is handed over.
func TestSourceKept(t *testing.T) {
	leased := &ConnectionsStatus{State: ConnectionsKept}
	for name, c := range map[string]struct {
		status PodMigrationStatus
		want   bool
	}{
		"nothing is leased":               {PodMigrationStatus{}, false},
		"its connections are closed":      {PodMigrationStatus{Connections: &ConnectionsStatus{State: ConnectionsClosed}}, false},
		"its address is leased":           {PodMigrationStatus{Connections: leased}, true},
		"the lease is over":               {PodMigrationStatus{Connections: &ConnectionsStatus{State: ConnectionsKept, LeaseEnded: true}}, false},
		"handed over":                     {PodMigrationStatus{Connections: leased, HandedOver: true}, false},
		"a Job's, until it has the other": {PodMigrationStatus{Source: SourceStatus{KeepUntilAdopted: true}, HandedOver: true}, true},
	} {
		if got := SourceKept(&c.status); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
