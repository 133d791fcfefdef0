package cpufeature

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/drover-project/drover/internal/model"
)

const old = "processor\t: 0\nflags\t\t: fpu cx8 sse2 avx\n\nprocessor\t: 1\nflags\t\t: fpu cx8 sse2 avx\n"

func TestMissing(t *testing.T) {
	newer := strings.ReplaceAll(old, "avx", "avx avx2 fancy_new_thing")
	mixed := strings.Replace(newer, "avx2", "", 1) // one processor of two lacks it
	for name, c := range map[string]struct {
		source, target, arch string
		want                 []string
		says                 string
	}{
		"the same":               {old, old, "amd64", nil, ""},
		"more on the target":     {old, newer, "amd64", nil, ""},
		"less on the target":     {newer, old, "amd64", []string{"avx2"}, "avx2"},
		"less on one of two":     {newer, mixed, "amd64", []string{"avx2"}, "avx2"},
		"not on all of source's": {mixed, old, "amd64", nil, ""},
		"another architecture":   {old, "Features : fp asimd\n", "arm64", []string{"amd64"}, "architecture is arm64"},
	} {
		t.Run(name, func(t *testing.T) {
			source, target := Parse(c.source, "amd64"), Parse(c.target, c.arch)
			got, known := Missing(source, target)
			if !known || !slices.Equal(got, c.want) {
				t.Errorf("missing %v, %v, want %v", got, known, c.want)
			}
			if says := Obstacle(source, target); !strings.Contains(says, c.says) || (says == "") != (c.says == "") {
				t.Errorf("%q, want %q", says, c.says)
			}
		})
	}
}

func TestUnknown(t *testing.T) {
	is := Parse(old, "amd64")
	for _, other := range []model.CPU{{}, {Architecture: "amd64"}, {Architecture: "amd64", Features: "no"}, {Architecture: "amd64", Features: "-1"}, Parse("nothing", "amd64")} {
		if missing, known := Missing(is, other); known || missing != nil {
			t.Errorf("%+v: %v, %v", other, missing, known)
		}
		if missing, known := Missing(other, is); known || missing != nil {
			t.Errorf("%+v: %v, %v", other, missing, known)
		}
	}
}

// The names must fit this machine's kernel: one that no kernel spells so would never count.
func TestThisMachine(t *testing.T) {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Fatal(err)
	}
	cpu := Parse(string(data), "")
	if cpu.Features == "" || cpu.Features == "0" {
		t.Fatalf("no features of this machine are known: %+v", cpu)
	}
	if missing, known := Missing(cpu, cpu); !known || len(missing) > 0 {
		t.Errorf("lacks its own: %v, %v", missing, known)
	}
	if len(cpu.Features) > 40 {
		t.Errorf("%d digits are too many for a packet of gossip", len(cpu.Features))
	}
}

func FuzzMissing(f *testing.F) {
	f.Add("amd64", "ff", "amd64", "0f")
	f.Add("arm64", "-1", "", "zz")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		if len(b)+len(d) > 1000 {
			return
		}
		source, target := model.CPU{Architecture: a, Features: b}, model.CPU{Architecture: c, Features: d}
		if missing, known := Missing(source, target); len(missing) > 0 && !known {
			t.Errorf("%v and not known", missing)
		}
		_ = Obstacle(source, target)
	})
}
