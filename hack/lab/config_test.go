package lab

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestDefault(t *testing.T) {
	c := Config{}.Default()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if c.Name != "drover" || len(c.Nodes) != 3 {
		t.Errorf("got lab %q with %d nodes, want drover with 3", c.Name, len(c.Nodes))
	}
}

func TestValidate(t *testing.T) {
	delay := func(d time.Duration) metav1.Duration { return metav1.Duration{Duration: d} }
	for _, test := range []struct {
		name   string
		change func(*Config)
		want   string // "": valid
	}{
		{"as it is", func(*Config) {}, ""},
		{"a pair of devices for each pod", func(c *Config) { c.PodNetwork = PTP }, ""},
		{"another network of pods", func(c *Config) { c.PodNetwork = "calico" }, `podNetwork "calico": want "bridge" or "ptp"`},
		{"cut link", func(c *Config) { c.Links = []Link{{"n1", "n2", delay(-1)}} }, ""},
		{"link to the control plane", func(c *Config) { c.Links = []Link{{"n1", "cp", delay(time.Millisecond)}} }, ""},
		{"name leads out of the state directory", func(c *Config) { c.Name = "../x" }, "name"},
		{"name with capitals", func(c *Config) { c.Name = "Lab" }, "DNS label"},
		{"long name", func(c *Config) { c.Name = strings.Repeat("a", 31) }, "30 characters"},
		{"node named as the control plane", func(c *Config) { c.Nodes[1].Name = "cp" }, "control plane's"},
		{"two nodes of one name", func(c *Config) { c.Nodes[1].Name = "n1" }, "taken"},
		{"node without name", func(c *Config) { c.Nodes[1].Name = "" }, "nodes[1]"},
		{"node that would be a group of daemons", func(c *Config) { c.Nodes[1].Name = "_daemons" }, "DNS label"},
		{"negative speed", func(c *Config) { c.Nodes[0].Speed = -1 }, "speed -1"},
		{"no number", func(c *Config) { c.Nodes[0].Speed = math.NaN() }, "speed NaN"},
		{"speed below the kernel's least", func(c *Config) { c.Nodes[0].Speed = 0.001 }, "at least 0.01"},
		{"disk", func(c *Config) { c.Nodes[0].Disks = map[string]int{"/var/lib/x": 64} }, ""},
		{"disk at no absolute path", func(c *Config) { c.Nodes[0].Disks = map[string]int{"x": 64} }, `disk "x"`},
		{"disk without room", func(c *Config) { c.Nodes[0].Disks = map[string]int{"/x": 0} }, "at least 1 MiB"},
		{"link to nowhere", func(c *Config) { c.Links = []Link{{"n1", "n9", delay(0)}} }, `no node "n9"`},
		{"link to itself", func(c *Config) { c.Links = []Link{{"n1", "n1", delay(0)}} }, "to itself"},
		{"long delay", func(c *Config) { c.Links = []Link{{"n1", "n2", delay(time.Minute)}} }, "at most 10s"},
		{"many nodes", func(c *Config) {
			for range 100 {
				c.Nodes = append(c.Nodes, Node{Name: "x"})
			}
		}, "at most 100"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := Config{}.Default()
			test.change(&c)
			err := c.Validate()
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestLoadConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lab.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("name: x\nnodes:\n- name: a\n  speed: 1.5\n- name: b\nlinks:\n- {a: a, b: b, delay: 5ms}\n")
	got, err := LoadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Name: "x", Nodes: []Node{{Name: "a", Speed: 1.5}, {Name: "b"}},
		Links: []Link{{"a", "b", metav1.Duration{Duration: 5 * time.Millisecond}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("got (+), want (-):\n%s", diff)
	}
	write("nodes:\n- name: a\n  sped: 1.5\n")
	if _, err := LoadConfig(path); err == nil || !strings.Contains(err.Error(), "sped") {
		t.Errorf("a key that is not known: got error %v, want one that names it", err)
	}
}

func TestReserved(t *testing.T) {
	for _, test := range []struct {
		speed float64
		cpus  int
		want  string
	}{
		{0, 4, ""},        // no limit
		{4, 4, ""},        // all there is
		{8, 4, ""},        // more than there is
		{1.5, 4, "2500m"}, // 4 - 1.5
		{0.25, 2, "1750m"},
	} {
		if got := reserved(test.speed, test.cpus); got != test.want {
			t.Errorf("speed %g of %d: got %q, want %q", test.speed, test.cpus, got, test.want)
		}
	}
}

// Every machine has addresses and names of its own, and sockets' paths fit into a sockaddr_un.
func TestLayout(t *testing.T) {
	c := Config{Name: strings.Repeat("l", 30)}
	for i := range maxNodes {
		c.Nodes = append(c.Nodes, Node{Name: strings.Repeat("n", 27) + string(rune('a'+i/26)) + string(rune('a'+i%26))})
	}
	if err := c.Default().Validate(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, m := range machines(c) {
		for _, s := range slices.Concat(m.ips(), m.podRanges(), []string{m.mac(), m.pods(), m.daemons(), m.dir()}) {
			if seen[s] {
				t.Errorf("%s: %s is taken", m.name, s)
			}
			seen[s] = true
		}
		if n := len(m.control()); n > 107 {
			t.Errorf("%s: path of %d bytes", m.control(), n)
		}
	}
}

func TestProcessIdentity(t *testing.T) {
	p, err := identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "pid.json")
	if err := p.save(path); err != nil {
		t.Fatal(err)
	}
	got, err := loadProcess(path)
	if err != nil || got != p || !got.alive() {
		t.Errorf("got %+v, alive %t, %v; want %+v", got, got.alive(), err, p)
	}
	got.Start++ // another process that was given the same pid
	if got.alive() {
		t.Error("a process with another start time is taken for ours")
	}
	if err := os.WriteFile(path, []byte(`{"PI`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := loadProcess(path); err != nil || got.alive() {
		t.Errorf("half written: got %+v, %v; want no process", got, err)
	}
	if got, err := loadProcess(path + ".none"); err != nil || got.alive() {
		t.Errorf("not there: got %+v, %v; want no process", got, err)
	}
}
