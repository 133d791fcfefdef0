// Command odd holds one thing open that CRIU may or may not be able to dump, named by the
// environment variable KIND, says so on stdout, and waits. It is to real CRIU what the tables
// of package examine are checked against.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kinds make the thing. What they open stays open until the program ends.
var kinds = map[string]func() error{
	"plain": func() error { return nil },
	"child": func() error { return nil }, // only waits; is the child of others

	"tcp":             socket(unix.AF_INET, unix.SOCK_STREAM, 0),
	"udp":             socket(unix.AF_INET, unix.SOCK_DGRAM, 0),
	"unix":            socket(unix.AF_UNIX, unix.SOCK_STREAM, 0),
	"mptcp":           socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP),
	"mptcp6":          socket(unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_MPTCP),
	"mptcp-listen":    mptcpListener,
	"ping":            socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP),
	"udplite":         socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE),
	"raw":             socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP),
	"packet":          socket(unix.AF_PACKET, unix.SOCK_RAW, 0x0300),
	"netlink-route":   socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE),
	"netlink-uevent":  socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT),
	"netlink-generic": socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_GENERIC),
	"vsock":           socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0),
	"xdp":             socket(unix.AF_XDP, unix.SOCK_RAW, 0),

	"io-uring":        ioUring,
	"io-uring-mapped": ioUringMapped,
	"perf":            perf,
	"bpf-map":         bpfMap,
	"bpf-prog":        bpfProg,
	"fanotify":        func() error { return fd(unix.FanotifyInit(0, 0)) },
	"inotify":         inotify,
	"userfaultfd":     syscallFD(unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0),
	"memfd":           memfd,
	"memfd-secret":    syscallFD(unix.SYS_MEMFD_SECRET, 0, 0, 0),
	"pidfd-self":      func() error { return fd(unix.PidfdOpen(os.Getpid(), 0)) },
	"pidfd-child":     pidfdChild,
	"epoll":           func() error { return fd(unix.EpollCreate1(0)) },
	"eventfd":         func() error { return fd(unix.Eventfd(3, 0)) },
	"timerfd":         func() error { return fd(unix.TimerfdCreate(unix.CLOCK_MONOTONIC, 0)) },
	"signalfd":        func() error { return fd(unix.Signalfd(-1, &unix.Sigset_t{}, 0)) },
	"landlock":        landlock,
	"seccomp-notify":  seccompNotify,
	"mqueue":          mqueue,
	"namespace-fd":    open("/proc/self/ns/net", unix.O_RDONLY),
	"proc-file":       open("/proc/self/status", unix.O_RDONLY),
	"sys-file":        open("/sys/kernel/mm/transparent_hugepage/enabled", unix.O_RDONLY),
	"fsopen":          fsopen,
	"open-tree":       openTree,
	"shm":             shm,
	"aio":             aio,

	"dev-null":      open("/dev/null", unix.O_RDWR),
	"dev-urandom":   open("/dev/urandom", unix.O_RDONLY),
	"dev-kmsg":      device("kmsg", 1, 11),
	"dev-fuse":      device("fuse", 10, 229),
	"dev-kvm":       device("kvm", 10, 232),
	"dev-tun":       device("tun", 10, 200),
	"dev-tun-bound": boundTun,
	"dev-loop":      device("loop-control", 10, 237),
	"dev-hwrng":     device("hwrng", 10, 183),

	"deleted":       deleted(1 << 10),
	"deleted-2MiB":  deleted(2 << 20),
	"deleted-large": deleted(65 << 20),
	"deleted-sparse": func() error {
		if err := deleted(1)(); err != nil {
			return err
		}
		return kept[len(kept)-1].Truncate(8 << 20)
	},
	"tmpfile": open("/", unix.O_TMPFILE|unix.O_RDWR),

	"traced":       traced,
	"other-net":    inNamespace(unix.CLONE_NEWNET),
	"other-mount":  inNamespace(unix.CLONE_NEWNS),
	"other-pid":    inNamespace(unix.CLONE_NEWPID),
	"other-uts":    inNamespace(unix.CLONE_NEWUTS),
	"other-ipc":    inNamespace(unix.CLONE_NEWIPC),
	"other-cgroup": inNamespace(unix.CLONE_NEWCGROUP),
	"thread-net":   threadNamespace,
	"thread-vfork": threadVfork,
	"threads":      inThread(socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)),
	"child-mptcp":  childOf("mptcp"),
	"child-plain":  childOf("plain"),
}

