package criu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseVersion(t *testing.T) {
	for in, want := range map[string]string{
		"Version: 4.2.1\nGitID: v4.2.1":     "4.2.1",
		"runc version 1.3.6+ds1\ncommit: x": "1.3.6",
		"6.18.44-fc-v669":                   "6.18.44",
		"6.16":                              "6.16.0",
		"none":                              "",
	} {
		v, err := ParseVersion(in)
		if got := v.String(); (err == nil) != (want != "") || (err == nil && got != want) {
			t.Errorf("%q: got %s, %v, want %q", in, got, err, want)
		}
	}
}

// node answers for the programs of a node.
type node map[string]string

func (n node) run(_ context.Context, args ...string) (string, error) {
	out, ok := n[strings.Join(args, " ")]
	if !ok {
		return "", errors.New("not found")
	}
	if rest, failed := strings.CutPrefix(out, "!"); failed {
		return rest, errors.New("exit status 1")
	}
	return out, nil
}

func TestCannotRestore(t *testing.T) {
	good := node{"/usr/bin/runc --version": "runc version 1.3.6", "criu --version": "Version: 4.2.1", "criu check": "Looks good."}
	with := func(key, value string) node {
		n := node{}
		for k, v := range good {
			n[k] = v
		}
		if n[key] = value; value == "" {
			delete(n, key)
		}
		return n
	}
	for name, test := range map[string]struct {
		node         node
		kernel, want string
	}{
		"good":                      {good, "6.18.0", ""},
		"old CRIU on an old kernel": {with("criu --version", "Version: 3.19"), "6.1.0", ""},
		"old CRIU on a new kernel":  {with("criu --version", "Version: 4.1.1"), "6.16.1-amd64", "CRIU 4.1.1 is too old for kernel 6.16.1-amd64, 4.2.0 is needed"},
		"no CRIU":                   {with("criu --version", ""), "6.1.0", "CRIU cannot be run"},
		"no runc":                   {with("/usr/bin/runc --version", ""), "6.1.0", "runc cannot be run"},
		"old runc":                  {with("/usr/bin/runc --version", "runc version 1.0.3"), "6.1.0", "runc 1.0.3 is too old"},
		"check fails":               {with("criu check", "!Warn  (x)\nError (criu/cr-check.c:1): no capability\nbye"), "6.1.0", "criu check: Error (criu/cr-check.c:1): no capability"},
	} {
		got := CannotRestore(context.Background(), test.node.run, "/usr/bin/runc", test.kernel)
		if (got == "") != (test.want == "") || !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
		if strings.Contains(got, "\n") {
			t.Errorf("%s: %q has several lines", name, got)
		}
	}
}

func TestCannotLoadLater(t *testing.T) {
	const check, help = "criu check --feature uffd-noncoop", "--image-path value\n--lazy-pages"
	for name, test := range map[string]struct{ said, help, want string }{
		"it can":         {"Looks good.", help, ""},
		"not permitted":  {"!Error (criu/uffd.c:1): Lazy pages are not permitted\n", help, check + ": Error (criu/uffd.c:1): Lazy pages are not permitted"},
		"no such kernel": {"!uffd-noncoop is not supported", help, check + ": uffd-noncoop is not supported"},
		"crun":           {"Looks good.", "--image-path=DIR", "crun restore --help names no --lazy-pages (<nil>)"},
	} {
		if got := CannotLoadLater(context.Background(), node{check: test.said, "crun restore --help": test.help}.run, "crun"); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

func TestCannotTrack(t *testing.T) {
	const check = "criu check --feature mem_dirty_track"
	for name, test := range map[string]struct{ said, want string }{
		"it can":         {"mem_dirty_track is supported", ""},
		"no such kernel": {"!Warn  (criu/cr-check.c:1): Dirty tracking is OFF. Memory snapshot will not work.\nmem_dirty_track is not supported", check + ": mem_dirty_track is not supported"},
	} {
		if got := CannotTrack(context.Background(), node{check: test.said}.run); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

func TestErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dump.log")
	log := "(00.000) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self\n" +
		"(00.1) some text\n(00.2) Error (criu/sockets.c:1): Unsupported proto 262\n(00.3) Error (criu/cr-dump.c:2): Dumping FAILED.\n"
	if err := os.WriteFile(path, []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	got := Errors(path)
	if strings.Contains(got, "RLIMIT") || !strings.Contains(got, "proto 262") || !strings.Contains(got, "GODEBUG=multipathtcp=0") {
		t.Errorf("got %q", got)
	}
	if got := Errors(path + ".gone"); got != "" {
		t.Errorf("no log: %q", got)
	}
}
