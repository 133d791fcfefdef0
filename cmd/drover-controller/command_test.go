package main

import (
	"strings"
	"testing"
)

// Wrong flags end the program with one clear line before it asks for an API server.
func TestWrongFlags(t *testing.T) {
	for _, c := range []struct{ args, says string }{
		{"--ca-cert-file=/x", "go together"},
		{"--ca-key-file=/x", "go together"},
		{"--ca-cert-file=/no-such-file --ca-key-file=/x", "/no-such-file"},
		{"--agent-service-account=root", "only \"drover-agent\" is supported"},
		{"--agent-selector=a=b=c", "--agent-selector"},
		{"--namespace=", "namespace is empty"},
		{"--pause-image=registry.example/pause:3.10", "by its digest"},
		{"--carry-earlier-addresses=perhaps", "carry-earlier-addresses"},
		{"--bind-deadline=-1s", "bind-deadline is -1s"},
		{"--bind-deadline=soon", "bind-deadline"},
		{"extra", "extra"},
	} {
		cmd := command()
		cmd.SetArgs(strings.Fields(c.args))
		err := cmd.ExecuteContext(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(strings.TrimSpace(err.Error()), "\n") {
			t.Errorf("%s: %v, want one line that says %q", c.args, err, c.says)
		}
	}
}