func main() {
	kind := os.Getenv("KIND")
	if len(os.Args) > 1 {
		kind = os.Args[1]
	}
	make := kinds[kind]
	if make == nil {
		fmt.Printf("unknown %s\n", kind)
		os.Exit(2)
	}
	runtime.LockOSThread()
	if err := make(); err != nil {
		fmt.Printf("unable %s: %v\n", kind, err)
	} else {
		fmt.Printf("ready %s\n", kind)
	}
	for {
		unix.Pause()
	}
}

func fd(n int, err error) error {
	if err == nil && n < 0 {
		return fmt.Errorf("descriptor %d", n)
	}
	return err
}

func socket(family, kind, proto int) func() error {
	return func() error { return fd(unix.Socket(family, kind, proto)) }
}

func open(path string, flags int) func() error {
	return func() error { return fd(unix.Open(path, flags, 0o600)) }
}

func device(name string, major, minor uint32) func() error {
	return func() error {
		path := "/dev/odd-" + name
		if err := unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(major, minor))); err != nil {
			return err
		}
		n, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			n, err = unix.Open(path, unix.O_WRONLY, 0)
		}
		return fd(n, err)
	}
}

func syscallFD(nr, a, b, c uintptr) func() error {
	return func() error {
		n, _, errno := unix.Syscall(nr, a, b, c)
		if errno != 0 {
			return errno
		}
		return fd(int(n), nil)
	}
}

func mptcpListener() error {
	n, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)
	if err != nil {
		return err
	}
	if err := unix.Bind(n, &unix.SockaddrInet4{Port: 8080}); err != nil {
		return err
	}
	return unix.Listen(n, 16)
}

func ioUring() error {
	var params [120]byte
	return syscallFD(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params)), 0)()
}

// ioUringMapped keeps a ring mapped and no descriptor of it.
func ioUringMapped() error {
	var params [120]byte
	n, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return errno
	}
	if _, err := unix.Mmap(int(n), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return err
	}
	return unix.Close(int(n))
}

// boundTun is a tunnel with its interface.
func boundTun() error {
	if err := device("tun", 10, 200)(); err != nil {
		return err
	}
	n, err := unix.Open("/dev/odd-tun", unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	r, err := unix.NewIfreq("odd0")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	return unix.IoctlIfreq(n, unix.TUNSETIFF, r)
}

func perf() error {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_TASK_CLOCK, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}
	return fd(unix.PerfEventOpen(&attr, 0, -1, -1, 0))
}

func bpf(cmd uintptr, attr []byte) error {
	n, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(unsafe.Pointer(&attr[0])), uintptr(len(attr)))
	if errno != 0 {
		return errno
	}
	return fd(int(n), nil)
}

func bpfMap() error {
	attr := slices.Grow([]byte{}, 72)[:72]
	put32(attr, 2, 4, 4, 1) // an array of one: key and value of 4 bytes
	return bpf(unix.BPF_MAP_CREATE, attr)
}

func bpfProg() error {
	insns := []uint64{0xb7, 0x95} // r0 = 0; exit
	license := []byte("GPL\x00")
	attr := make([]byte, 72)
	put32(attr, unix.BPF_PROG_TYPE_SOCKET_FILTER, uint32(len(insns)))
	*(*uint64)(unsafe.Pointer(&attr[8])) = uint64(uintptr(unsafe.Pointer(&insns[0])))
	*(*uint64)(unsafe.Pointer(&attr[16])) = uint64(uintptr(unsafe.Pointer(&license[0])))
	return bpf(unix.BPF_PROG_LOAD, attr)
}

