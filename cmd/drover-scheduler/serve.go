package main

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/klog/v2"

	"github.com/drover-project/drover/internal/decision"
	"github.com/drover-project/drover/internal/httpserver"
)

// metricsHandler serves Drover's metrics. kube-scheduler's own stay on its port, behind
// authentication.
func metricsHandler(registry *prometheus.Registry) http.Handler {
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry}))
	return mux
}

// decisionsHandler serves what was decided about the pods of one name, the newest first.
func decisionsHandler(decisions *decision.Log) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/decisions/{namespace}/{name}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		// An error is the reader's who went away.
		_ = json.NewEncoder(w).Encode(decisions.Of(r.PathValue("namespace"), r.PathValue("name")))
	})
	return mux
}

// serve serves at an address until ctx ends; nothing where that is empty.
func serve(ctx context.Context, what, address string, handler http.Handler, log klog.Logger) {
	if address == "" {
		return
	}
	if err := httpserver.Serve(ctx, address, handler); err != nil {
		log.Error(err, what+" are not served", "address", address)
	}
}
