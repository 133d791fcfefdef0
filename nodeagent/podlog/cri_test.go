package podlog

import (
	"slices"
	"strings"
	"testing"
)

const stamp = "2026-01-02T15:04:05.123456789Z "

func TestParseEntry(t *testing.T) {
	for raw, want := range map[string]entry{
		stamp + "stdout F text of it":             {stdout, false, []byte("text of it")},
		stamp + "stderr P part":                   {stderr, true, []byte("part")},
		stamp + "stdout F ":                       {stdout, false, []byte{}},
		stamp + "stdout F":                        {stdout, false, nil},
		stamp + "stdout F:later:tags text":        {stdout, false, []byte("text")},
		"2026-01-02T15:04:05+02:00 stderr F  two": {stderr, false, []byte(" two")},
	} {
		if got, err := parseEntry([]byte(raw)); err != nil || got.stream != want.stream || got.partial != want.partial || string(got.text) != string(want.text) {
			t.Errorf("%q: %+v, %v; want %+v", raw, got, err, want)
		}
	}
	for _, raw := range []string{
		"", " ", "text", stamp, stamp + "stdout", stamp + "stdin F text", stamp + "stdout X text", stamp + "stdout FP text",
		stamp + " stdout F text", "stdout F text", "root:x:0:0:root:/root:/bin/bash and more than that",
	} {
		if got, err := parseEntry([]byte(raw)); err == nil {
			t.Errorf("%q was read as %+v", raw, got)
		}
	}
}

func collect(l *lines, pieces ...string) []string {
	var got []string
	for _, p := range pieces {
		l.feed([]byte(p), func(line []byte) { got = append(got, string(line)) })
	}
	return got
}

func TestLinesArePutTogether(t *testing.T) {
	long := strings.Repeat("x", 3000)
	for name, c := range map[string]struct {
		pieces []string
		want   []string
	}{
		"whole":               {[]string{stamp + "stdout F one\n" + stamp + "stderr F two\n"}, []string{"one", "two"}},
		"torn":                {[]string{stamp[:7], stamp[7:] + "stdout F o", "ne\n" + stamp + "st", "dout F two\n"}, []string{"one", "two"}},
		"not yet ended":       {[]string{stamp + "stdout F one"}, nil},
		"in parts":            {[]string{stamp + "stdout P dead\n" + stamp + "stdout P line ex\n" + stamp + "stdout F ceeded\n"}, []string{"deadline exceeded"}},
		"parts of two":        {[]string{stamp + "stdout P a\n" + stamp + "stderr P 1\n" + stamp + "stdout F b\n" + stamp + "stderr F 2\n"}, []string{"ab", "12"}},
		"no entry between":    {[]string{"garbage\n" + stamp + "stdout F one\n\n"}, []string{"one"}},
		"longer than is kept": {[]string{stamp + "stdout P " + long + "\n" + stamp + "stdout F " + long + "\n" + stamp + "stdout F next\n"}, []string{strings.Repeat("x", maxLine), "next"}},
		"one long entry":      {[]string{stamp + "stdout F " + long, long, long + "\n" + stamp + "stdout F next\n"}, []string{strings.Repeat("x", maxLine), "next"}},
	} {
		got := collect(&lines{}, c.pieces...)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %.80q, want %.80q", name, got, c.want)
		}
	}
}

func TestAfterAJumpTheNextWholeLineCounts(t *testing.T) {
	var l lines
	collect(&l, stamp+"stdout P half of ", "a part\n"+stamp+"std")
	l.jump(true)
	if got := collect(&l, "rest of an entry\n"+stamp+"stdout F whole\n"); !slices.Equal(got, []string{"whole"}) {
		t.Errorf("%q", got)
	}
	collect(&l, stamp+"stdout P half\n")
	l.jump(false)
	if got := collect(&l, stamp+"stdout F whole\n"); !slices.Equal(got, []string{"whole"}) {
		t.Errorf("%q", got)
	}
}

// However a log is torn, the lines are those of the log in one piece, bounded, and what is kept is.
func FuzzLines(f *testing.F) {
	f.Add([]byte(stamp+"stdout P a\n"+stamp+"stderr F b\n"+stamp+"stdout F c\n"), uint8(3))
	f.Add([]byte("\n\n"+stamp+"stdout F \n"), uint8(1))
	f.Add([]byte(stamp+"stdout F "+strings.Repeat("x", 9000)+"\n"), uint8(255))
	f.Fuzz(func(t *testing.T, log []byte, size uint8) {
		var whole, torn lines
		want := collect(&whole, string(log))
		var pieces []string
		for p := range slices.Chunk(log, int(size)+1) {
			pieces = append(pieces, string(p))
		}
		got := collect(&torn, pieces...)
		if !slices.Equal(got, want) {
			t.Fatalf("torn %q, whole %q", got, want)
		}
		for _, line := range got {
			if len(line) > maxLine {
				t.Fatalf("a line of %d bytes", len(line))
			}
		}
		if cap(torn.entry) > 2*maxEntry || len(torn.entry) > maxEntry || len(torn.started[0]) > maxLine || len(torn.started[1]) > maxLine {
			t.Fatalf("%d, %d and %d bytes are kept", len(torn.entry), len(torn.started[0]), len(torn.started[1]))
		}
	})
}
