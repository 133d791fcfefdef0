package measure

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/drover-project/drover/internal/metricstest"
	"github.com/drover-project/drover/internal/model"
)

// Every round trip is counted once, with its peer and stamp, in classic and native buckets,
// and whatever is measured there are no more than so many of them.
func TestRoundTripHistograms(t *testing.T) {
	const family = "drover_route_time_round_trip_seconds"
	r := NewRoutes(RoutesConfig{Address: netip.MustParseAddr("10.0.0.1"), Interval: time.Second, Window: time.Minute})
	b, c := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	r.SetPeers(map[model.NodeID]netip.Addr{"b": b, "c": c})
	land := func(from netip.Addr, stamp model.Stamp, rtt time.Duration) {
		r.flights.byNonce[1] = flight{from, 0, time.Now()}
		if !r.land(1, from, stamp, func(time.Time) time.Duration { return rtt }) {
			t.Fatal("it did not land")
		}
	}
	if got := metricstest.Family(t, r, family); len(got) > 0 {
		t.Errorf("histograms of nothing: %v", got)
	}
	land(b, model.StampUser, time.Millisecond)
	n := 0
	for rtt := time.Microsecond; rtt < time.Minute; rtt += rtt/50 + 1 { // every length there is
		land(b, model.StampKernel, rtt)
		n++
	}
	got := metricstest.Family(t, r, family)
	if len(got) != 2 {
		t.Fatalf("%d histograms, want b's of both stamps: %v", len(got), got)
	}
	for _, m := range got {
		labels := []string{m.GetLabel()[0].GetValue(), m.GetLabel()[1].GetValue()}
		want := uint64(1)
		if labels[1] == string(model.StampKernel) {
			want = uint64(n)
		}
		h := m.GetHistogram()
		if labels[0] != "b" || h.GetSampleCount() != want {
			t.Errorf("%v: %d round trips, want %d of b", labels, h.GetSampleCount(), want)
		}
		native := 0
		for _, span := range h.GetPositiveSpan() {
			native += int(span.GetLength())
		}
		if len(h.GetBucket()) != 13 || native == 0 || native > 100 {
			t.Errorf("%v: %d classic and %d native buckets, want 13 and 1 to 100", labels, len(h.GetBucket()), native)
		}
	}
	// One millisecond is in the first bucket that it fits, and those after it.
	user := got[slices.IndexFunc(got, func(m *dto.Metric) bool { return m.GetLabel()[1].GetValue() == string(model.StampUser) })]
	for _, bucket := range user.GetHistogram().GetBucket() {
		if in := bucket.GetCumulativeCount() == 1; in != (bucket.GetUpperBound() >= 0.001) {
			t.Errorf("1ms counted up to %v s: %v", bucket.GetUpperBound(), in)
		}
	}
	r.SetPeers(map[model.NodeID]netip.Addr{"c": c})
	if got := metricstest.Family(t, r, family); len(got) > 0 {
		t.Errorf("histograms of a peer that is none any more: %v", got)
	}
}
