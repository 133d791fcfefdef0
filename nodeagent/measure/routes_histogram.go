package measure

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/drover-project/drover/internal/model"
)

// roundTrips are histograms of the single round trips to one peer, by stamp. A peer has at
// most two, each a native histogram of at most 100 buckets and 13 classic ones: who scrapes
// in text gets the latter, 16 series with sum and count.
type roundTrips map[model.Stamp]prometheus.Histogram

func (h roundTrips) observe(rtt time.Duration, stamp model.Stamp) {
	if h[stamp] == nil {
		h[stamp] = prometheus.NewHistogram(prometheus.HistogramOpts{
			// Bucket limits grow by a tenth or less, and by more when there would be too many.
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
			NativeHistogramMinResetDuration: time.Hour,
			Buckets:                         prometheus.ExponentialBuckets(25e-6, 2, 13), // 25 us to 102 ms
		})
	}
	h[stamp].Observe(rtt.Seconds())
}

// tripsOf is one of these histograms under the peer's name.
type tripsOf struct {
	prometheus.Histogram
	labels []*dto.LabelPair
}

func (tripsOf) Desc() *prometheus.Desc { return routeTripsDesc }

func (t tripsOf) Write(m *dto.Metric) error {
	err := t.Histogram.Write(m)
	m.Label = t.labels
	return err
}

func (h roundTrips) collect(ch chan<- prometheus.Metric, id model.NodeID) {
	for stamp, histogram := range h {
		ch <- tripsOf{histogram, prometheus.MakeLabelPairs(routeTripsDesc, []string{string(id), string(stamp)})}
	}
}
