package vault

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/model"
)

// newVault opens a vault on a node that is this machine.
func newVault(t *testing.T, change func(*Config)) (*Vault, error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	c := Config{Dir: filepath.Join(t.TempDir(), "vault"), Size: "8M", Proc: "/proc", InMounts: func(f func() error) error { return f() },
		Limit: func() (model.Bytes, bool, error) { return 0, false, nil }}
	if change != nil {
		change(&c)
	}
	v := New(c)
	t.Cleanup(func() { _ = unix.Unmount(c.Dir, unix.MNT_DETACH) })
	return v, v.Open()
}

func TestMemoryVault(t *testing.T) {
	v, err := newVault(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := mounted(v.cfg.Dir)
	if err != nil || m == nil || m.kind != "tmpfs" {
		t.Fatalf("mounted: %+v, %v", m, err)
	}
	if fi, err := os.Stat(v.cfg.Dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(v.cfg.Dir, &st); err != nil || st.Flags&(unix.ST_NODEV|unix.ST_NOSUID|unix.ST_NOEXEC) != unix.ST_NODEV|unix.ST_NOSUID|unix.ST_NOEXEC {
		t.Errorf("flags %#x, %v", st.Flags, err)
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	if release := unix.ByteSliceToString(u.Release[:]); newerThan64(release) && !m.has("noswap") {
		t.Errorf("Linux %s knows noswap, and the options are %q", release, m.options)
	}
	// What is in it outlives the agent, and the next one's size counts.
	keep := filepath.Join(v.cfg.Dir, "held")
	if err := os.WriteFile(keep, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := v.cfg
	c.Size = "16M"
	again := New(c)
	if err := again.Open(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(keep); err != nil {
		t.Error("the next agent lost what was held:", err)
	}
	room, err := again.ForDump()
	if err != nil || room > 16*model.MiB || room < 15*model.MiB {
		t.Errorf("room of %d bytes, %v, want a little less than 16 MiB", room, err)
	}
}

func newerThan64(release string) bool {
	major, rest, _ := strings.Cut(release, ".")
	minor, _, _ := strings.Cut(rest, ".")
	return len(major) > 1 || major > "6" || major == "6" && (len(minor) > 1 || minor >= "4")
}

func TestDiskVault(t *testing.T) {
	disk := t.TempDir()
	if err := os.WriteFile(filepath.Join(disk, "there"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := newVault(t, func(c *Config) { c.Disk = disk })
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // also by the next agent
		if _, err := os.Stat(filepath.Join(v.cfg.Dir, "there")); err != nil {
			t.Error(err)
		}
		if room, err := v.ForCopy(); err != nil || room <= 0 {
			t.Errorf("room %d, %v", room, err)
		}
		if err := v.Open(); err != nil {
			t.Fatal(err)
		}
	}
	// Back to memory, and to disk again.
	c := v.cfg
	c.Disk = ""
	memory := New(c)
	if err := memory.Open(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(c.Dir, "there")); err == nil {
		t.Error("the directory on disk is still in use")
	}
	if err := v.Open(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(c.Dir, "there")); err != nil {
		t.Error(err)
	}
}

func TestClosedVaultHoldsNothing(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"not there":   func(c *Config) { c.Disk = "/no/such/directory" },
		"no size":     func(c *Config) { c.Size = "many" },
		"a plain one": func(c *Config) { c.Disk = "/etc/passwd" },
	} {
		v, err := newVault(t, change)
		if err == nil || v.Problem() == "" {
			t.Errorf("%s: %v, problem %q", name, err, v.Problem())
		}
		for _, room := range []func() (model.Bytes, error){v.ForDump, v.ForCopy} {
			if n, err := room(); err == nil {
				t.Errorf("%s: there is room for %d bytes", name, n)
			}
		}
	}
}

// proc makes a procfs.
func proc(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const (
	noSwap  = "Filename\tType\tSize\tUsed\tPriority\n"
	oneGiB  = "MemTotal: 9 kB\nMemAvailable: 1048576 kB\n"
	oneDisk = noSwap + "/dev/zram0 partition 1 0 100\n/dev/sda2 partition 1 0 -2\n"
)

// Without noswap a swap space on disk closes the vault, as soon as it is turned on.
func TestSwap(t *testing.T) {
	p := proc(t, map[string]string{"swaps": noSwap + "/dev/zram0 partition 1 0 100\n", "meminfo": oneGiB})
	v := New(Config{Dir: t.TempDir(), Proc: p})
	v.closed, v.swappable = nil, true
	if _, err := v.ForDump(); err != nil {
		t.Error("only compressed memory to swap to:", err)
	}
	if err := os.WriteFile(filepath.Join(p, "swaps"), []byte(oneDisk), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := v.ForDump(); err == nil || !strings.Contains(err.Error(), "/dev/sda2") {
		t.Errorf("got %v", err)
	}
	v.swappable = false
	if _, err := v.ForDump(); err != nil {
		t.Error("a tmpfs with noswap:", err)
	}
	v.swappable = true
	if err := os.Remove(filepath.Join(p, "swaps")); err != nil {
		t.Fatal(err)
	}
	if _, err := v.ForDump(); err == nil {
		t.Error("whether there is swap is not known, and no error")
	}
}

func TestRoom(t *testing.T) {
	const mib = model.MiB
	for _, c := range []struct {
		name       string
		limit      model.Bytes // -1: none
		dump, copy model.Bytes
	}{
		{"no limit", -1, 1024 * mib, 512 * mib}, // the copy and its images: half of 1024
		{"the agent may have more", 600 * mib, 1024 * mib, 512 * mib},
		{"the agent may have less", 100 * mib, 1024 * mib, 100 * mib},
	} {
		v := New(Config{Dir: "/", Proc: proc(t, map[string]string{"swaps": noSwap, "meminfo": oneGiB}),
			Limit: func() (model.Bytes, bool, error) { return c.limit, c.limit >= 0, nil }})
		v.closed = nil
		if got, err := v.ForDump(); err != nil || got != c.dump {
			t.Errorf("%s: dump %d MiB, %v, want %d", c.name, got/mib, err, c.dump/mib)
		}
		if got, err := v.ForCopy(); err != nil || got != c.copy {
			t.Errorf("%s: copy %d MiB, %v, want %d", c.name, got/mib, err, c.copy/mib)
		}
	}
}
