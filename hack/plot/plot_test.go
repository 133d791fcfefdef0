package plot

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

func TestAxesHoldAllValues(t *testing.T) {
	for _, values := range [][]float64{{100, 20000}, {0.33, 4.1}, {1, 1}, {2.5e3, 9e5}} {
		from, to := span(values)
		if from > values[0] || to < values[1] || from == to && values[0] != from {
			t.Errorf("%v: from %v to %v", values, from, to)
		}
	}
}

func TestPart(t *testing.T) {
	for _, tt := range []struct {
		a       Axis
		v, want float64
	}{
		{Axis{From: 10, To: 20}, 15, .5},
		{Axis{From: 1, To: 100, Log: true}, 10, .5},
		{Log("", 1, 100), 100, 1},
	} {
		if got := tt.a.part(tt.v); math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("%v is at %v of %+v, want %v", tt.v, got, tt.a, tt.want)
		}
	}
}

// Of two lines of two points one is dashed; what is written is escaped.
func TestDraw(t *testing.T) {
	got := Draw([]Key{{Name: "a < b", Color: "#111111"}}, Panel{X: Log("n", 1, 100), Y: Axis{Name: "y", To: 1}, Lines: []Line{
		{Color: "#222222", Marks: true, Points: []Point{{X: 1, Y: 0}, {X: 100, Y: 1}}},
		{Color: "#333333", Points: []Point{{X: 1, Y: 1}, {X: 100, Y: 0, Hollow: true}}},
	}})
	for d := xml.NewDecoder(bytes.NewReader(got)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for what, want := range map[string]int{"stroke-dasharray": 1, "<circle": 2, "a &lt; b": 1,
		`<polyline points="56.0,328.0 386.0,58.0" fill="none" stroke="#222222"`: 1, "<polyline": 1} {
		if n := strings.Count(string(got), what); n != want {
			t.Errorf("%q is there %d times, want %d:\n%s", what, n, want, got)
		}
	}
}
