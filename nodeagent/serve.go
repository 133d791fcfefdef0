package nodeagent

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/drover-project/drover/internal/httpserver"
	"github.com/drover-project/drover/internal/refusals"
	"github.com/drover-project/drover/nodeagent/transfer"
)

// serveMetrics serves metrics and health to everybody, on the node's address.
func (a *agent) serveMetrics(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := a.unready(); why != "" {
			http.Error(w, why, http.StatusServiceUnavailable)
		}
	})
	return httpserver.Serve(ctx, net.JoinHostPort("", strconv.Itoa(MetricsPort)), mux)
}

// serveStatus serves the picture on loopback, where the API server's port-forward comes in,
// which takes no unix socket, and whoever else is in the node's network namespace.
func (a *agent) serveStatus(ctx context.Context) error {
	return httpserver.Serve(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(StatusPort)), a.status())
}

// status tells and changes nothing, for it asks nobody who they are.
func (a *agent) status() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/view", func(w http.ResponseWriter, _ *http.Request) {
		if !a.joined.Load() {
			http.Error(w, a.unready(), http.StatusServiceUnavailable)
			return
		}
		a.answer(w, a.gossip.Snapshot(), nil)
	})
	mux.HandleFunc("GET /v1/where/{namespace}/{pod}", a.serveWhere)
	mux.HandleFunc("GET /v1/contention", measured(a, a.lookAtContention))
	mux.HandleFunc("GET /v1/routes", measured(a, a.lookAtRoutes))
	mux.HandleFunc("GET /v1/traffic", measured(a, a.lookAtTraffic))
	mux.HandleFunc("GET /v1/pods/{namespace}/{name}/processes", func(w http.ResponseWriter, r *http.Request) {
		found, err := a.examine(r.Context(), r.PathValue("namespace"), r.PathValue("name"))
		a.answer(w, found, err)
	})
	mux.HandleFunc("GET /v1/moves/{namespace}/{name}", func(w http.ResponseWriter, r *http.Request) {
		found, err := a.lookAtMove(r.Context(), r.PathValue("namespace"), r.PathValue("name"))
		a.answer(w, found, err)
	})
	return mux
}

// measured answers with what look finds now, or says why that is not known.
func measured[Found any](a *agent, look func(now time.Time) (Found, string)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		found, why := look(time.Now())
		if why != "" {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		a.answer(w, found, nil)
	}
}

// answer writes what was found, or why nothing was.
func (a *agent) answer(w http.ResponseWriter, found any, err error) {
	switch {
	case apierrors.IsNotFound(err):
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(found); err != nil {
		a.log.Warn("an answer was not sent", "error", err)
	}
}

// servePeers serves the other agents, over mTLS.
func (a *agent) servePeers(ctx context.Context) error {
	addr := net.JoinHostPort(a.cfg.Address.String(), strconv.Itoa(transfer.Port))
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen for other agents: %w", err)
	}
	s := grpc.NewServer(transfer.ServerOptions(a.countStrangers(a.keeper.ServerConfig()))...)
	a.receiver.Register(s)
	a.pages.Register(s)
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	if err := s.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve other agents on %s: %w", addr, err)
	}
	a.receiver.Wait()
	return nil
}

// countStrangers counts connections of whoever has a certificate that is not Drover's.
func (a *agent) countStrangers(config *tls.Config) *tls.Config {
	verify := config.VerifyConnection
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		err := verify(cs)
		if err != nil {
			a.refusals.Count(refusals.Caller)
		}
		return err
	}
	return config
}
