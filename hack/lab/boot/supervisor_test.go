package boot

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// startSupervisor runs a supervisor as process 1 would, without the node around it, and gives its
// control socket.
func startSupervisor(t *testing.T, services ...Service) (control, dir string) {
	t.Helper()
	dir = t.TempDir()
	u, err := newSupervisor(&Spec{Logs: dir, Services: services})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "control"))
	if err != nil {
		t.Fatal(err)
	}
	go u.run()
	go serveControl(l, u)
	t.Cleanup(func() {
		for _, s := range services {
			if err := u.want(s.Name, false); err != nil {
				t.Error(err)
			}
		}
		l.Close()
	})
	return filepath.Join(dir, "control"), dir
}

// eventually asks until the services satisfy want.
func eventually(t *testing.T, control, what string, want func(map[string]ServiceStatus) bool) map[string]ServiceStatus {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		list, err := Ask(ctx, control, Status, "")
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		byName := map[string]ServiceStatus{}
		for _, s := range list {
			byName[s.Name] = s
		}
		if want(byName) {
			return byName
		}
	}
}

func TestServices(t *testing.T) {
	flag := filepath.Join(t.TempDir(), "flag")
	control, dir := startSupervisor(t,
		// Fails until somebody makes the flag: tried again and again, and the others wait for it.
		Service{Name: "first", Argv: []string{"/bin/sh", "-c", "test -e " + flag}, Once: true},
		Service{Name: "second", Argv: []string{"sleep", "1000"}, After: []Condition{{Done: "first"}}},
	)
	got := eventually(t, control, "first is tried twice", func(s map[string]ServiceStatus) bool { return s["first"].Starts >= 2 })
	if got["first"].Done || got["second"].Starts != 0 {
		t.Errorf("second did not wait for first: %+v", got)
	}
	if err := os.WriteFile(flag, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	got = eventually(t, control, "second runs", func(s map[string]ServiceStatus) bool { return s["second"].PID != 0 })
	if !got["first"].Done || got["first"].PID != 0 {
		t.Errorf("first: %+v, want it done", got["first"])
	}

	// What dies comes back.
	pid := got["second"].PID
	p, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, control, "second is back", func(s map[string]ServiceStatus) bool { return s["second"].PID != 0 && s["second"].PID != pid })

	// What is killed on demand stays down until it is wanted again.
	list, err := Ask(t.Context(), control, Kill, "second")
	if err != nil || list[1].PID != 0 || list[1].Wanted {
		t.Errorf("killed: %+v, %v", list, err)
	}
	list, err = Ask(t.Context(), control, Run, "second")
	if err != nil || list[1].PID == 0 {
		t.Errorf("run again: %+v, %v", list, err)
	}
	if _, err := Ask(t.Context(), control, Kill, "third"); err == nil || !strings.Contains(err.Error(), `no service "third"`) {
		t.Errorf("kill of what is not there: %v", err)
	}
	if _, err := Ask(t.Context(), control, "dance", ""); err == nil {
		t.Error("a verb that is not there: no error")
	}
	log, err := os.ReadFile(filepath.Join(dir, "first.log"))
	if err != nil || !strings.Contains(string(log), "exit 1") {
		t.Errorf("log of first: %q, %v", log, err)
	}
}

func TestSpecCheck(t *testing.T) {
	good := func() *Spec {
		return &Spec{Node: "n", Dir: "/d", Logs: "/l", Control: "/c", Fabric: "/f", Lower: []string{"/r"}, MAC: "02:00:00:00:00:01"}
	}
	if err := good().check(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*Spec){
		"relative folder": func(s *Spec) { s.Dir = "d" },
		"relative layer":  func(s *Spec) { s.Lower = append(s.Lower, "r") },
		"no address":      func(s *Spec) { s.MAC = "" },
	} {
		s := good()
		spoil(s)
		if err := s.check(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestUUID(t *testing.T) {
	a, b := newUUID(), newUUID()
	if a == b || len(a) != 36 || a[14] != '4' {
		t.Errorf("got %s and %s, want two random UUIDs", a, b)
	}
}
