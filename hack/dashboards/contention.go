package dashboards

// contention shows who suffers, from what, and what causes it.
func contention() Dashboard {
	const container = "{{namespace}}/{{pod}}/{{container}}"
	return Dashboard{
		Name: "contention", Title: "Contention",
		Description: "Containers that others keep from CPU, memory or IO, what they wait for, and what they show of it.",
		Panels: []Panel{
			{
				ID: 1, Kind: Lines, Title: "Containers that suffer", Unit: Count, Height: 11,
				Description: "By resource and grade. Severe is what moves a pod that has opted in.",
				Queries:     one("sum by (resource, grade) ("+ofPods("drover_container_suffering{POD}", "resource", "grade")+")", "{{resource}}, {{grade}}"),
			},
			{
				ID: 2, Kind: Lines, Title: "Stall of the containers that have most", Unit: Share, Height: 11, Max: 1, Steps: []Step{{0.5, Red}},
				Description: "Share of its time for which others kept a container from the resource. The ten with most; docs/contention.md has the thresholds.",
				Queries: one("topk(10, max by (namespace, pod, container, resource) ("+ofPods("drover_container_contention_ratio{POD}", "resource")+"))",
					container+", {{resource}}"),
			},
			{
				ID: 3, Kind: Lines, Title: "Waiting for the CPU, by cause", Unit: Count, Height: 11,
				Description: "Threads that are runnable and do not run: for neighbours, for others of their own, for the node, for a hypervisor, for a quota.",
				Queries: one("sum by (cause) ("+ofPods("rate(drover_container_run_queue_wait_cause_seconds_total{POD}[$__rate_interval])", "cause")+")",
					"{{cause}}"),
			},
			{
				ID: 4, Kind: Lines, Title: "Waiting for the CPU, by container", Unit: Count, Height: 11,
				Description: "Threads that wait, whatever the cause, a mean. The ten containers with most.",
				Queries: one("topk(10, sum by (namespace, pod, container) ("+
					ofPods("rate(drover_container_run_queue_wait_seconds_total{POD}[$__rate_interval])")+"))", container),
			},
			{
				ID: 5, Kind: Lines, Title: "Pressure of nodes", Unit: Share, Max: 1,
				Description: "Share of the last ten seconds in which some task of the node waited for the resource (PSI).",
				Queries:     one(`max by (node, resource) (drover_node_pressure_ratio{node=~"$node"})`, "{{node}}, {{resource}}"),
			},
			{
				ID: 6, Kind: Lines, Title: "CPU in use", Unit: Share,
				Description: "Of what pods may use of the node.",
				Queries: one(`max by (node) (drover_node_cpu_used_cores{node=~"$node"}) / max by (node) (drover_node_cpu_allocatable_cores{node=~"$node"})`,
					"{{node}}"),
			},
			{
				ID: 7, Kind: Lines, Title: "Memory in use", Unit: Share, Height: 11,
				Description: "Of what pods may use of the node.",
				Queries: one(`max by (node) (drover_node_memory_used_bytes{node=~"$node"}) / max by (node) (drover_node_memory_allocatable_bytes{node=~"$node"})`,
					"{{node}}"),
			},
			{
				ID: 8, Kind: Lines, Title: "Memory as a share of the own limit", Unit: Share, Height: 11, Steps: []Step{{0.9, Yellow}},
				Description: "Of the limit that is nearer, the container's or its pod's; 0 without one. Moving does not help who is at its own limit.",
				Queries: one("topk(10, max by (namespace, pod, container) ("+ofPods("drover_container_memory_limit_ratio{POD}")+"))",
					container),
			},
			{
				ID: 9, Kind: Lines, Title: "Pages waited for", Unit: PerSecond,
				Description: "Major faults (of files and programs) and refaults (of what was there a moment before).",
				Queries:     one("sum by (kind) ("+ofPods("drover_container_memory_faults_per_second{POD}", "kind")+")", "{{kind}}"),
			},
			{
				ID: 10, Kind: Lines, Title: "Signs of ill health", Unit: Count,
				Description: "Restarts, processes killed for want of memory and lines of logs that matched drover.dev/log-pattern, each in the last five minutes.",
				Queries: []Query{
					{Expr: "sum(" + ofPods("increase(drover_container_restarts_total{POD}[5m])") + ")", Legend: "restarts"},
					{Expr: "sum(" + ofPods("increase(drover_container_oom_kills_total{POD}[5m])") + ")", Legend: "OOM kills"},
					{Expr: "sum(" + ofPods("increase(drover_container_log_matches_total{POD}[5m])") + ")", Legend: "log matches"},
				},
			},
			{
				ID: 11, Kind: Lines, Title: "Probes that fail", Unit: Count, Width: 8, Height: 6,
				Description: "Containers that run and whose readiness or startup probe does not succeed; nothing while there is none.",
				Queries:     one("sum by (probe) ("+ofPods("drover_container_probe_failing{POD}", "probe")+")", "{{probe}}"),
			},
			{
				ID: 12, Kind: Number, Title: "Nodes that are measured", Unit: Share, Width: 8, Height: 6,
				Description: "Share of the nodes whose contention is known.",
				Queries:     one(`avg(drover_contention_measured{node=~"$node"})`, "nodes"),
			},
			{
				ID: 13, Kind: Lines, Title: "What measuring missed", Unit: PerSecond, Width: 8, Height: 6,
				Description: "Readings that failed; waits that the kernel's tables had no room for; connections likewise; bytes of logs that were passed over.",
				Queries: []Query{
					{Expr: `sum(rate(drover_contention_reading_failures_total{node=~"$node"}[$__rate_interval]))`, Legend: "readings failed"},
					{Expr: `sum(rate(drover_contention_lost_total{node=~"$node"}[$__rate_interval]))`, Legend: "waits lost"},
					{Expr: `sum(rate(drover_connection_lost_total{node=~"$node"}[$__rate_interval]))`, Legend: "connections lost"},
					{Expr: "sum(" + ofPods("rate(drover_container_log_skipped_bytes_total{POD}[$__rate_interval])") + ")", Legend: "bytes of logs"},
				},
			},
		},
	}
}
