package podlog

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/health"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// bench is a node with its logs, and a Follower whose clock and CPU time stand until told.
type bench struct {
	t          *testing.T
	root       string
	f          *Follower
	now        time.Time
	containers []Container
	cpu        time.Duration
	perLook    time.Duration // CPU time that passes between two looks at it
}

func newBench(t *testing.T, containers ...Container) *bench {
	t.Helper()
	b := &bench{t: t, root: t.TempDir(), now: t0, containers: containers}
	b.f = New(Config{HostRoot: b.root, Containers: func() []Container { return b.containers }, Log: slog.New(slog.DiscardHandler)})
	b.f.cpu = func() time.Duration { b.cpu += b.perLook; return b.cpu }
	t.Cleanup(b.f.closeAll)
	return b
}

// web is a container that has run for a long time.
func web(name string) Container {
	return Container{Namespace: "shop", Pod: "web", PodUID: "u1", Name: name, Started: t0.Add(-time.Hour), Pattern: regexp.MustCompile("timeout")}
}

func (b *bench) path(c Container) string { return filepath.Join(b.root, Dir, c.path()) }

func (b *bench) check(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// write adds lines of stdout.
func (b *bench) write(c Container, lines ...string) {
	b.t.Helper()
	b.check(os.MkdirAll(filepath.Dir(b.path(c)), 0o755))
	f, err := os.OpenFile(b.path(c), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	b.check(err)
	defer f.Close()
	for _, l := range lines {
		_, err := f.WriteString(stamp + "stdout F " + l + "\n")
		b.check(err)
	}
}

// round is one, a second later.
func (b *bench) round() {
	b.t.Helper()
	b.now = b.now.Add(time.Second)
	b.check(b.f.round(b.now))
}

// hear is a round after lines were written.
func (b *bench) hear(c Container, lines ...string) {
	b.t.Helper()
	b.write(c, lines...)
	b.round()
}

// following is a bench that has begun to follow a container, whose log is empty.
func following(t *testing.T) (*bench, Container) {
	t.Helper()
	c := web("app")
	b := newBench(t, c)
	b.hear(c)
	return b, c
}

func (b *bench) log(c Container) health.Log {
	b.t.Helper()
	l, ok := b.f.Log(c.key(), b.now)
	if !ok {
		b.t.Fatalf("%s is not followed", c.Name)
	}
	return l
}

func (b *bench) matches(c Container, want uint64) {
	b.t.Helper()
	if l := b.log(c); l.Matches != want || l.Problem != "" || l.Skipped != 0 {
		b.t.Fatalf("%+v, want %d matches", l, want)
	}
}

func TestLinesAreCountedFromNowOn(t *testing.T) {
	c := web("app")
	b := newBench(t, c)
	b.hear(c, "timeout of long ago", "timeout too")
	b.matches(c, 0)
	b.hear(c, "a timeout", "fine", "another timeout")
	b.matches(c, 2)
	if l := b.log(c); l.PerMinute != 2 || !l.Last.Equal(b.now) {
		t.Errorf("%+v at %v", l, b.now)
	}
	b.now = b.now.Add(time.Minute)
	b.round()
	if l := b.log(c); l.PerMinute != 0 || l.Matches != 2 {
		t.Errorf("after a minute: %+v", l)
	}
	b.containers = nil
	b.round()
	if _, ok := b.f.Log(c.key(), b.now); ok {
		t.Error("one that is gone is still followed")
	}
}

// An entry that was half written when reading began is no entry of its own, whatever its rest looks like.
func TestReadingBeginsWithAWholeEntry(t *testing.T) {
	c := web("app")
	b := newBench(t, c)
	b.write(c, "begun")
	info, err := os.Stat(b.path(c))
	b.check(err)
	b.check(os.Truncate(b.path(c), info.Size()-1)) // its newline is missing
	b.round()
	b.hear(c, "timeout in the same entry", "timeout in the next")
	b.matches(c, 1)
}

// What a container wrote while the agent was about to see it counts.
func TestYoungContainerIsFollowedFromItsBeginning(t *testing.T) {
	c := web("app")
	c.Started = t0.Add(-time.Second)
	b := newBench(t, c)
	b.hear(c, "timeout at once")
	b.matches(c, 1)
}

func TestRotation(t *testing.T) {
	b, c := following(t)
	// As kubelet does it: the file gets another name, is written to a little longer, and then
	// the runtime opens another.
	b.write(c, "timeout 1")
	rotated := b.path(c) + ".20260102-030406"
	b.check(os.Rename(b.path(c), rotated))
	b.round()
	b.matches(c, 1)
	f, err := os.OpenFile(rotated, os.O_APPEND|os.O_WRONLY, 0)
	b.check(err)
	_, err = f.WriteString(stamp + "stdout F timeout 2\n" + stamp + "stdout P torn by the rota")
	b.check(err)
	b.check(f.Close())
	b.hear(c, "timeout 3")
	b.matches(c, 3)
	b.hear(c, "timeout 4")
	b.matches(c, 4)
}

func TestTruncation(t *testing.T) {
	c := web("app")
	b := newBench(t, c)
	b.hear(c, strings.Repeat("x", 500))
	b.check(os.Truncate(b.path(c), 0))
	b.hear(c, "timeout")
	b.matches(c, 1)
}

// The last words before a crash count, and so does all of what comes after it.
func TestRestart(t *testing.T) {
	b, c := following(t)
	b.write(c, "fatal: timeout")
	b.containers[0].Instance, b.containers[0].Started = 1, time.Time{} // crashed, waits
	b.round()
	b.matches(c, 1)
	again := b.containers[0]
	b.hear(again, "timeout again")
	b.matches(c, 2)
}

func TestContainerThatNeverRanHasNoProblem(t *testing.T) {
	c := web("app")
	c.Started = time.Time{}
	b := newBench(t, c)
	b.check(os.MkdirAll(filepath.Join(b.root, Dir), 0o755))
	b.round()
	b.matches(c, 0)
	b.containers[0].Started = b.now
	b.round()
	if l := b.log(c); !strings.Contains(l.Problem, "shop_web_u1/app/0.log") {
		t.Errorf("it runs without a log: %+v", l)
	}
	b.hear(c, "timeout")
	b.matches(c, 1)
}

func TestAnotherPatternCountsAnew(t *testing.T) {
	b, c := following(t)
	b.hear(c, "timeout")
	b.matches(c, 1)
	b.containers[0].Pattern = regexp.MustCompile("refused")
	b.round()
	b.hear(c, "timeout", "refused", "refused")
	b.matches(c, 2)
}

// Whoever may write into the directories of logs cannot have the agent read what is elsewhere, nor
// have it wait.
func TestNothingElseIsRead(t *testing.T) {
	secret := []byte(stamp + "stdout F timeout\n")
	for name, place := range map[string]func(b *bench, path, outside string) error{
		"a link out": func(_ *bench, path, outside string) error { return os.Symlink(outside, path) },
		"a relative link out": func(_ *bench, path, outside string) error {
			return os.Symlink(strings.Repeat("../", 20)+outside, path)
		},
		"a link to another log": func(b *bench, path, _ string) error {
			other := web("other")
			b.write(other, "timeout")
			return os.Symlink("../other/0.log", path)
		},
		"a directory that is a link": func(_ *bench, path, outside string) error {
			if err := os.Remove(filepath.Dir(path)); err != nil {
				return err
			}
			return os.Symlink(filepath.Dir(outside), filepath.Dir(path))
		},
		"a second name of a file": func(_ *bench, path, outside string) error { return os.Link(outside, path) },
		"a pipe":                  func(_ *bench, path, _ string) error { return unix.Mkfifo(path, 0o600) },
		"a directory":             func(_ *bench, path, _ string) error { return os.Mkdir(path, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			c := web("app")
			c.Started = t0
			b := newBench(t, c)
			outside := filepath.Join(b.root, "0.log")
			b.check(os.WriteFile(outside, secret, 0o600))
			b.check(os.MkdirAll(filepath.Dir(b.path(c)), 0o755))
			b.check(place(b, b.path(c), outside))
			b.round()
			if l := b.log(c); l.Matches != 0 || l.Problem == "" {
				t.Fatalf("%+v", l)
			}
			// Its own file is read again as soon as it is there.
			b.check(os.RemoveAll(filepath.Dir(b.path(c))))
			b.hear(c, "timeout", "timeout")
			b.matches(c, 2)
		})
	}
}

// The node's own links above the directory are meant in the node's root.
func TestLogsMayLieElsewhereOnTheNode(t *testing.T) {
	c := web("app")
	b := newBench(t, c)
	b.check(os.MkdirAll(filepath.Join(b.root, "data/pods"), 0o755))
	b.check(os.MkdirAll(filepath.Join(b.root, "var/log"), 0o755))
	b.check(os.Symlink("/data/pods", filepath.Join(b.root, Dir)))
	at := filepath.Join(b.root, "data/pods", c.path())
	b.check(os.MkdirAll(filepath.Dir(at), 0o755))
	b.check(os.WriteFile(at, nil, 0o600))
	b.round()
	b.check(os.WriteFile(at, []byte(stamp+"stdout F timeout\n"), 0o600))
	b.round()
	b.matches(c, 1)
}

func TestWithoutDirectoryAllHaveTheProblem(t *testing.T) {
	c := web("app")
	b := newBench(t, c)
	if err := b.f.round(b.now); err == nil || !strings.Contains(err.Error(), Dir) {
		t.Errorf("error %v", err)
	}
	if l := b.log(c); !strings.Contains(l.Problem, Dir) {
		t.Errorf("%+v", l)
	}
}

// A flood takes no more CPU time than its share, what was not read is counted, and afterwards
// lines are whole again.
func TestFlood(t *testing.T) {
	b, c := following(t)
	line := "timeout " + strings.Repeat("x", 100)
	entry := len(stamp) + len("stdout F ") + len(line) + 1
	lines := make([]string, 2000) // 290 KB, 71 pieces
	for i := range lines {
		lines[i] = line
	}
	b.write(c, lines...)
	b.perLook = time.Millisecond // a share of 20 ms is 20 pieces at most
	before := b.cpu
	b.round()
	l := b.log(c)
	if most := before + 25*time.Millisecond; b.cpu > most {
		t.Errorf("%v of CPU time were used, %v by then at most", b.cpu, most)
	}
	// Whole lines of the pieces that were read.
	read := len(lines)*entry - int(l.Skipped)
	if read%pieceSize != 0 || read < 15*pieceSize || read > 20*pieceSize {
		t.Errorf("%d bytes were read, %d skipped", read, l.Skipped)
	}
	if want := read / entry; int(l.Matches) != want || l.PerMinute != want {
		t.Errorf("%+v, want %d matches", l, want)
	}
	b.perLook = 0
	b.hear(c, "timeout", "fine")
	if after := b.log(c); after.Matches != l.Matches+1 || after.Skipped != l.Skipped {
		t.Errorf("before %+v, after %+v", l, after)
	}
}

func TestFloodOfBytesThatCostNothing(t *testing.T) {
	b, c := following(t)
	b.hear(c, strings.Repeat("x", 2*maxRead))
	if l := b.log(c); int(l.Skipped) < maxRead || int(l.Skipped) > maxRead+pieceSize {
		t.Errorf("%+v: want all but %d bytes skipped", l, maxRead)
	}
}

// One that floods does not keep the others from being read, and whoever took too much in one round
// pays in the next.
func TestFloodKeepsNobodyElseBack(t *testing.T) {
	flood, quiet := web("flood"), web("quiet")
	b := newBench(t, flood, quiet)
	for _, c := range b.containers {
		b.write(c)
	}
	b.round()
	b.perLook = time.Millisecond
	for range 4 { // each is first in turn
		b.write(flood, strings.Repeat("x", 40*pieceSize))
		b.hear(quiet, "timeout")
	}
	b.matches(quiet, 4)
	if l := b.log(flood); l.Skipped == 0 {
		t.Errorf("%+v", l)
	}
	b.perLook = 30 * time.Millisecond // one look takes more than a round's share
	b.hear(flood, "timeout")
	if b.f.left >= 0 {
		t.Fatalf("%v are left", b.f.left)
	}
	owed := b.f.left
	b.perLook = 0
	b.hear(flood, "timeout")
	if share := time.Duration(CPUShare * float64(interval)); b.f.left != owed+share {
		t.Errorf("%v are left of %v more than %v", b.f.left, share, owed)
	}
}

func TestMetrics(t *testing.T) {
	b, c := following(t)
	b.hear(c, "timeout")
	want := fmt.Sprintf(`
# HELP drover_container_log_matches_total %s
# TYPE drover_container_log_matches_total counter
drover_container_log_matches_total{container="app",namespace="shop",pod="web"} 1
`, "Lines of the container's log that matched its pod's annotation drover.dev/log-pattern, since the agent follows it.")
	if err := testutil.CollectAndCompare(b.f, strings.NewReader(want), "drover_container_log_matches_total"); err != nil {
		t.Error(err)
	}
	if n := testutil.CollectAndCount(b.f); n != 3 {
		t.Errorf("%d series, want 3", n)
	}
	b.containers = nil
	b.round()
	if n := testutil.CollectAndCount(b.f); n != 1 {
		t.Errorf("%d series of nobody, want 1", n)
	}
}
