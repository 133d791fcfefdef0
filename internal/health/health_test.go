package health

import (
	"strings"
	"testing"
	"time"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)

func TestSinceTellsWhatBeganMeanwhile(t *testing.T) {
	before, after, second := t0.Add(-time.Minute), t0.Add(time.Second), t0.Truncate(time.Second)
	for name, c := range map[string]struct {
		signs Signs
		want  string
	}{
		"nothing":                      {Signs{Restarts: 3}, ""},
		"restarted before":             {Signs{LastExit: &Exit{Code: 1, At: before}}, ""},
		"killed in the same second":    {Signs{LastExit: &Exit{Code: 137, Reason: "OOMKilled", At: second}}, "it ended with 137 OOMKilled"},
		"ended well":                   {Signs{LastExit: &Exit{Reason: "Completed", At: after}}, ""},
		"ended by a signal":            {Signs{LastExit: &Exit{Signal: 9, At: after}}, "it ended with 0 (signal 9)"},
		"unready before":               {Signs{Probe: &Probe{Readiness, before}}, ""},
		"unready since":                {Signs{Probe: &Probe{Readiness, after}}, "its readiness probe fails"},
		"a log without a match":        {Signs{Log: &Log{}}, ""},
		"matched before":               {Signs{Log: &Log{Last: t0.Add(-1), PerMinute: 9}}, ""},
		"matched since, probe as well": {Signs{Probe: &Probe{Startup, after}, Log: &Log{Last: t0, PerMinute: 9}}, "its startup probe fails, 9 lines of its log a minute match its pattern"},
	} {
		if got := c.signs.Since(t0); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestAnyIsFalseForTheHealthyAlone(t *testing.T) {
	if (Signs{}).Any() {
		t.Error("the zero value shows something")
	}
	for _, s := range []Signs{{Restarts: 1}, {LastExit: &Exit{}}, {Waiting: "x"}, {Probe: &Probe{}}, {Log: &Log{}}} {
		if !s.Any() {
			t.Errorf("%+v shows nothing", s)
		}
	}
}

func TestPatterns(t *testing.T) {
	for pattern, want := range map[string]string{
		"timeout|deadline exceeded": "",
		"(?i)time(d )?out":          "",
		"":                          "empty",
		"(":                         "missing closing )",
		`(a)\1`:                     "invalid escape sequence", // RE2 has no back references
		strings.Repeat("a", 257):    "has 257 bytes: at most 256",
		strings.Repeat("a", 190):    "",
		"(x{10}){100}":              "steps for every byte",
		"((a{30}){30}){30}":         "invalid repeat count",
	} {
		re, err := Compile(pattern)
		switch {
		case want == "" && (err != nil || re.String() != pattern):
			t.Errorf("%q: %v", pattern, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: error %v, want %q", pattern, err, want)
		}
	}
}

func TestRateForgetsAfterAMinute(t *testing.T) {
	var r Rate
	r.Add(t0, 2)
	r.Add(t0.Add(time.Second), 0)
	r.Add(t0.Add(30*time.Second), 5)
	for after, want := range map[time.Duration]int{30 * time.Second: 7, 59 * time.Second: 7} {
		if got := r.PerMinute(t0.Add(after)); got != want {
			t.Errorf("after %v: %d, want %d", after, got, want)
		}
	}
	if got := r.PerMinute(t0.Add(time.Minute)); got != 5 {
		t.Errorf("after a minute: %d, want 5", got)
	}
	if got := r.PerMinute(t0.Add(90 * time.Second)); got != 0 || len(r.events) != 0 {
		t.Errorf("at the end: %d, %d kept", got, len(r.events))
	}
}
