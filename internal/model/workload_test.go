package model

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestWorkloadTravelsAsText(t *testing.T) {
	in := map[Workload]Workload{{"shop", "Deployment", "web"}: {"ns", "Pod", "a.b-c.9"}}
	raw, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"shop/Deployment/web":"ns/Pod/a.b-c.9"}`; string(raw) != want {
		t.Errorf("%s, want %s", raw, want)
	}
	var back map[Workload]Workload
	if err := json.Unmarshal(raw, &back); err != nil || len(back) != 1 {
		t.Fatal(back, err)
	}
	for k, v := range back {
		if in[k] != v {
			t.Errorf("%v: %v came back", k, v)
		}
	}
}

// Whatever a node says is shown to people.
func TestOnlyNamesMakeAWorkload(t *testing.T) {
	for _, s := range []string{"", "a/b", "a/b/c/d", "//", "a//c", "/b/c", "a/b/", "a/b/c\x1b[2J", "a/b/c d", "a/b/ü", "a/b/c\n", "a/b/" + strings.Repeat("x", 254)} {
		var w Workload
		if err := w.UnmarshalText([]byte(s)); err == nil || w != (Workload{}) || strings.ContainsAny(err.Error(), "\x1b\n") || len(err.Error()) > 500 {
			t.Errorf("%q makes %v, with error %v", s, w, err)
		}
	}
	var w Workload
	if err := w.UnmarshalText([]byte("a/b/" + strings.Repeat("x", 253))); err != nil {
		t.Error(err)
	}
}
