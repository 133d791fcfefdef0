package kernels

import (
	"slices"
	"strings"
	"testing"

	"github.com/drover-project/drover/test/kernels/guest"
)

func TestRead(t *testing.T) {
	const told = "noise of a boot\r\n" +
		"@feature tcx\tno\toperation not supported\r\n@feature clsact\tyes\t\r\n" +
		"@begin bpf/a\r\n=== RUN   TestX\r\n    --- PASS: TestX/y (0.10s)\r\n--- SKIP: TestZ (0.00s)\r\nPASS\r\n@end bpf/a\t1.5s\t\r\n" +
		"@begin bpf/b\r\n--- FAIL: TestX (0.00s)\r\n@end bpf/b\t2s\texit status 1\r\n" +
		"@begin bpf/c\r\n--- PASS: TestX (0.00s)\r\n"
	got, err := read(strings.NewReader(told))
	if err != nil || got.done {
		t.Errorf("done %v, %v; it broke off in the middle", got.done, err)
	}
	if a := got.features["tcx"]; a.yes || a.detail != "operation not supported" || !got.features["clsact"].yes {
		t.Errorf("features %v", got.features)
	}
	a, b, c := got.packages["bpf/a"], got.packages["bpf/b"], got.packages["bpf/c"]
	if a.failed != "" || a.passed != 1 || !slices.Equal(a.skipped, []string{"TestZ"}) || a.took != "1.5s" {
		t.Errorf("a: %+v", a)
	}
	if b.failed != "exit status 1" || !strings.Contains(b.output.String(), "FAIL: TestX") || c.failed == "" {
		t.Errorf("b: %+v, c: %+v; want both failed", b, c)
	}
	if got, err := read(strings.NewReader(told[:10] + "\n@done\n")); err != nil || !got.done {
		t.Errorf("done: %v, %v", got.done, err)
	}
	for _, bad := range []string{"@failed no disk\n", "@end bpf/x\t1s\t\n", "@feature half\n"} {
		if _, err := read(strings.NewReader(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestDependencies(t *testing.T) {
	const dep = "kernel/a.ko:\nkernel/d/blk.ko: kernel/v/ring.ko kernel/v/virtio.ko\n"
	got, err := dependencies(dep, "blk.ko")
	if want := []string{"kernel/v/virtio.ko", "kernel/v/ring.ko", "kernel/d/blk.ko"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	if _, err := dependencies(dep, "lk.ko"); err == nil {
		t.Error("a part of a name: no error")
	}
}

func TestMaySkip(t *testing.T) {
	if !maySkip(guest.V2, "TestFreeze/v2=false") || maySkip(guest.Hybrid, "TestFreeze/v2=false") || maySkip(guest.V2, "TestFreeze/v2=true") {
		t.Error("only v1's tests may be skipped, and only where v2 is alone")
	}
}

// Only what the emulator does to a kernel is tried again, and nothing that a program of ours may do.
func TestEmulatorFault(t *testing.T) {
	for console, want := range map[string]bool{
		"[ 4.5] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI\n":                                           true,
		"[ 4.5] int3: 0000 [#1] PREEMPT SMP\n":                                                       true,
		"[84.6] watchdog: BUG: soft lockup - CPU#1 stuck\n[84.6]  text_poke_bp_batch+0xb7/0x300\n":   true,
		"[84.6] watchdog: BUG: soft lockup - CPU#1 stuck\n[84.6]  bpf_prog_0f8e_sched_switch+0xb7\n": false,
		"[84.6] BUG: kernel NULL pointer dereference\n[84.6] Oops: Oops: 0000 [#1]\n":                false,
		"": false,
	} {
		if got := emulatorFault([]byte(console), nil); got != want {
			t.Errorf("%q: %t, want %t", console, got, want)
		}
	}
	for own, want := range map[string]bool{
		"qemu-system-x86_64: system/physmem.c:2671: iotlb_to_section: Assertion `section_index < d->map.sections_nb' failed.\n": true,
		"qemu-system-x86_64: terminating on signal 15\n":                                                                        false,
	} {
		if got := emulatorFault(nil, []byte(own)); got != want {
			t.Errorf("%q: %t, want %t", own, got, want)
		}
	}
}
