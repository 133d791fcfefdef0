// Package cpufeature tells whether a process that runs on one processor can go on on another.
// The C library, Go and others choose code by the processor's features once, when a program
// starts: a feature that is missing after a move ends it with an illegal instruction. A node
// may have more than the source; it may not have less.
package cpufeature

import (
	"math/big"
	"runtime"
	"strings"

	"github.com/drover-project/drover/internal/model"
)

// names are the features that programs select code by, as Linux spells them in /proc/cpuinfo:
// those of glibc's sysdeps/x86/cpu-features.c and sysdeps/aarch64, of Go's internal/cpu and
// of the x86-64-v2 to v4 levels, and what changes the layout of the saved registers. The
// place of a name is its bit on the wire: new ones come at the end.
var names = map[string][]string{
	"amd64": strings.Fields(`cx8 cmov mmx fxsr sse sse2 pni ssse3 sse4_1 sse4_2 sse4a popcnt cx16 lahf_lm movbe fma fma4 f16c
		aes pclmulqdq avx avx2 bmi1 bmi2 abm tbm xop rdrand rdseed adx sha_ni erms fsrm rtm hle
		xsave xsaveopt xsavec xsaves xgetbv1 avx512f avx512dq avx512cd avx512bw avx512vl avx512er avx512pf avx512ifma avx512vbmi
		avx512_vbmi2 avx512_vnni avx512_bitalg avx512_vpopcntdq avx512_bf16 avx512_fp16 avx512_vp2intersect avx512_4vnniw avx512_4fmaps
		vaes vpclmulqdq gfni avx_vnni avx_ifma avx_vnni_int8 amx_tile amx_int8 amx_bf16 amx_fp16 pku ospke fsgsbase rdtscp rdpid
		clflushopt clwb movdiri movdir64b serialize waitpkg cldemote prefetchw 3dnowprefetch user_shstk sha512 sm3 sm4`),
	"arm64": strings.Fields(`fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop
		sha3 sm3 sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg dcpodp sve2 sveaes svepmull svebitperm
		svesha3 svesm4 flagm2 frint svei8mm svef32mm svef64mm svebf16 i8mm bf16 dgh rng bti mte ecv afp rpres mte3 sme wfxt
		ebf16 cssc rprfm sve2p1 sme2 sme2p1 mops hbc sveb16b16 lrcpc3 lse128`),
}

// Parse reads /proc/cpuinfo of a machine of that architecture (Go's name; empty: this
// program's). A feature counts if every processor has it.
func Parse(cpuinfo, arch string) model.CPU {
	if arch == "" {
		arch = runtime.GOARCH
	}
	cpu := model.CPU{Architecture: arch}
	var have map[string]bool
	for _, line := range strings.Split(cpuinfo, "\n") {
		key, value, _ := strings.Cut(line, ":")
		if k := strings.TrimSpace(key); k != "flags" && k != "Features" {
			continue
		}
		these := map[string]bool{}
		for _, f := range strings.Fields(value) {
			if have == nil || have[f] {
				these[f] = true
			}
		}
		have = these
	}
	if len(have) == 0 {
		return cpu
	}
	bits := new(big.Int)
	for i, name := range names[arch] {
		if have[name] {
			bits.SetBit(bits, i, 1)
		}
	}
	cpu.Features = bits.Text(16)
	return cpu
}

// Missing names what the source's processor has and the target's lacks. known is false when
// one of them has not told: an agent of an older version, or one that was not heard yet.
func Missing(source, target model.CPU) (missing []string, known bool) {
	has, ok := new(big.Int).SetString(source.Features, 16)
	gets, ok2 := new(big.Int).SetString(target.Features, 16)
	if !ok || !ok2 || has.Sign() < 0 || gets.Sign() < 0 {
		return nil, false
	}
	if source.Architecture != target.Architecture {
		return []string{source.Architecture}, true
	}
	for i, name := range names[source.Architecture] {
		if has.Bit(i) == 1 && gets.Bit(i) == 0 {
			missing = append(missing, name)
		}
	}
	return missing, true
}

// Obstacle is Missing in a sentence; empty: none, or none is known.
func Obstacle(source, target model.CPU) string {
	missing, known := Missing(source, target)
	switch {
	case !known || len(missing) == 0:
		return ""
	case source.Architecture != target.Architecture:
		return "its architecture is " + target.Architecture + ", the pod runs on " + source.Architecture
	}
	return "its processor lacks what the pod may use where it is: " + strings.Join(missing, ", ")
}