func put32(b []byte, v ...uint32) {
	for i, x := range v {
		*(*uint32)(unsafe.Pointer(&b[4*i])) = x
	}
}

func inotify() error {
	n, err := unix.InotifyInit1(0)
	if err != nil {
		return err
	}
	_, err = unix.InotifyAddWatch(n, "/odd", unix.IN_MODIFY)
	return err
}

func memfd() error {
	n, err := unix.MemfdCreate("odd", 0)
	if err != nil {
		return err
	}
	_, err = unix.Write(n, []byte("some content"))
	return err
}

func pidfdChild() error {
	pid, err := start("child", 0)
	if err != nil {
		return err
	}
	return fd(unix.PidfdOpen(pid, 0))
}

func landlock() error {
	attr := struct{ fs uint64 }{1}
	return syscallFD(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)()
}

// seccompNotify installs a filter that allows everything, with a listener.
func seccompNotify() error {
	filter := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}}
	prog := unix.SockFprog{Len: 1, Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return syscallFD(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&prog)))()
}

func mqueue() error {
	name := []byte("odd\x00")
	n, _, errno := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(&name[0])), unix.O_CREAT|unix.O_RDWR, 0o600, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return fd(int(n), nil)
}

func fsopen() error {
	n, err := unix.Fsopen("tmpfs", 0)
	return fd(n, err)
}

func openTree() error {
	n, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE)
	return fd(n, err)
}

func shm() error {
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 1<<16, unix.IPC_CREAT|0o600)
	if err != nil {
		return err
	}
	b, err := unix.SysvShmAttach(id, 0, 0)
	if err == nil {
		b[0] = 1
	}
	return err
}

func aio() error {
	var ctx uintptr
	_, _, errno := unix.Syscall(unix.SYS_IO_SETUP, 8, uintptr(unsafe.Pointer(&ctx)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func deleted(size int) func() error {
	return func() error {
		f, err := os.Create("/deleted")
		if err != nil {
			return err
		}
		kept = append(kept, f)
		if _, err := f.Write(make([]byte, size)); err != nil {
			return err
		}
		return os.Remove("/deleted")
	}
}

var kept []*os.File

// start starts this program again as that kind, and waits until it is ready.
func start(kind string, flags uintptr) (int, error) {
	cmd := exec.Command("/proc/self/exe", kind)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	if flags&unix.CLONE_NEWUSER != 0 {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	w.Close()
	line := make([]byte, 200)
	n, err := r.Read(line)
	kept = append(kept, r)
	if err == nil && !strings.HasPrefix(string(line[:n]), "ready") {
		err = fmt.Errorf("the child says %q", line[:n])
	}
	return cmd.Process.Pid, err
}

func childOf(kind string) func() error {
	return func() error {
		_, err := start(kind, 0)
		return err
	}
}

func inNamespace(flag uintptr) func() error {
	return func() error {
		_, err := start("child", flag)
		return err
	}
}

func traced() error {
	pid, err := start("child", 0)
	if err != nil {
		return err
	}
	if err := unix.PtraceSeize(pid); err != nil {
		return err
	}
	return nil
}

// inThread makes the thing in a thread that is not the first one.
func inThread(make func() error) func() error {
	return func() error {
		done := newThread(make)
		return <-done
	}
}

func newThread(f func() error) chan error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
		for {
			unix.Pause()
		}
	}()
	return done
}

func threadNamespace() error {
	return <-newThread(func() error { return unix.Unshare(unix.CLONE_NEWNET) })
}

// threadVfork leaves a thread that stops for nobody, other than the first, before its child
// has ended.
func threadVfork() error {
	go func() {
		pid, _, _ := unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_VFORK|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		for pid == 0 {
			unix.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
		}
	}()
	return nil
}
