package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/drover-project/drover/internal/location"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

func TestWhereByOneAgent(t *testing.T) {
	age := 1200 * time.Millisecond
	web := location.Place{Pod: model.PodID{Namespace: "shop", Name: "web-dm1", UID: "u1"}, Node: "n2", Phase: model.Normal, Age: &age,
		Moved: &model.Location{From: "n1", Node: "n2", Epoch: 3}}
	twin := location.Place{Pod: model.PodID{Namespace: "shop", Name: "twin", UID: "u2"}, Node: "n3"}
	other := twin
	other.Pod.UID = "u3"
	mux := http.NewServeMux()
	answer := func(pod string, places ...location.Place) {
		mux.HandleFunc("GET /v1/where/shop/"+pod, func(w http.ResponseWriter, _ *http.Request) {
			json.NewEncoder(w).Encode(location.Answer{Self: "n1", Places: places})
		})
	}
	answer("web", web)
	answer("twin", twin, other)
	answer("u2", twin)
	mux.HandleFunc("GET /v1/where/shop/nobody", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `no pod "nobody" in namespace "shop" is known on node n1`, http.StatusNotFound)
	})
	s := httptest.NewServer(mux)
	defer s.Close()
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	for name, c := range map[string]struct {
		agent, pod string
		out        []string
		fails      string
	}{
		"moved":       {s.URL, "web", []string{"shop/web-dm1 is on n2", "from n1, epoch 3", "the agent on n1 holds n2 for normal, and heard it last 1.2s ago"}, ""},
		"unheard":     {s.URL + "/", "u2", []string{"shop/twin is on n3", "has heard nothing of n3 itself"}, ""},
		"ambiguous":   {s.URL, "twin", []string{"u2", "u3"}, `"twin" in namespace "shop" is 2 pods: name one by its UID`},
		"unknown":     {s.URL, "nobody", nil, `no pod "nobody" in namespace "shop" is known on node n1`},
		"no agent":    {"http://" + nobody.Addr().String(), "web", nil, "no agent answers at"},
		"no URL":      {"n1:7950", "web", nil, "is no URL of an agent"},
		"with a path": {s.URL + "/v1/view", "web", nil, "is no URL of an agent"},
	} {
		var out bytes.Buffer
		tool := &tool{IOStreams: genericclioptions.IOStreams{Out: &out}}
		err := tool.whereBy(context.Background(), c.agent, "shop", c.pod)
		if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s: error %v, want …%s…", name, err, c.fails)
		}
		for _, want := range c.out {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s lacks %q:\n%s", name, want, out.String())
			}
		}
	}
}

// What an agent knows comes through as it is: drover-simulate reads it.
func TestStatusAsJSON(t *testing.T) {
	want := view.Snapshot{At: t0, Nodes: map[model.NodeID]view.Node{"n1": {Alive: true, Received: t0.Add(-time.Second), State: model.NodeState{
		Load:      model.Load{Used: model.Resources{CPU: 1.5, Memory: model.GiB}, At: t0},
		PodRoutes: map[model.NodeID]model.RouteTime{"n2": {RTT: time.Millisecond, Samples: 9, Stamp: model.StampKernel, At: t0}},
	}}}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(want) }))
	defer s.Close()
	var out bytes.Buffer
	status := func(args ...string) error {
		c := (&tool{IOStreams: genericclioptions.IOStreams{Out: &out}}).statusCommand()
		c.SetArgs(append(args, "--agent", s.URL))
		c.SetOut(io.Discard)
		c.SetErr(io.Discard)
		return c.Execute()
	}
	if err := status("-o", "json"); err != nil {
		t.Fatal(err)
	}
	var got view.Snapshot
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the agent's (-), printed (+):\n%s", diff)
	}
	if err := status("-o", "yaml"); !errors.Is(err, errUsage) {
		t.Errorf("output yaml: %v", err)
	}
}

func TestHintWhileTheServerIsAway(t *testing.T) {
	_, refused := net.DialTimeout("tcp", "127.0.0.1:1", time.Second)
	if refused == nil {
		t.Fatal("something listens on port 1")
	}
	if err := awayHint(fmt.Errorf("list agents: %w", refused)); !strings.Contains(err.Error(), "--agent http://127.0.0.1:7950") || !errors.Is(err, refused) {
		t.Errorf("%v does not say what to do", err)
	}
	if err := awayHint(errors.New("there is no pod")); strings.Contains(err.Error(), "--agent") {
		t.Errorf("%v", err)
	}
	if awayHint(nil) != nil {
		t.Error("an error of nothing")
	}
}
