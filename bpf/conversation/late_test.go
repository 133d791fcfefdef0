package conversation

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/drover-project/drover/bpf/iterator"
)

// late keeps the one who reads waiting, when it has found a connection and not yet looked at its
// counters: as an interrupt does, or a hypervisor.
func late(s *ebpf.CollectionSpec) {
	const rounds = 30000 // about 10 µs; the verifier follows all of them
	report := s.Programs["report"]
	for i, in := range report.Instructions {
		if in.IsBuiltinCall() && asm.BuiltinFunc(in.Constant) == asm.FnSkStorageGet {
			report.Instructions[i] = asm.Call.Label("found_late").WithMetadata(in.Metadata).WithReference("found_late")
		}
	}
	number := &btf.Int{Name: "long", Size: 8, Encoding: btf.Signed}
	get := btf.WithFuncMetadata(asm.FnSkStorageGet.Call().WithSymbol("found_late").WithSource(report.Instructions[0].Source()),
		&btf.Func{Name: "found_late", Linkage: btf.StaticFunc, Type: &btf.FuncProto{Return: number}})
	report.Instructions = append(report.Instructions, get, asm.Mov.Imm(asm.R1, rounds),
		asm.Sub.Imm(asm.R1, 1).WithSymbol("wait"), asm.JNE.Imm(asm.R1, 0, "wait"), asm.Return())
}

// Who looks at a connection that ends meanwhile adds nothing to what its end has told: it may see
// a FIN counted and no more know it for one.
func TestALateReaderAddsNothing(t *testing.T) {
	h := hosts(t, 0, "a", "b")
	m := meterOf(t, Tracepoint, "", late)
	l := h[1].listen(t, h[1].v4)
	const many, said = 300, 10
	err := whileReading(func() error { return iterator.Run(m.meter.report) }, func() {
		for range many {
			h[0].chat(t, l, said, said)
		}
	})
	if err != nil {
		t.Error(err)
	}
	m.expect(t, h[0].v4, h[1].v4, many*said, many*said)
	m.expect(t, h[1].v4, h[0].v4, many*said, many*said)
}
