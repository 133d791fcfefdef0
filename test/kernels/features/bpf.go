package features

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

func btfOfKernel() (string, error) {
	_, err := btf.LoadKernelSpec()
	return "", err
}

// withProgram loads a program that does nothing but return what lets everything pass.
func withProgram(spec ebpf.ProgramSpec, result int32, f func(*ebpf.Program) (string, error)) (string, error) {
	spec.License = "GPL"
	spec.Instructions = asm.Instructions{asm.Mov.Imm(asm.R0, result), asm.Return()}
	p, err := ebpf.NewProgram(&spec)
	if err != nil {
		return "", err
	}
	defer p.Close()
	return f(p)
}

// attached ends an attachment at once: that it came about is what was asked.
func attached(l link.Link, err error) (string, error) {
	if err != nil {
		return "", err
	}
	return "", l.Close()
}

func tracing(tracepoint string) func() (string, error) {
	return func() (string, error) {
		return withProgram(ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: tracepoint}, 0,
			func(p *ebpf.Program) (string, error) {
				return attached(link.AttachTracing(link.TracingOptions{Program: p}))
			})
	}
}

func taskStorage() (string, error) {
	number := &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.TaskStorage, KeySize: 4, ValueSize: 4, Key: number, Value: number, Flags: unix.BPF_F_NO_PREALLOC})
	if err != nil {
		return "", err
	}
	defer m.Close()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "sched_switch", License: "GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, 8, asm.DWord), // the second argument: the task that leaves the CPU
			asm.LoadMapPtr(asm.R1, m.FD()),
			asm.Mov.Imm(asm.R3, 0),
			asm.Mov.Imm(asm.R4, 0),
			asm.FnTaskStorageGet.Call(),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		},
	})
	if err != nil {
		return "", err
	}
	defer p.Close()
	return attached(link.AttachTracing(link.TracingOptions{Program: p}))
}

// quotaClock finds which of a run queue's fields tells for how long quotas have held it
// (bpf/contention, throttle_clock).
func quotaClock() (string, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return "", err
	}
	var queue *btf.Struct
	if err := spec.TypeByName("cfs_rq", &queue); err != nil {
		return "", err
	}
	for _, field := range []string{"throttled_clock_self_time", "throttled_clock_pelt_time", "throttled_clock_task_time"} {
		for _, m := range queue.Members {
			if m.Name == field {
				return field, nil
			}
		}
	}
	return "", errors.New("struct cfs_rq has no field for it")
}

func sockOps() (string, error) {
	root, err := v2Root()
	if err != nil {
		return "", err
	}
	return withProgram(ebpf.ProgramSpec{Type: ebpf.SockOps, AttachType: ebpf.AttachCGroupSockOps}, 1,
		func(p *ebpf.Program) (string, error) {
			return attached(link.AttachCgroup(link.CgroupOptions{Path: root, Attach: ebpf.AttachCGroupSockOps, Program: p}))
		})
}

// loopback is the index of lo in every network namespace.
const loopback = 1

// apart runs f in a network namespace of its own, which ends with it.
func apart(f func() (string, error)) (detail string, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		var ns netns.NsHandle
		if ns, err = netns.New(); err != nil {
			err = fmt.Errorf("make a network namespace: %w", err)
			return
		}
		defer ns.Close()
		detail, err = f()
	}()
	<-done
	return detail, err
}

func clsact() (string, error) {
	return apart(func() (string, error) {
		return withProgram(ebpf.ProgramSpec{Type: ebpf.SchedCLS}, 0, func(p *ebpf.Program) (string, error) {
			qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: loopback, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
			if err := netlink.QdiscAdd(qdisc); err != nil {
				return "", fmt.Errorf("add the qdisc: %w", err)
			}
			return "", netlink.FilterAdd(&netlink.BpfFilter{Fd: p.FD(), Name: "drover", DirectAction: true,
				FilterAttrs: netlink.FilterAttrs{LinkIndex: loopback, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL}})
		})
	})
}

func tcx() (string, error) {
	return apart(func() (string, error) {
		return withProgram(ebpf.ProgramSpec{Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXIngress}, 0, func(p *ebpf.Program) (string, error) {
			return attached(link.AttachTCX(link.TCXOptions{Interface: loopback, Program: p, Attach: ebpf.AttachTCXIngress}))
		})
	})
}

func xdp() (string, error) {
	const pass = 2
	return apart(func() (string, error) {
		return withProgram(ebpf.ProgramSpec{Type: ebpf.XDP}, pass, func(p *ebpf.Program) (string, error) {
			return attached(link.AttachXDP(link.XDPOptions{Interface: loopback, Program: p, Flags: link.XDPGenericMode}))
		})
	})
}

func kprobe() (string, error) {
	return withProgram(ebpf.ProgramSpec{Type: ebpf.Kprobe}, 0, func(p *ebpf.Program) (string, error) {
		return attached(link.Kprobe("vfs_fsync", p, nil))
	})
}
