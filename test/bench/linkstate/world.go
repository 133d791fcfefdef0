package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// world is a truth: the round trip between any two nodes in milliseconds, and the zone that
// each node's label tells.
type world struct {
	name string
	rtt  [][]float64
	zone []string
}

// kind makes worlds of one kind.
type kind struct {
	name string
	make func(rng *rand.Rand, n int) world
}

// kinds are the worlds that are compared on.
func kinds(regions []region) []kind {
	return []kind{
		{"line", line},
		{"grid", grid},
		{"zones", func(rng *rand.Rand, n int) world { return zones(rng, n, 3, 0) }},
		{"racks", func(rng *rand.Rand, n int) world { return zones(rng, n, max(3, n/16), 0) }},
		{"violations", func(rng *rand.Rand, n int) world { return zones(rng, n, max(3, n/16), 0.3) }},
		{"internet", internet},
		{"aws", func(rng *rand.Rand, n int) world { return cloud(rng, n, regions) }},
	}
}

// fill makes a world of a distance that need not be symmetric in its arguments; each pair
// differs from it by up to 3%, for good: no two ways are quite alike.
func fill(rng *rand.Rand, n int, zone func(i int) string, distance func(i, j int) float64) world {
	w := world{rtt: make([][]float64, n), zone: make([]string, n)}
	for i := range n {
		w.rtt[i] = make([]float64, n)
		w.zone[i] = zone(i)
	}
	for i := range n {
		for j := range i {
			rtt := distance(i, j) * (0.97 + 0.06*rng.Float64())
			w.rtt[i][j], w.rtt[j][i] = rtt, rtt
		}
	}
	return w
}

// line has its nodes 0.1 ms apart, in three zones from left to right.
func line(rng *rand.Rand, n int) world {
	return fill(rng, n, func(i int) string { return fmt.Sprint(3 * i / n) }, func(i, j int) float64 {
		return 0.1 * math.Abs(float64(i-j))
	})
}

// grid has its nodes 0.5 ms apart in two directions, in bands of three zones.
func grid(rng *rand.Rand, n int) world {
	side := int(math.Ceil(math.Sqrt(float64(n))))
	return fill(rng, n, func(i int) string { return fmt.Sprint(3 * i / n) }, func(i, j int) float64 {
		return 0.5 * math.Hypot(float64(i/side-j/side), float64(i%side-j%side))
	})
}

// zones is a data centre or several: 0.2 to 0.4 ms inside a zone by the nodes' links to it,
// 0.5 to 5 ms between two by where they lie. A share of the ways between zones is led
// another way and is up to three times as long: there, one over a third zone is shorter.
func zones(rng *rand.Rand, n, count int, violations float64) world {
	x, y := places(rng, count, 3.2)
	access := heights(rng, n, 0.1, 0.2)
	detour := map[[2]int]float64{}
	for a := range count {
		for b := range a {
			detour[[2]int{a, b}] = 1
			if rng.Float64() < violations {
				detour[[2]int{a, b}] = 1 + 2*rng.Float64()
			}
		}
	}
	return fill(rng, n, func(i int) string { return fmt.Sprint(i % count) }, func(i, j int) float64 {
		a, b := max(i%count, j%count), min(i%count, j%count)
		if a == b {
			return access[i] + access[j]
		}
		return access[i] + access[j] + (0.5+math.Hypot(x[a]-x[b], y[a]-y[b]))*detour[[2]int{a, b}]
	})
}

// internet is nodes on a plane 100 ms wide, each behind an access link of 1 ms and more, 5 ms
// in the mean: what Vivaldi's heights stand for. No zone is known.
func internet(rng *rand.Rand, n int) world {
	x, y := places(rng, n, 100)
	access := make([]float64, n)
	for i := range access {
		access[i] = 1 + 4*rng.ExpFloat64()
	}
	return fill(rng, n, func(int) string { return "" }, func(i, j int) float64 {
		return access[i] + access[j] + math.Hypot(x[i]-x[j], y[i]-y[j])
	})
}

func places(rng *rand.Rand, n int, width float64) (x, y []float64) {
	for range n {
		x, y = append(x, width*rng.Float64()), append(y, width*rng.Float64())
	}
	return x, y
}

func heights(rng *rand.Rand, n int, least, most float64) []float64 {
	h := make([]float64, n)
	for i := range h {
		h[i] = least + (most-least)*rng.Float64()
	}
	return h
}

// region is one of AWS, with the one-way delay to each in milliseconds.
type region struct {
	name  string
	delay []float64
}

// cloud is nodes in three zones of each region: measured delays between regions, 0.5 to 1.5 ms
// between zones of one, as AWS gives for them.
func cloud(rng *rand.Rand, n int, regions []region) world {
	access := heights(rng, n, 0.05, 0.15)
	between := heights(rng, 3*len(regions), 0.5, 1.5)
	return fill(rng, n,
		func(i int) string { return fmt.Sprint(regions[i%len(regions)].name, "-", i/len(regions)%3) },
		func(i, j int) float64 {
			a, b := i%len(regions), j%len(regions)
			p, q := i/len(regions)%3, j/len(regions)%3
			switch {
			case a != b:
				return access[i] + access[j] + 2*regions[a].delay[b]
			case p != q:
				return access[i] + access[j] + between[3*a+3-p-q]
			}
			return access[i] + access[j]
		})
}

// matrixModule holds delays between AWS regions that the CometBFT authors measured
// (Apache-2.0). It is no dependency: only this file is read.
const (
	matrixModule = "github.com/cometbft/cometbft@v1.0.1"
	matrixSum    = "h1:JNVgbpL76sA4kXmBnyZ7iPjFAxi6HVp2l+rdT2RXVUs="
	matrixFile   = "test/e2e/pkg/files/aws-latencies.csv"
)

// fetchRegions reads the matrix from the module, which the go command downloads and verifies.
func fetchRegions() ([]region, error) {
	out, err := exec.Command("go", "mod", "download", "-json", matrixModule).Output()
	if err != nil {
		return nil, fmt.Errorf("download %s for its matrix of delays: %w: %s", matrixModule, err, out)
	}
	var module struct{ Dir, Sum string }
	if err := json.Unmarshal(out, &module); err != nil {
		return nil, fmt.Errorf("download %s: %w", matrixModule, err)
	}
	if module.Sum != matrixSum {
		return nil, fmt.Errorf("download %s: its sum is %q, want %q", matrixModule, module.Sum, matrixSum)
	}
	f, err := os.Open(filepath.Join(module.Dir, matrixFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	var regions []region
	for _, row := range rows[1:] {
		r := region{name: row[0]}
		for _, cell := range row[1:] {
			ms, err := strconv.ParseFloat(cell, 64)
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", f.Name(), err)
			}
			r.delay = append(r.delay, ms)
		}
		regions = append(regions, r)
	}
	return regions, nil
}
