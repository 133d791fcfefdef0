package picture

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/hack/dashboards"
	"github.com/drover-project/drover/hack/dashboards/result"
)

// Every dashboard can be drawn, with one point or many, with and without values above 0, and is
// a picture whose text is escaped.
func TestDrawAll(t *testing.T) {
	for _, d := range dashboards.All() {
		for n, v := range map[int]float64{1: 0, 20: 1e-3} {
			b := result.Board{Name: d.Name, Seconds: 120}
			for _, p := range d.Panels {
				data := result.Panel{ID: p.ID}
				for i := range p.Queries {
					for s, name := range []string{"n1 to n2", "a <long> name of a series of which there is only one"} {
						if p.Kind == dashboards.Buckets {
							name = fmt.Sprint(s + 1)
						}
						var points [][2]float64
						for j := range n {
							points = append(points, [2]float64{float64(5 * j), v * float64(s+j)})
						}
						data.Series = append(data.Series, result.Series{Name: name, Query: i, Points: points})
					}
				}
				b.Panels = append(b.Panels, data)
			}
			got, err := Draw(d, b)
			if err != nil {
				t.Fatal(err)
			}
			for x := xml.NewDecoder(bytes.NewReader(got)); ; {
				if _, err := x.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatalf("%s: %v", d.Name, err)
				}
			}
			for _, bad := range []string{"NaN", "Inf", "%!", "-0.0"} {
				if i := strings.Index(string(got), bad); i >= 0 {
					t.Errorf("%s of %d points: %q in %s", d.Name, n, bad, got[max(0, i-80):i+20])
				}
			}
		}
	}
}

// A line is one path through all its points, and broken where some are missing.
func TestLinesAreJoined(t *testing.T) {
	var c canvas
	points := [][2]float64{{0, 1}, {5, 2}, {10, 1}, {40, 1}, {45, 2}}
	c.lines(dashboards.Panel{Unit: dashboards.Count}, result.Panel{Series: []result.Series{{Name: "a", Points: points}}}, 45, box{0, 0, 400, 200})
	path := regexp.MustCompile(` d="([^"]*)"`).FindStringSubmatch(c.String())
	if path == nil || strings.Count(path[1], "M") != 2 || strings.Count(path[1], "L") != 3 {
		t.Errorf("path %q, want two pieces of three and two points", path)
	}
}

func TestDrawNeedsData(t *testing.T) {
	d := dashboards.All()[0]
	if _, err := Draw(d, result.Board{}); err == nil || !strings.Contains(err.Error(), d.Panels[0].Title) {
		t.Errorf("error %v, want one that names the panel", err)
	}
}

func TestSteps(t *testing.T) {
	for _, tt := range []struct {
		u         dashboards.Unit
		low, high float64
		want      []float64
	}{
		{dashboards.Bytes, 0, 3000, []float64{0, 1024, 2048, 3072}},
		{dashboards.Count, 0, 1, []float64{0, .5, 1}}, {dashboards.Count, 0, 7, []float64{0, 2, 4, 6, 8}}, {dashboards.Count, -3, 5, []float64{-4, -2, 0, 2, 4, 6}}, {dashboards.Seconds, 0, 0.003, []float64{0, .001, .002, .003}},
	} {
		if d := cmp.Diff(tt.want, steps(tt.u, tt.low, tt.high), cmp.Comparer(func(a, b float64) bool { return a-b < 1e-9 && b-a < 1e-9 })); d != "" {
			t.Errorf("from %v to %v: %s", tt.low, tt.high, d)
		}
	}
}

func TestFormat(t *testing.T) {
	for want, of := range map[string]struct {
		u dashboards.Unit
		v float64
	}{
		"1.25 ms": {dashboards.Seconds, .00125}, "2 min": {dashboards.Seconds, 120}, "50 %": {dashboards.Share, .5}, "0": {dashboards.Bytes, 0},
		"1.5 MiB": {dashboards.Bytes, 1.5 * (1 << 20)}, "0.25/s": {dashboards.PerSecond, .25}, "3": {dashboards.Count, 3},
	} {
		if got := format(of.u, of.v); got != want {
			t.Errorf("%v %s is %q, want %q", of.v, of.u, got, want)
		}
	}
}
