package checkpoint

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/cgroup"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/lazypages"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/process"
	"github.com/drover-project/drover/nodeagent/checkpoint"
	"github.com/drover-project/drover/nodeagent/files"
	"github.com/drover-project/drover/nodeagent/inspect"
	"github.com/drover-project/drover/nodeagent/migrate"
	"github.com/drover-project/drover/nodeagent/restore"
	"github.com/drover-project/drover/nodeagent/runtimeapi"
)

const (
	wrapper  = "/opt/drover/bin/drover-runc"
	runcRoot = "/run/r"
)

// patience bounds every wait, so that a test that fails says where.
const patience = 60 * time.Second

// groupsOf gives agents the node's control groups.
var groupsOf = func(node checkpoint.Groups) checkpoint.Groups { return node }

// longestRound is how long agents let a round take; 0: as usual.
var longestRound time.Duration

// lazyFrom is from how much memory on agents let copies run before all is loaded; 0: never.
var lazyFrom model.Bytes

// byPostCopy has moves be by post-copy.
var byPostCopy bool

// agent is what the tests have of drover-agent: its Dumps, Copies and socket. It can die
// and come back.
type agent struct {
	t      *testing.T
	dumps  *checkpoint.Dumps
	copies *restore.Copies
	// pages is asked for memory that images lack.
	pages func(ctx context.Context, m migrate.Move, container string, r lazypages.Range, b []byte) error
	// frozen is called when what keeps its connections is.
	frozen func(m migrate.Move) error
	events chan string
	stop   func()
}

func startAgent(t *testing.T) *agent {
	t.Helper()
	return startAgentOn(t, runcRoot)
}

// startAgentOn starts an agent for the containers under a root of runc's.
func startAgentOn(t *testing.T, root string) *agent {
	t.Helper()
	groups, err := cgroup.Host()
	if err != nil {
		t.Fatal(err)
	}
	if err := layout.Default.Prepare(); err != nil {
		t.Fatal(err)
	}
	own := os.Getenv("NODE_GROUP") + "/drover"
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	a := &agent{t: t, events: make(chan string, 100)}
	a.dumps = checkpoint.New(checkpoint.Config{Layout: layout.Default, Groups: groupsOf(groups), Cgroup: own,
		Wrapper: wrapper, HostRoot: "/proc/1/root", Runc: "/usr/sbin/runc", Root: root, Log: log, LongestRound: longestRound,
		Files: &files.Node{Host: "/proc/1/root", Limits: files.DefaultLimits}, LeaveFrom: func() model.Bytes { return lazyFrom },
		Frozen: func(m migrate.Move) error { return a.frozen(m) }})
	a.pages = func(_ context.Context, m migrate.Move, container string, r lazypages.Range, b []byte) error {
		return a.dumps.Pages(m, container, r, b)
	}
	copies := restore.Config{Layout: layout.Default, Groups: groups, Cgroup: own, Log: log, Wrapper: wrapper, HostRoot: "/proc/1/root",
		Unpack:  files.Node{Host: "/", Limits: files.DefaultLimits}.Unpack,
		Inspect: func(images, bundle string, begun []string) error { return inspect.Copy(images, "/", bundle, begun...) },
		Lost:    func(p migrate.Pod, why string) { a.events <- "lost " + p.UID; t.Log(why) }}
	if from := lazyFrom; from > 0 {
		copies.Memory = func(images string) (bool, string, error) {
			m, err := inspect.MemoryOf(images, from)
			return m.Lacking, m.Eager(from), err
		}
	}
	copies.Pages = func(ctx context.Context, m migrate.Move, container string, r lazypages.Range, b []byte) error {
		return a.pages(ctx, m, container, r, b)
	}
	a.copies = restore.New(copies)
	server := &runtimeapi.Server{Socket: layout.Default.Socket(), Creates: a.copies, Dumps: a.dumps, Restores: a.copies}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{
		func(ctx context.Context) error { return a.dumps.Run(ctx, a) },
		func(ctx context.Context) error { return a.copies.Run(ctx, a) },
		server.Run,
	} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		}()
	}
	a.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(a.stop)
	return a
}

// restart is the death of an agent and its successor's start.
func (a *agent) restart() *agent {
	a.stop()
	return startAgent(a.t)
}

func (a *agent) CreateWaits(c migrate.Create) { a.events <- "waits " + c.ID }
func (a *agent) CreateEnded(_, id string)     { a.events <- "ended " + id }
func (a *agent) RestoreHeld(_, id string)     { a.events <- "held " + id }
func (a *agent) RestoreEnded(_, id string, err error) {
	a.t.Logf("restore of %s ended: %v", id, err)
	a.events <- "failed " + id
}
func (a *agent) ContainerEnded(id string) { a.events <- "died " + id }

// expect waits for an event and drops what comes before it.
func (a *agent) expect(event string) {
	a.t.Helper()
	var seen []string
	for {
		select {
		case e := <-a.events:
			if e == event {
				return
			}
			seen = append(seen, e)
		case <-time.After(patience):
			a.t.Fatalf("no event %q; there were %q", event, seen)
		}
	}
}

