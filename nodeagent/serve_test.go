package nodeagent

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/drover-project/drover/nodeagent/measure"
)

// Whoever reaches the status port can ask, and change nothing: no other method gets as far as
// the agent, of which there is nothing here.
func TestStatusIsReadOnly(t *testing.T) {
	h := (&agent{}).status()
	for _, path := range []string{"/v1/view", "/v1/contention", "/v1/routes", "/v1/traffic", "/v1/pods/shop/web/processes", "/v1/where/shop/web", "/v1/moves/shop/move"} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodTrace, http.MethodConnect} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
			if w.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
			}
		}
	}
	for _, path := range []string{"/", "/metrics", "/debug/pprof/", "/v1/moves", "/v1/where", "/v1/where/web", "/v1/pods/shop/web"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != http.StatusNotFound {
			t.Errorf("GET %s: %d, and nothing is told of it", path, w.Code)
		}
	}
}

// What is not known is never told as "nobody waits".
func TestContentionThatIsNotKnown(t *testing.T) {
	why := "measure contention: load the contention programs: operation not permitted"
	running := func() *agent {
		a := &agent{contention: measure.NewContention(measure.ContentionConfig{})}
		a.running.Store(true)
		return a
	}
	blind := running()
	blind.blind.Store(&why)
	for name, c := range map[string]struct {
		a    *agent
		want string
	}{
		"just started":     {&agent{}, "not running yet"},
		"no reading yet":   {running(), "not measured yet"},
		"refused programs": {blind, why},
	} {
		w := httptest.NewRecorder()
		c.a.status().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/contention", nil))
		if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s: %d %s, want %q", name, w.Code, w.Body, c.want)
		}
	}
}

// What is not known of connections is never told as "nobody talks"; the route times are told
// without it.
func TestTrafficThatIsNotKnown(t *testing.T) {
	why := "follow connections: load the conversation programs: operation not permitted"
	running := func() *agent {
		a := &agent{routes: measure.NewRoutes(measure.RoutesConfig{}), conversations: measure.NewConversations(measure.ConversationsConfig{})}
		a.running.Store(true)
		return a
	}
	deaf := running()
	deaf.deaf.Store(&why)
	for name, c := range map[string]struct {
		a      *agent
		want   string
		routes int
	}{
		"just started":     {&agent{}, "not running yet", http.StatusServiceUnavailable},
		"no reading yet":   {running(), "not read yet", http.StatusOK},
		"refused programs": {deaf, why, http.StatusOK},
	} {
		for path, status := range map[string]int{"/v1/traffic": http.StatusServiceUnavailable, "/v1/routes": c.routes} {
			w := httptest.NewRecorder()
			c.a.status().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			if w.Code != status || !strings.Contains(w.Body.String(), c.want) {
				t.Errorf("%s: %s: %d %s, want %d and %q", name, path, w.Code, w.Body, status, c.want)
			}
		}
	}
}
