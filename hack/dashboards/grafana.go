package dashboards

import (
	"bytes"
	"encoding/json"
	"fmt"
)

type object = map[string]any

var source = object{"type": "prometheus", "uid": "${datasource}"}

// JSON is the dashboard as Grafana's provisioning and its import take it. It names no data
// source: one is chosen by a variable.
func (d Dashboard) JSON() ([]byte, error) {
	var panels []object
	x, y, tallest := 0, 0, 0
	for _, p := range d.Panels {
		w, h := p.Size()
		if x+w > 24 {
			x, y, tallest = 0, y+tallest, 0
		}
		panels = append(panels, p.object(object{"x": x, "y": y, "w": w, "h": h}))
		x, tallest = x+w, max(tallest, h)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	err := e.Encode(object{
		"uid": "drover-" + d.Name, "title": "Drover / " + d.Title, "description": d.Description, "tags": []string{"drover"},
		"schemaVersion": 39, "version": 1, "editable": true, "graphTooltip": 1, "refresh": "30s", "timezone": "",
		"time": object{"from": "now-1h", "to": "now"},
		"links": []object{{"type": "dashboards", "title": "Drover", "tags": []string{"drover"}, "icon": "external link", "tooltip": "",
			"asDropdown": true, "keepTime": true, "includeVars": true, "targetBlank": false}},
		"templating": object{"list": d.variables()}, "panels": panels, "annotations": object{"list": []object{}},
	})
	return b.Bytes(), err
}

// NamespacesQuery gives the namespaces of the pods that agents tell of; Grafana takes them by a
// regular expression, since label_values cannot see how they are called.
var NamespacesQuery = "count by (namespace) (" + everywhere(ofPods("drover_container_restarts_total{POD}")) + ")"

// NodesMetric has a label node for each node with an agent.
const NodesMetric = "drover_node_cpu_used_cores"

func (d Dashboard) variables() []object {
	query := func(name, label, q, all string, more object) object {
		v := object{"type": "query", "name": name, "label": label, "datasource": source, "refresh": 2, "sort": 1,
			"query": object{"query": q, "refId": name}, "definition": q,
			"includeAll": true, "multi": true, "allValue": all, "current": object{"text": []string{"All"}, "value": []string{"$__all"}}}
		for k, x := range more {
			v[k] = x
		}
		return v
	}
	list := []object{
		{"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "current": object{"text": "default", "value": "default"}},
		query("node", "Node", "label_values("+NodesMetric+", node)", ".*", nil),
		query("namespace", "Namespace", "query_result("+NamespacesQuery+")", ".+", object{"regex": `/namespace="([^"]+)"/`}),
	}
	if d.Path {
		option := func(name, value string, on bool) object { return object{"text": name, "value": value, "selected": on} }
		list = append(list, object{"type": "custom", "name": "path", "label": "Path", "query": "between nodes : node, between pods : pod",
			"current": option("between nodes", "node", true), "options": []object{option("between nodes", "node", true), option("between pods", "pod", false)}})
	}
	return list
}

func (p Panel) object(at object) object {
	var targets []object
	for i, q := range p.Queries {
		t := object{"refId": string(rune('A' + i)), "datasource": source, "editorMode": "code", "expr": q.Expr, "legendFormat": q.Legend}
		switch {
		case p.Instant():
			t["instant"], t["format"] = true, "table"
		case p.Kind == Buckets:
			t["range"], t["format"] = true, "heatmap"
		default:
			t["range"] = true
		}
		targets = append(targets, t)
	}
	o := object{
		"id": p.ID, "type": string(p.Kind), "title": p.Title, "description": p.Description, "datasource": source,
		"gridPos": at, "targets": targets, "options": p.options(),
		"fieldConfig": object{"defaults": p.defaults(), "overrides": p.overrides()},
	}
	switch p.Kind {
	case Matrix:
		o["type"] = "table"
		o["transformations"] = []object{{"id": "groupingToMatrix", "options": object{"rowField": "node", "columnField": "peer", "valueField": "Value"}}}
	case Table:
		o["transformations"] = []object{{"id": "merge", "options": object{}},
			{"id": "organize", "options": object{"excludeByName": object{"Time": true}, "renameByName": p.columns()}}}
	}
	return o
}

func (p Panel) options() object {
	legend := object{"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []string{}}
	switch p.Kind {
	case Lines:
		return object{"legend": legend, "tooltip": object{"mode": "multi", "sort": "desc"}}
	case Number:
		return object{"reduceOptions": object{"calcs": []string{"lastNotNull"}}, "textMode": "auto", "colorMode": "value",
			"graphMode": "area", "justifyMode": "auto", "orientation": "auto", "wideLayout": true, "showPercentChange": false, "percentChangeColorMode": "standard"}
	case Buckets:
		return object{"calculate": false, "yAxis": object{"unit": string(p.Unit)}, "cellGap": 1, "legend": object{"show": true}, "showValue": "never",
			"color":     object{"mode": "scheme", "scheme": "Oranges", "steps": 64, "fill": "dark-orange", "exponent": 0.5, "reverse": false},
			"exemplars": object{"color": "rgba(255,0,255,0.7)"},
			"tooltip":   object{"mode": "single", "showColorScale": true}}
	case History:
		return object{"showValue": "never", "rowHeight": 0.9, "legend": legend, "tooltip": object{"mode": "single", "sort": "none"}}
	}
	return object{"showHeader": true, "frameIndex": 0}
}

func (p Panel) defaults() object {
	steps := []object{{"color": string(Green), "value": nil}}
	for _, s := range p.Steps {
		steps = append(steps, object{"color": string(s.Color), "value": s.From})
	}
	d := object{"unit": string(p.Unit), "thresholds": object{"mode": "absolute", "steps": steps}, "color": object{"mode": "thresholds"}}
	if p.Max > p.Min {
		d["min"], d["max"] = p.Min, p.Max
	}
	switch p.Kind {
	case Lines:
		custom := object{"lineWidth": 1, "fillOpacity": 5, "showPoints": "never", "spanNulls": false}
		if len(p.Steps) > 0 {
			custom["thresholdsStyle"] = object{"mode": "line"}
		}
		d["custom"], d["color"] = custom, object{"mode": "palette-classic"}
	case Matrix:
		d["custom"] = object{"align": "center", "cellOptions": object{"type": "color-background", "mode": "basic"}, "inspect": false}
		d["color"] = object{"mode": "continuous-GrYlRd"}
	case History:
		if len(p.Steps) == 0 {
			d["color"] = object{"mode": "continuous-GrYlRd"}
		}
	}
	return d
}

// columns are the names of a table's queries, as the merged table has them.
func (p Panel) columns() object {
	names := object{}
	for i, q := range p.Queries {
		names[fmt.Sprintf("Value #%c", 'A'+i)] = q.Legend
	}
	return names
}

// overrides give a table's columns their units.
func (p Panel) overrides() []object {
	all := []object{}
	for _, q := range p.Queries {
		if q.Unit != "" {
			all = append(all, object{"matcher": object{"id": "byName", "options": q.Legend},
				"properties": []object{{"id": "unit", "value": string(q.Unit)}}})
		}
	}
	return all
}