// container is one container as a runtime shim sees it.
type container struct {
	t                  *testing.T
	id, podUID, bundle string
	lines              chan string
	stdout             *os.File // what the container writes to
	group              cgroup.Group
	started            bool
	createOut, logFile string
}

// newContainer makes the bundle; annotations come on top of those of an opted-in pod, and
// change may make another of the specification.
func newContainer(t *testing.T, name string, annotations map[string]string, change ...func(rootfs string, spec map[string]any)) *container {
	t.Helper()
	id := fmt.Sprintf("%s-%s", strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")), name)
	c := &container{t: t, id: id, podUID: "uid-" + id, bundle: filepath.Join("/tmp/bundles", id), lines: make(chan string, 10000)}
	c.createOut, c.logFile = filepath.Join(c.bundle, "out"), filepath.Join(c.bundle, "log.json")
	rootfs := filepath.Join(c.bundle, "rootfs")
	netns := "/run/netns/" + id
	run(t, "mkdir", "-p", rootfs)
	run(t, "cp", "/drover/counter", rootfs+"/counter")
	run(t, "ip", "netns", "add", id)
	run(t, "ip", "-n", id, "link", "set", "lo", "up")
	group := os.Getenv("NODE_GROUP") + "/pods/" + id
	all := map[string]string{
		"drover.dev/migrate": "true", "io.kubernetes.cri.container-type": "container",
		"io.kubernetes.cri.sandbox-uid": c.podUID, "io.kubernetes.cri.sandbox-namespace": "default",
		"io.kubernetes.cri.sandbox-name": "pod-" + id, "io.kubernetes.cri.container-name": "main",
		"org.criu.config": "/tmp/evil.conf",
	}
	for k, v := range annotations {
		all[k] = v
	}
	heap := os.Getenv("HEAP_MIB")
	if heap == "" {
		heap = "16"
	}
	usual := usual
	if strings.Contains(os.Getenv("COUNTER"), "TELL=") {
		usual = append(slices.Clone(usual), "CAP_IPC_LOCK")
	}
	spec := map[string]any{
		"ociVersion": "1.2.0",
		"process": map[string]any{"user": map[string]int{"uid": 0, "gid": 0}, "args": []string{"/counter"},
			"env": append([]string{"HEAP_MIB=" + heap}, strings.Fields(os.Getenv("COUNTER"))...), "cwd": "/", "noNewPrivileges": true,
			"capabilities": map[string][]string{"bounding": usual, "effective": usual, "permitted": usual},
			"oomScoreAdj":  500},
		"root":     map[string]any{"path": "rootfs"},
		"hostname": "counter",
		"mounts":   mounts(t, c.bundle),
		"linux": map[string]any{"cgroupsPath": group, "namespaces": []map[string]string{
			{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network", "path": netns}},
			"maskedPaths":   strings.Fields("/proc/asound /proc/acpi /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/timer_stats /proc/sched_debug /proc/scsi /sys/firmware /sys/devices/virtual/powercap"),
			"readonlyPaths": strings.Fields("/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger"),
		},
		"annotations": all,
	}
	for _, c := range change {
		c(rootfs, spec)
	}
	c.write(spec)
	groups, err := cgroup.Host()
	if err == nil {
		c.group, err = groups.At(group)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.remove)
	return c
}

// write makes the bundle's specification.
func (c *container) write(spec map[string]any) {
	c.t.Helper()
	data, err := json.Marshal(spec)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(c.bundle+"/config.json", data, 0o644); err != nil {
		c.t.Fatal(err)
	}
}

// usual are the capabilities that containerd gives a container by default.
var usual = strings.Fields(`CAP_CHOWN CAP_DAC_OVERRIDE CAP_FSETID CAP_FOWNER CAP_MKNOD CAP_NET_RAW CAP_SETGID CAP_SETUID
	CAP_SETFCAP CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_KILL CAP_AUDIT_WRITE`)

// mounts are those that containerd and kubelet give a container: with files and directories
// of the node, one of them behind a link of the image.
func mounts(t *testing.T, bundle string) []map[string]any {
	t.Helper()
	run(t, "ln", "-s", "/run", filepath.Join(bundle, "rootfs/run-link"))
	for _, dir := range []string{"volume", "account", "shm"} {
		run(t, "mkdir", "-p", filepath.Join(bundle, dir))
	}
	bind := func(source, to string, options ...string) map[string]any {
		path := filepath.Join(bundle, source)
		if _, err := os.Stat(path); err != nil {
			run(t, "touch", path)
		}
		return map[string]any{"destination": to, "type": "bind", "source": path, "options": append([]string{"rbind", "rprivate"}, options...)}
	}
	return []map[string]any{
		{"destination": "/proc", "type": "proc", "source": "proc", "options": []string{"nosuid", "noexec", "nodev"}},
		{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": []string{"nosuid", "noexec", "nodev"}},
		{"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": []string{"nosuid", "noexec", "nodev", "ro"}},
		{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
		bind("volume", "/etc/config", "ro"),
		bind("hosts", "/etc/hosts", "rw"),
		bind("termination-log", "/dev/termination-log", "rw"),
		bind("hostname", "/etc/hostname", "rw"),
		bind("shm", "/dev/shm"),
		bind("account", "/run-link/secrets/kubernetes.io/serviceaccount", "ro"),
	}
}

func (c *container) remove() {
	c.group.Kill(context.Background())
	// With the test's parent group, or a next test would find it full.
	out, err := c.runtime("delete", "--force", c.id).CombinedOutput()
	if err != nil && c.started {
		c.t.Errorf("delete %s: %v: %s", c.id, err, out)
	}
	exec.Command("ip", "netns", "del", c.id).Run()
}

func (c *container) runtime(args ...string) *exec.Cmd {
	return exec.Command(wrapper, append([]string{"--root", runcRoot, "--log", c.logFile, "--log-format", "json"}, args...)...)
}

// create runs the runtime's create as containerd does: the container gets its standard
// streams. wait returns the error and what the runtime wrote on stderr.
func (c *container) create() (cmd *exec.Cmd, wait func() error) {
	c.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		c.t.Fatal(err)
	}
	cmd = c.runtime("create", "--bundle", c.bundle, "--pid-file", c.bundle+"/init.pid", c.id)
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	w.Close()
	lines := c.lines
	go func() {
		for s := bufio.NewScanner(r); s.Scan(); {
			lines <- s.Text()
		}
		close(lines)
	}()
	return cmd, cmd.Wait
}

// run creates and starts the container.
func (c *container) run() {
	c.t.Helper()
	if _, wait := c.create(); wait() != nil {
		c.t.Fatalf("create %s: %s", c.id, c.log())
	}
	c.start()
}

func (c *container) start() {
	c.t.Helper()
	if out, err := c.runtime("start", c.id).CombinedOutput(); err != nil {
		c.t.Fatalf("start %s: %v: %s", c.id, err, out)
	}
	c.started = true
}

func (c *container) log() string {
	data, _ := os.ReadFile(c.logFile)
	return string(data)
}

func (c *container) pid() int {
	c.t.Helper()
	data, err := os.ReadFile(c.bundle + "/init.pid")
	if err != nil {
		c.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		c.t.Fatal(err)
	}
	return pid
}

// count is one line of the counter.
type count struct {
	n  int
	at time.Time
}

// next reads the counter's next line.
func (c *container) next() count {
	c.t.Helper()
	for {
		select {
		case line, ok := <-c.lines:
			if !ok {
				c.t.Fatalf("%s has ended", c.id)
			}
			f := strings.Fields(line)
			if len(f) != 3 {
				c.t.Logf("%s: %s", c.id, line)
				continue
			}
			n, err := strconv.Atoi(f[0])
			us, err2 := strconv.ParseInt(f[2], 10, 64)
			if err != nil || err2 != nil {
				c.t.Logf("%s: %s", c.id, line)
				continue
			}
			if f[1] != "true" {
				c.t.Errorf("%s: the heap is damaged at count %d", c.id, n)
			}
			return count{n, time.UnixMicro(us)}
		case <-time.After(patience):
			c.t.Fatalf("%s does not count", c.id)
		}
	}
}

// drain reads what a stopped counter had written; the last count is returned.
func (c *container) drain(last count) count {
	c.t.Helper()
	for {
		// The marker comes after all that is in the pipe: nothing is left when it is empty.
		select {
		case line, ok := <-c.lines:
			if !ok {
				return last
			}
			if f := strings.Fields(line); len(f) == 3 {
				n, _ := strconv.Atoi(f[0])
				us, _ := strconv.ParseInt(f[2], 10, 64)
				last = count{n, time.UnixMicro(us)}
			}
		case <-time.After(100 * time.Millisecond):
			return last
		}
	}
}

// mustRest fails if the counter goes on.
func (c *container) mustRest(last count) count {
	c.t.Helper()
	last = c.drain(last)
	if now := c.drain(last); now != last {
		c.t.Errorf("%s counts while it is held: %d, then %d", c.id, last.n, now.n)
	}
	return last
}

func (c *container) alive() int {
	c.t.Helper()
	pids, err := c.group.Procs()
	if err != nil {
		c.t.Fatal(err)
	}
	return len(pids)
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v: %s", args, err, out)
	}
	return string(out)
}

// find returns the processes on the node whose name is comm.
func find(comm string) []process.Process {
	var found []process.Process
	all, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, path := range all {
		data, err := os.ReadFile(path)
		if err != nil || string(bytes.TrimSpace(data)) != comm {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if p, err := process.Of(pid); err == nil {
			found = append(found, p)
		}
	}
	return found
}

// kill kills the one process of that name and waits for its end.
func kill(t *testing.T, comm string) {
	t.Helper()
	found := find(comm)
	if len(found) == 0 {
		t.Fatalf("no process %s", comm)
	}
	for _, p := range found {
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
	}
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func itoa(n int) string { return strconv.Itoa(n) }

// atoi is for numbers that the counter wrote.
func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1
	}
	return n
}
