package v1alpha1

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCut(t *testing.T) {
	fits := strings.Repeat("é", MaxMessage/2)
	for name, c := range map[string]struct{ message, want string }{
		"empty":          {"", ""},
		"fits":           {fits, fits},
		"too long":       {strings.Repeat("a", MaxMessage+1), strings.Repeat("a", MaxMessage-len("…")) + "…"},
		"cut in a rune":  {"a" + fits + "é", "a" + strings.Repeat("é", (MaxMessage-1-len("…"))/2) + "…"},
		"no text at all": {strings.Repeat("\x80", MaxMessage+1), "…"},
	} {
		got := Cut(c.message)
		if got != c.want || len(got) > MaxMessage || Cut(got) != got {
			t.Errorf("%s: %d bytes that end in %q, want %d that end in %q", name, len(got), got[max(0, len(got)-8):], len(c.want), c.want[max(0, len(c.want)-8):])
		}
		if utf8.ValidString(c.message) && !utf8.ValidString(got) {
			t.Errorf("%s: a character is cut in two", name)
		}
	}
}

func TestFullTimelineStays(t *testing.T) {
	s := &PodMigrationStatus{}
	for range MaxSteps + 1 {
		s.AddStep(TimelineEntry{Step: "Frozen", Message: strings.Repeat("a", MaxMessage+1)})
	}
	if len(s.Timeline) != MaxSteps || len(s.Timeline[0].Message) != MaxMessage {
		t.Errorf("%d steps, the first with %d bytes", len(s.Timeline), len(s.Timeline[0].Message))
	}
}
