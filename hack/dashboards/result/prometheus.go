package result

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/drover-project/drover/hack/dashboards"
)

// Prometheus is asked as Grafana would.
type Prometheus struct {
	// URL of its API without a path.
	URL string
	// From and To bound what is shown, Step is what lies between points.
	From, To time.Time
	Step     time.Duration
	// Path that the dashboard's variable of that name is set to.
	Path string
	// Namespace that its variable is set to; empty: all.
	Namespace string
}

// Expr replaces variables as Grafana would.
func (p Prometheus) Expr(expr string) string {
	namespace := p.Namespace
	if namespace == "" {
		namespace = ".+"
	}
	return strings.NewReplacer(
		"$__rate_interval", (4 * 15 * time.Second).String(), // four scrapes, by Grafana's default of 15 s
		"$__range", p.To.Sub(p.From).Round(time.Second).String(),
		"$node", ".*", "$namespace", namespace, "$path", p.Path,
	).Replace(expr)
}

// Panel asks for all of a panel's queries. One without any finite value is an error that
// names it.
func (p Prometheus) Panel(ctx context.Context, of dashboards.Panel) (Panel, error) {
	all := Panel{ID: of.ID}
	for i, q := range of.Queries {
		series, err := p.Ask(ctx, p.Expr(q.Expr), of.Instant())
		if err != nil {
			return all, err
		}
		if len(series) == 0 {
			return all, fmt.Errorf("no data: %s", p.Expr(q.Expr))
		}
		for _, s := range series {
			name := legend(q.Legend, s.Labels)
			if of.Kind == dashboards.Table {
				name = s.Labels["node"]
			}
			all.Series = append(all.Series, Series{Name: name, Query: i, Points: s.Points})
		}
	}
	return all, nil
}

// Labelled is a series with its labels.
type Labelled struct {
	Labels map[string]string
	Points [][2]float64
}

// Ask gives the finite values of an expression, over the range or at its end; no series without one.
func (p Prometheus) Ask(ctx context.Context, expr string, instant bool) ([]Labelled, error) {
	v, path := url.Values{"query": {expr}}, "/api/v1/query"
	at := func(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1e3, 'f', 3, 64) }
	if instant {
		v.Set("time", at(p.To))
	} else {
		path += "_range"
		v.Set("start", at(p.From))
		v.Set("end", at(p.To))
		v.Set("step", strconv.FormatFloat(p.Step.Seconds(), 'f', -1, 64))
	}
	var data struct {
		Result []struct {
			Metric map[string]string
			Value  sample
			Values []sample
		}
	}
	if err := p.Get(ctx, path+"?"+v.Encode(), &data); err != nil {
		return nil, fmt.Errorf("%s: %w", expr, err)
	}
	var all []Labelled
	for _, r := range data.Result {
		s := Labelled{Labels: r.Metric}
		if instant {
			r.Values = []sample{r.Value}
		}
		for _, x := range r.Values {
			if !math.IsNaN(x.value) && !math.IsInf(x.value, 0) {
				s.Points = append(s.Points, [2]float64{x.at - float64(p.From.UnixMilli())/1e3, x.value})
			}
		}
		if len(s.Points) > 0 {
			all = append(all, s)
		}
	}
	return all, nil
}

// Get gives what is at a path of the API.
func (p Prometheus) Get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: into}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return fmt.Errorf("prometheus: %s: %w", resp.Status, err)
	}
	if answer.Status != "success" {
		return fmt.Errorf("prometheus: %s: %s", resp.Status, answer.Error)
	}
	return nil
}

// sample is [seconds, "value"].
type sample struct{ at, value float64 }

func (s *sample) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &[]any{&s.at, &text}); err != nil {
		return err
	}
	var err error
	s.value, err = strconv.ParseFloat(text, 64)
	return err
}
