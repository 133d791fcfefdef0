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
	"github.com/drover-project/drover/plugin"
)

// metricsHandler serves Drover's metrics. kube-scheduler's own stay on its port, behind
// authentication.
func metricsHandler(registry *prometheus.Registry) http.Handler {
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry}))
	return mux
}

// statusHandler serves what was decided about the pods of one name, the newest first, and the picture by which
// pods are placed.
func statusHandler(decisions *decision.Log, views plugin.Views) http.Handler {
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, what any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(what) // an error is the reader's who went away
	}
	mux.HandleFunc("GET /v1/decisions/{namespace}/{name}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, decisions.Of(r.PathValue("namespace"), r.PathValue("name")))
	})
	mux.HandleFunc("GET /v1/view", func(w http.ResponseWriter, _ *http.Request) { answer(w, views.Snapshot()) })
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
