package measure

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/pressure"
)

// Records the traces that internal/pressure is tested with, from real containers in this kernel:
//
//	go test ./nodeagent/measure -run TestRecordTraces -record "$PWD/internal/pressure/testdata" -timeout 30m
var record = flag.String("record", "", "directory to record traces of contention in; empty: none is recorded")

// scene is a node, and what its containers do for some seconds.
type scene struct {
	name, how string
	seconds   int
	nodeMiB   int // the node's memory; 0: the machine's
	play      func(*player)
}

// player puts containers into a pen.
type player struct {
	*pen
	names names
	files string // for what is read and written
}

// add makes a container with the weight of its pod, 1 to 128.
func (p *player) add(name string, weight int) Container {
	c := p.container(strconv.FormatInt(int64(10+len(p.names)), 16), 0)
	p.weigh(c.Pod, weight)
	p.names[c.ID] = name
	return c
}

// does starts n processes that run the script.
func (p *player) does(c Container, n int, script string) {
	for range n {
		p.run(c.Group, script, "FILES="+p.files, "SELF="+os.Args[0])
	}
}

// limitMemory gives a group a limit.
func (p *player) limitMemory(g Group, mib int) {
	p.t.Helper()
	name := "memory.max"
	if p.cgroups.v1 {
		name = "memory.limit_in_bytes"
	}
	p.set(g, "memory", name, strconv.Itoa(mib<<20))
}

// store makes a file for the containers that is in nobody's cache: whoever reads it is charged
// with what is kept of it.
func (p *player) store(name string, mib int) {
	p.t.Helper()
	f, err := os.Create(filepath.Join(p.files, name))
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	_, err = f.Write(make([]byte, mib<<20))
	if err := errors.Join(err, f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)); err != nil {
		p.t.Fatal(err)
	}
}

const (
	spin  = "while :; do :; done"
	ticks = "while :; do i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; sleep .1; done"
	// A burst of one second, then a pause.
	bursts = "while :; do timeout 1 sh -c 'while :; do :; done'; sleep %s; done"
	// Goes on about a file that is read again and again from the cache, or from the disk.
	cached = "while :; do cat $FILES/%s > /dev/null; done"
	direct = "while :; do dd if=$FILES/%s of=/dev/null bs=%s iflag=direct status=none; done"
	// The test's own binary, see TestWorkload.
	work = "DROVER_WORKLOAD=%s exec $SELF -test.run '^TestWorkload$'"
)

var scenes = []scene{
	{"quiet", "two containers that compute for some milliseconds ten times a second", 90, 0, func(p *player) {
		p.does(p.add("web", 64), 1, ticks)
		p.does(p.add("db", 64), 1, ticks)
	}},
	{"spikes", "one process beside a neighbour of 16 times its weight that computes for one second in seven", 45, 0, func(p *player) {
		p.does(p.add("web", 8), 1, spin)
		p.does(p.add("batch", 128), 1, fmt.Sprintf(bursts, "6"))
	}},
	{"flapping", "one process beside a neighbour of 16 times its weight that computes every other second", 45, 0, func(p *player) {
		p.does(p.add("web", 8), 1, spin)
		p.does(p.add("batch", 128), 1, fmt.Sprintf(bursts, "1"))
	}},
	{"busy", "four processes that compute, alone on the node", 30, 0, func(p *player) {
		p.does(p.add("web", 64), 4, spin)
	}},
	{"crowd", "64 processes that compute beside a container that computes for some milliseconds ten times a second", 30, 0, func(p *player) {
		p.does(p.add("web", 64), 64, spin)
		p.does(p.add("sidecar", 64), 1, ticks)
	}},
	{"throttled", "two processes that compute, with a quota of a fifth of a CPU, alone on the node", 30, 0, func(p *player) {
		c := p.add("web", 64)
		p.limit(c.Group)
		p.does(c, 2, spin)
	}},
	{"throttled-beside", "two processes that compute, with a quota of a fifth of a CPU, beside a neighbour of the same weight that takes what is left", 30, 0, func(p *player) {
		c := p.add("web", 64)
		p.limit(c.Group)
		p.does(c, 2, spin)
		p.does(p.add("batch", 64), 1, spin)
	}},
	{"aggressor", "one process beside a neighbour of 16 times its weight with four", 30, 0, func(p *player) {
		p.does(p.add("web", 8), 1, spin)
		p.does(p.add("batch", 128), 4, spin)
	}},
	{"leak", "a process that takes 4 MiB a second of a limit of 96 MiB, until it is killed", 45, 0, func(p *player) {
		c := p.add("web", 64)
		p.limitMemory(c.Group, 96)
		p.does(c, 1, fmt.Sprintf(work, "leak"))
	}},
	{"thrash", "a file of 128 MiB read again and again within a limit of 64 MiB, alone on the node", 45, 0, func(p *player) {
		c := p.add("web", 64)
		p.limitMemory(c.Group, 64)
		p.does(c, 1, fmt.Sprintf(cached, "big"))
	}},
	{"shortage", "a file of 96 MiB read again and again, and after some seconds a neighbour that takes 8 MiB a second of a node with 192 MiB, up to 176", 55, 192, func(p *player) {
		p.does(p.add("web", 64), 1, fmt.Sprintf(cached, "small"))
		p.does(p.add("batch", 64), 1, "sleep 5; "+fmt.Sprintf(work, "fill"))
	}},
	{"io-alone", "blocks of 64 KiB written and synced, one after the other, alone on the node", 30, 0, func(p *player) {
		p.does(p.add("web", 64), 2, "while :; do dd if=/dev/zero of=$FILES/own.$$ bs=64k count=16 oflag=sync conv=notrunc status=none; done")
	}},
	{"io-beside", "reads of 4 KiB past the cache, beside a neighbour with four processes that read 1 MiB each past it", 45, 0, func(p *player) {
		p.does(p.add("web", 64), 1, fmt.Sprintf(direct, "small", "4k"))
		p.does(p.add("batch", 64), 4, fmt.Sprintf(direct, "big", "1M"))
	}},
}

