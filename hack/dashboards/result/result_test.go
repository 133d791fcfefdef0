package result

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/hack/dashboards"
)

// serve answers every question with the same.
func serve(t *testing.T, status int, answer string) (p Prometheus, asked *http.Request) {
	t.Helper()
	asked = &http.Request{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = *r
		w.WriteHeader(status)
		fmt.Fprint(w, answer)
	}))
	t.Cleanup(s.Close)
	return Prometheus{URL: s.URL, From: time.Unix(1000, 0), To: time.Unix(1120, 0), Step: 5 * time.Second, Path: "pod"}, asked
}

func TestPanel(t *testing.T) {
	p, asked := serve(t, http.StatusOK, `{"status":"success","data":{"result":[
		{"metric":{"node":"n1","peer":"n2"},"values":[[1005,"0.25"],[1010,"NaN"],[1015,"+Inf"],[1020.5,"2"]]},
		{"metric":{"node":"n2","peer":"n1"},"values":[[1005,"NaN"]]}]}}`)
	got, err := p.Panel(t.Context(), dashboards.Panel{ID: 7, Queries: []dashboards.Query{{Expr: `rate(x{path="$path",node=~"$node"}[$__rate_interval]) / y{namespace=~"$namespace"}[$__range]`, Legend: "{{node}} to {{ peer }}"}}})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(Panel{ID: 7, Series: []Series{{Name: "n1 to n2", Points: [][2]float64{{5, .25}, {20.5, 2}}}}}, got); d != "" {
		t.Error(d)
	}
	q := asked.URL.Query()
	if want := `rate(x{path="pod",node=~".*"}[1m0s]) / y{namespace=~".+"}[2m0s]`; q.Get("query") != want || q.Get("start") != "1000.000" || q.Get("step") != "5" {
		t.Errorf("asked %v, want the query %s", q, want)
	}
}

// A panel without a finite value has no data; the error names the query that had none.
func TestPanelWithoutData(t *testing.T) {
	for name, answer := range map[string]string{
		"none": `{"status":"success","data":{"result":[]}}`,
		"NaN":  `{"status":"success","data":{"result":[{"metric":{},"value":[1120,"NaN"]}]}}`,
	} {
		p, _ := serve(t, http.StatusOK, answer)
		_, err := p.Panel(t.Context(), dashboards.Panel{Kind: dashboards.Table, Queries: []dashboards.Query{{Expr: "absent_metric"}}})
		if err == nil || !strings.Contains(err.Error(), "absent_metric") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	p, _ := serve(t, http.StatusBadRequest, `{"status":"error","error":"parse error: it is none"}`)
	if _, err := p.Ask(t.Context(), "x(", true); err == nil || !strings.Contains(err.Error(), "it is none") {
		t.Errorf("error %v, want Prometheus' own", err)
	}
}

// Of many lines those stay that rise highest; buckets are in the order of their limits.
func TestKeep(t *testing.T) {
	var p Panel
	for i := range 12 {
		p.Series = append(p.Series, Series{Name: fmt.Sprintf("s%02d", i), Points: [][2]float64{{0, float64(i)}, {5, 1.23456}}})
	}
	p = p.Keep(dashboards.Lines)
	if len(p.Series) != 10 || p.More != 2 || p.Series[9].Name != "s11" || p.Series[0].Points[1][1] != 1.235 {
		t.Errorf("%+v", p)
	}
	b := Panel{Series: []Series{{Name: "+Inf"}, {Name: "10"}, {Name: "2.5"}}}.Keep(dashboards.Buckets)
	if b.Series[0].Name != "2.5" || b.Series[2].Name != "+Inf" {
		t.Errorf("%+v", b)
	}
}

func TestJSON(t *testing.T) {
	want := Board{Name: "b", Seconds: 60, Step: 5, Panels: []Panel{
		{ID: 1, Series: []Series{{Name: "a", Points: [][2]float64{{0, 1}}}}}, {ID: 2, More: 3, Series: []Series{{Name: "b", Query: 1, Points: [][2]float64{{5, 2}}}}}}}
	b, err := want.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var got Board
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatalf("%v:\n%s", err, b)
	}
	if d := cmp.Diff(want, got); d != "" || strings.Count(string(b), "\n") != 4 {
		t.Errorf("%s\n%s", d, b)
	}
}
