package checkpoint

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/movable"
	"github.com/drover-project/drover/nodeagent/examine"
	"github.com/drover-project/drover/nodeagent/inspect"
)

// oddContainer runs the program odd, with every capability and device, and gives what it says.
func oddContainer(t *testing.T, kind string) (*container, string) {
	t.Helper()
	all := strings.Fields(`CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_KILL CAP_SETGID CAP_SETUID CAP_NET_RAW CAP_NET_ADMIN
		CAP_SYS_ADMIN CAP_SYS_PTRACE CAP_MKNOD CAP_IPC_OWNER CAP_IPC_LOCK CAP_BPF CAP_PERFMON CAP_SYSLOG`)
	c := newContainer(t, "src", nil, func(rootfs string, spec map[string]any) {
		run(t, "cp", "/drover/odd", rootfs+"/odd")
		spec["process"] = map[string]any{
			"user": map[string]int{"uid": 0, "gid": 0}, "args": []string{"/odd", kind}, "cwd": "/",
			"capabilities": map[string][]string{"bounding": all, "effective": all, "permitted": all},
		}
		linux := spec["linux"].(map[string]any)
		linux["resources"] = map[string]any{"devices": []map[string]any{{"allow": true, "access": "rwm"}}}
		linux["sysctl"] = map[string]string{"net.ipv4.ping_group_range": "0 0"}
	})
	c.run()
	select {
	case line := <-c.lines:
		return c, line
	case <-time.After(patience):
		t.Fatalf("%s says nothing", kind)
	}
	return nil, ""
}

// odd are things that processes hold, and what package examine has to say of them; real CRIU
// has to agree: it fails where there is a reason, and dumps where there is none.
var odd = []struct{ kind, reason string }{
	{"plain", ""}, {"child-plain", ""},
	{"tcp", ""}, {"udp", ""}, {"udplite", ""}, {"ping", ""}, {"unix", ""}, {"raw", ""}, {"packet", ""},
	{"netlink-route", ""}, {"netlink-uevent", ""}, {"netlink-generic", ""},
	{"epoll", ""}, {"eventfd", ""}, {"timerfd", ""}, {"signalfd", ""}, {"inotify", ""}, {"fanotify", ""},
	{"pidfd-self", ""}, {"pidfd-child", ""}, {"memfd", ""}, {"shm", ""}, {"aio", ""},
	{"namespace-fd", ""}, {"proc-file", ""}, {"sys-file", ""},
	{"dev-null", ""}, {"dev-urandom", ""}, {"dev-kmsg", ""}, {"dev-tun", ""}, {"dev-tun-bound", ""},
	{"deleted", ""}, {"deleted-2MiB", ""}, {"deleted-sparse", ""}, {"tmpfile", ""},

	{"mptcp", movable.ReasonMPTCP}, {"mptcp6", movable.ReasonMPTCP}, {"mptcp-listen", movable.ReasonMPTCP},
	{"threads", movable.ReasonMPTCP}, {"child-mptcp", movable.ReasonMPTCP},
	{"vsock", movable.ReasonSocket}, {"xdp", movable.ReasonSocket},
	{"io-uring", movable.ReasonIOURing}, {"io-uring-mapped", movable.ReasonIOURing},
	{"perf", movable.ReasonPerf}, {"bpf-map", movable.ReasonBPF}, {"bpf-prog", movable.ReasonBPF},
	{"userfaultfd", movable.ReasonUserfaultfd}, {"memfd-secret", movable.ReasonSecretMemory},
	{"seccomp-notify", movable.ReasonSeccompNotify}, {"landlock", movable.ReasonDescriptor}, {"fsopen", movable.ReasonDescriptor},
	{"mqueue", movable.ReasonFileOutside}, {"open-tree", movable.ReasonFileOutside},
	{"deleted-large", movable.ReasonLargeDeletedFile},
	{"dev-fuse", movable.ReasonDevice}, {"dev-kvm", movable.ReasonDevice}, {"dev-loop", movable.ReasonDevice}, {"dev-hwrng", movable.ReasonDevice},
	{"traced", movable.ReasonTraced},
	{"other-mount", movable.ReasonOtherNamespace},
	{"other-net", movable.ReasonOtherNamespace}, {"other-pid", movable.ReasonOtherNamespace}, {"other-uts", movable.ReasonOtherNamespace},
	{"other-ipc", movable.ReasonOtherNamespace}, {"other-cgroup", movable.ReasonOtherNamespace},
	{"thread-net", movable.ReasonOtherNamespace},
}

// modules are what a kernel may have been built without, or has switched off.
var modules = []string{"udplite", "mptcp", "mptcp6", "mptcp-listen", "threads", "child-mptcp", "vsock", "xdp", "io-uring", "io-uring-mapped", "memfd-secret",
	"landlock", "dev-fuse", "dev-kvm", "dev-loop", "dev-hwrng", "dev-tun", "dev-tun-bound"}

// silent are those that CRIU dumps, but restores as something else, or with more than the
// target can tell to be the container's.
var silent = []string{"thread-net", "other-mount"}

func TestExaminerAgreesWithCRIU(t *testing.T) {
	a := startAgent(t)
	for _, o := range odd {
		t.Run(o.kind, func(t *testing.T) {
			c, line := oddContainer(t, o.kind)
			if !strings.HasPrefix(line, "ready ") {
				if strings.HasPrefix(line, "unable ") && slices.Contains(modules, o.kind) {
					t.Skipf("this kernel does not have it: %s", line)
				}
				t.Fatal(line)
			}
			found, err := examine.Proc("/proc").Container(c.id)
			if err != nil {
				t.Fatal(err)
			}
			m := move(c, nil)
			d, dumped := a.dumps.Dump(within(t), m)
			if dumped == nil {
				if err := inspect.Copy(filepath.Join(d.Dir, "main"), "/", c.bundle); err != nil && o.reason == "" {
					t.Errorf("its honest images: %v", err)
				}
			}
			if err := a.dumps.Release(within(t), m); err != nil {
				t.Error(err)
			}
			if o.reason == "" {
				if len(found) != 0 || dumped != nil {
					t.Errorf("found %v; CRIU says %v; want nothing from both", found, dumped)
				}
				return
			}
			if len(found) != 1 || found[0].Reason != o.reason || found[0].Remedy == "" {
				t.Errorf("found %v, want %s with a remedy", found, o.reason)
			}
			if dumped == nil && !slices.Contains(silent, o.kind) {
				t.Errorf("found %v, but CRIU has dumped it", found)
			}
			t.Logf("%v\nCRIU: %v", found, dumped)
		})
	}
}