func TestRecordTraces(t *testing.T) {
	if *record == "" {
		return // it is a tool, not a test
	}
	for _, s := range scenes {
		t.Run(s.name, func(t *testing.T) { s.record(t, filepath.Join(*record, s.name+".jsonl")) })
	}
}

func (s scene) record(t *testing.T, file string) {
	p := &player{pen: newPen(t, "memory", "blkio", "unified"), names: names{}, files: t.TempDir()}
	p.store("small", 96)
	p.store("big", 128)
	if s.nodeMiB > 0 {
		p.limitMemory(p.root, s.nodeMiB)
	}
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	var uname unix.Utsname
	if err := unix.Uname(&uname); err != nil {
		t.Fatal(err)
	}
	cgroups := "v2"
	if p.cgroups.v1 {
		cgroups = "v1"
		if _, err := os.Stat(filepath.Join(p.cgroups.root, "unified")); err == nil {
			cgroups = "hybrid"
		}
	}
	release, _, _ := strings.Cut(unix.ByteSliceToString(uname.Release[:]), "-")
	write(t, out, map[string]any{"how": s.how, "kernel": release, "cgroups": cgroups})

	s.play(p)
	meter, err := AttachWaitMeter("", slog.Default())(p.cgroups.Hierarchy())
	if err != nil {
		t.Fatal(err)
	}
	defer meter.Close()
	c := NewContention(ContentionConfig{
		Cgroups: p.cgroups, Kubepods: p.kubepods(), Proc: "/proc", Interval: time.Second,
		Thresholds: pressure.Default(), Names: p.names, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	c.triggered = true
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	began := time.Now()
	for now := range tick.C {
		c.stallUntil = now.Add(time.Minute) // all of it, all the time
		if err := c.read(now, meter); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		line := map[string]pressure.Sample{}
		for _, w := range c.Snapshot().Containers {
			line[w.Container] = w.Sample
		}
		if len(line) > 0 {
			write(t, out, map[string]any{"at": now.Sub(began).Seconds(), "containers": line})
		}
		if now.Sub(began) > time.Duration(s.seconds)*time.Second {
			break
		}
	}
	for _, w := range c.Snapshot().Containers {
		t.Logf("%s: CPU %+v, evidence %+v", w.Container, w.States[model.OnCPU], w.Shares.Evidence)
	}
}

// write writes one line, with no more digits than matter.
func write(t *testing.T, out *os.File, v any) {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var plain any
	if err := json.Unmarshal(data, &plain); err != nil {
		t.Fatal(err)
	}
	if data, err = json.Marshal(short(plain)); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Write(append(data, '\n')); err != nil {
		t.Fatal(err)
	}
}

func short(v any) any {
	switch v := v.(type) {
	case float64:
		return math.Round(v*1e4) / 1e4
	case map[string]any:
		for k := range v {
			v[k] = short(v[k])
		}
	}
	return v
}

// TestWorkload is what a scene's process does; it is no test.
func TestWorkload(t *testing.T) {
	most := map[string]int{"leak": math.MaxInt, "fill": 176}[os.Getenv("DROVER_WORKLOAD")]
	pause := time.Second / 4
	if most < math.MaxInt {
		pause /= 2
	}
	tick := time.NewTicker(pause)
	defer tick.Stop()
	var held [][]byte
	for len(held) < most {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		held = append(held, b)
		<-tick.C
	}
	if most > 0 {
		select {}
	}
}
