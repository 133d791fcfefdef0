package examine

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/drover-project/drover/internal/movable"
)

// program builds test/checkpoint/odd, which holds one odd thing open.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "odd")
	build := exec.Command("go", "build", "-o", path, "../../test/checkpoint/odd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build odd: %v\n%s", err, out)
	}
	return path
}

// Any process tree can be examined; that containers are found by their ID and that CRIU
// agrees is tested on real containers in test/checkpoint.
func TestRealProcesses(t *testing.T) {
	odd := program(t)
	for kind, want := range map[string]string{
		"plain": "", "tcp": "", "unix": "", "memfd": "", "netlink-route": "", "epoll": "", "pidfd-self": "", "proc-file": "",
		"mptcp": movable.ReasonMPTCP, "mptcp-listen": movable.ReasonMPTCP, "threads": movable.ReasonMPTCP, "child-mptcp": movable.ReasonMPTCP,
		"landlock": movable.ReasonDescriptor, "traced": movable.ReasonTraced,
	} {
		t.Run(kind, func(t *testing.T) {
			cmd := exec.Command(odd, kind)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var pids []int
			defer func() {
				for _, pid := range pids {
					if p, err := os.FindProcess(pid); err == nil {
						p.Kill()
					}
				}
				cmd.Wait()
			}()
			line, err := bufio.NewReader(out).ReadString('\n')
			pids = descendants(cmd.Process.Pid)
			if strings.HasPrefix(line, "unable ") {
				t.Skipf("this kernel does not have it: %s", line)
			}
			if err != nil || !strings.HasPrefix(line, "ready ") {
				t.Fatalf("%v: %s", err, line)
			}
			found, err := Proc("/proc").Processes(pids)
			if err != nil {
				t.Fatal(err)
			}
			if want == "" && len(found) != 0 || want != "" && (len(found) != 1 || found[0].Reason != want) {
				t.Errorf("found %v, want %q", found, want)
			}
			if want != "" && !strings.Contains(found[0].Message, "(odd)") && !strings.Contains(found[0].Message, "(exe)") {
				t.Errorf("%q does not name the process", found[0].Message)
			}
		})
	}
}

// A file of a ConfigMap has another path on every node, so that no restore finds it.
func TestOpenFilesOfVolumes(t *testing.T) {
	for name, want := range map[string]string{
		"..2026_11_28_05_30_18.3908369024/run.sh": movable.ReasonVolumeFile,
		"..data-of-mine/run.sh":                   "",
		"run.sh":                                  "",
	} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd := exec.Command("cat")
		cmd.ExtraFiles = []*os.File{f}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		found, err := Proc("/proc").Processes([]int{cmd.Process.Pid})
		in.Close() // cat ends
		if werr := cmd.Wait(); err != nil || werr != nil {
			t.Fatal(err, werr)
		}
		if want == "" && len(found) != 0 || want != "" && (len(found) != 1 || found[0].Reason != want) {
			t.Errorf("%s: found %v, want %q", name, found, want)
		}
	}
}

// descendants are a process and its children.
func descendants(pid int) []int {
	all := []int{pid}
	tasks, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/children")
	for _, path := range tasks {
		data, _ := os.ReadFile(path)
		for _, f := range strings.Fields(string(data)) {
			if child, err := strconv.Atoi(f); err == nil {
				all = append(all, descendants(child)...)
			}
		}
	}
	return all
}

func TestInGroup(t *testing.T) {
	id := strings.Repeat("0a", 32)
	for cgroups, want := range map[string]bool{
		"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + id + ".scope\n": true,
		"4:cpu:/kubepods/burstable/pod1/" + id + "\n2:name=systemd:/x\n":           true,
		"0::/kubepods/pod1/" + id + "/workers\n":                                   true,
		"0::/../../pod1/crio-" + id + ".scope\n":                                   true,
		"0::/kubepods/pod1/" + id + "0\n":                                          false,
		"0::/kubepods/pod1/x" + id + "\n":                                          false,
		"0::/\n":                                                                   false, "": false, id: false,
	} {
		if got := inGroup(cgroups, id); got != want {
			t.Errorf("%q: %v, want %v", cgroups, got, want)
		}
	}
}

func TestContainerThatIsNotThere(t *testing.T) {
	found, err := Proc("/proc").Container(strings.Repeat("ab", 32))
	if err != nil || len(found) != 1 || found[0].Reason != movable.ReasonNoProcess {
		t.Errorf("found %v, %v", found, err)
	}
	for _, id := range []string{"", "short", "../../../../etc/passwd", "aaaaaaaaaaaa\nb"} {
		if _, err := Proc("/proc").Container(id); err == nil {
			t.Errorf("%q was taken for an ID", id)
		}
	}
}

// FuzzProc examines a process whose files hold anything.
func FuzzProc(f *testing.F) {
	f.Add("Name:\tx\nState:\tS\nNSpid:\t9\t1\nTracerPid:\t0\n", "21 20 0:1 / / rw - tmpfs t rw\n", "7f00-7f01 rw-s 0 00:01 9 anon_inode:[io_uring]\n", "pos: 0\nmnt_id: 21\n", "anon_inode:[perf_event]")
	f.Add("", "", "", "", "socket:[1]")
	f.Add("Name", "x", "a b c d e f g", "mnt_id", "/gone (deleted)")
	f.Fuzz(func(t *testing.T, status, mountinfo, maps, fdinfo, link string) {
		root := t.TempDir()
		dir := filepath.Join(root, "7")
		task := filepath.Join(dir, "task", "7")
		for _, d := range []string{filepath.Join(task, "fd"), filepath.Join(task, "fdinfo"), filepath.Join(dir, "ns")} {
			if err := os.MkdirAll(d, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		for path, data := range map[string]string{
			filepath.Join(dir, "status"): status, filepath.Join(task, "status"): status, filepath.Join(dir, "mountinfo"): mountinfo,
			filepath.Join(dir, "maps"): maps, filepath.Join(task, "fdinfo", "3"): fdinfo,
		} {
			if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		os.Symlink(link, filepath.Join(task, "fd", "3")) // refuses an empty one: then there is none
		found, err := Proc(root).Processes([]int{7})
		if err != nil {
			return
		}
		for _, f := range found {
			if f.Reason == "" || f.Message == "" {
				t.Errorf("an empty finding: %+v", f)
			}
		}
	})
}
