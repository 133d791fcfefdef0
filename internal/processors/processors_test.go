package processors

import (
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/thread"
)

func rest(t *testing.T) {
	t.Helper()
	if err := Rest(); err != nil {
		t.Fatal(err)
	}
	if got, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err != nil || got != int(slack) {
		t.Errorf("timers are up to %d ns late (%v), want %v", got, err, slack)
	}
	t.Cleanup(func() {
		if err := thread.Slack(50 * time.Microsecond); err != nil {
			t.Error(err)
		}
	})
}

func TestAllWhileSomebodyUsesThem(t *testing.T) {
	if old, is := os.LookupEnv("GOMAXPROCS"); is {
		os.Unsetenv("GOMAXPROCS")
		t.Cleanup(func() { os.Setenv("GOMAXPROCS", old) })
	}
	runtime.SetDefaultGOMAXPROCS()
	all := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { resting = false; runtime.SetDefaultGOMAXPROCS() })
	is := func(when string, want int) {
		t.Helper()
		if got := runtime.GOMAXPROCS(0); got != want {
			t.Errorf("%s: %d processors, want %d", when, got, want)
		}
	}
	early := Use()
	early()
	is("before Rest", all)
	rest(t)
	is("at rest", 1)
	one, two := Use(), Use()
	is("used by two", all)
	one()
	one()
	is("used by one, the other done twice", all)
	two()
	is("at rest again", 1)
}

func TestEnvironmentCounts(t *testing.T) {
	t.Setenv("GOMAXPROCS", "3")
	before := runtime.GOMAXPROCS(3)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	rest(t)
	Use()()
	if got := runtime.GOMAXPROCS(0); got != 3 {
		t.Errorf("%d processors, want the 3 of the environment", got)
	}
}
