package routetime

import (
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

func TestSamplesDoNotWait(t *testing.T) {
	a, b := vethPair(t)
	ma, mb := a.meter(t, b), b.meter(t, a)
	a.attach(t, ma)
	b.attach(t, mb)
	from := a.socket(t, a.v4)
	if got, bad, err := ma.Samples(); err != nil || len(bad) != 0 || len(got) != 0 {
		t.Fatalf("before any probe: %v, %v, %v", got, bad, err)
	}
	for round := range 2 {
		var want []uint64
		for i := range uint64(3) {
			nonce := uint64(round+1)*100 + i
			if err := ma.Expect(nonce, b.v4); err != nil {
				t.Fatal(err)
			}
			send(t, from, b.v4, probe(nonce))
			want = append(want, nonce)
		}
		var got []uint64
		for end := time.Now().Add(patience); len(got) < len(want) && time.Now().Before(end); {
			samples, bad, err := ma.Samples()
			if err != nil || len(bad) > 0 {
				t.Fatal(bad, err)
			}
			for _, s := range samples {
				got = append(got, s.Nonce)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("round %d: samples of probes %v, want %v", round, got, want)
		}
	}
	// One who waits is woken as before.
	measure(t, ma, from, b.v4, 1000)
	if err := ma.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ma.Samples(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// What cannot be a sample is told, and hides none of those that lie behind it.
func TestSamplesPassOverWhatCannotBeOne(t *testing.T) {
	a, _ := vethPair(t)
	var m *Meter
	a.in(t, func() (err error) { m, err = Open(); return err })
	t.Cleanup(func() { _ = m.Close() })
	good := make([]byte, sampleSize)
	good[32] = byte(AnsweredByKernel)
	backwards, unheard := slices.Clone(good), slices.Clone(good)
	binary.NativeEndian.PutUint64(backwards[24:], 1<<63)
	unheard[32] = 99
	for _, record := range [][]byte{good, backwards, good, good[:sampleSize-8], unheard, good} {
		submit(t, m.objects.Samples, record)
	}
	samples, bad, err := m.Samples()
	if err != nil || len(samples) != 3 {
		t.Fatalf("%v, %v, want 3 samples", samples, err)
	}
	told := errors.Join(bad...).Error()
	for _, want := range []string{"of 9223372036854775808 ns", "of 32 bytes", "kind 99"} {
		if !strings.Contains(told, want) {
			t.Errorf("%q, want %q in it", told, want)
		}
	}
	if len(bad) != 3 {
		t.Errorf("%d are told, want 3", len(bad))
	}
}

// submit has the kernel put a record, of whole words, into a ring.
func submit(t *testing.T, ring *ebpf.Map, record []byte) {
	t.Helper()
	var code asm.Instructions
	at := -int16(len(record))
	for i := 0; i < len(record); i += 8 {
		code = append(code, asm.LoadImm(asm.R1, int64(binary.NativeEndian.Uint64(record[i:])), asm.DWord),
			asm.StoreMem(asm.RFP, at+int16(i), asm.R1, asm.DWord))
	}
	code = append(code, asm.LoadMapPtr(asm.R1, ring.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, int32(at)),
		asm.Mov.Imm(asm.R3, int32(len(record))), asm.Mov.Imm(asm.R4, 0), asm.FnRingbufOutput.Call(), asm.Return())
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SocketFilter, License: "GPL", Instructions: code})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if failed, err := p.Run(&ebpf.RunOptions{Data: make([]byte, 14)}); err != nil || failed != 0 {
		t.Fatalf("put a record into the ring: %d, %v", int32(failed), err)
	}
}
