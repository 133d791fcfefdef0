package passthrough

import (
	"strings"
	"testing"
)

func TestVerb(t *testing.T) {
	for args, want := range map[string]string{
		"--root /r --log /l --log-format json create --bundle b id": "create",
		"--root=/r --debug kill id 9":                               "kill",
		"--version":                                                 "",
		"--root":                                                    "",
		"state create":                                              "state",
		"--root create state x":                                     "state",
		"-- start":                                                  "start",
		"":                                                          "",
	} {
		f := strings.Fields(args)
		got := ""
		if i := Verb(f); i < len(f) {
			got = f[i]
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", args, got, want)
		}
	}
}

func TestConcerns(t *testing.T) {
	for _, verb := range []string{"create", "start", "delete", "kill", "resume", "drover-install", "drover-hosted", "drover-criu-hook"} {
		if !Concerns(verb) {
			t.Errorf("%s is passed on", verb)
		}
	}
	for _, verb := range []string{"", "state", "exec", "run", "checkpoint", "restore", "events", "ps"} {
		if Concerns(verb) {
			t.Errorf("%s is kept", verb)
		}
	}
}
