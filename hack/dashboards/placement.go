package dashboards

// placement shows what drover-scheduler decides, and of what.
func placement() Dashboard {
	return Dashboard{
		Name: "placement", Title: "Placement",
		Description: "Scores of drover-scheduler's RouteTime: what was chosen, what would have been best, how old and how complete the measurements were.",
		Panels: []Panel{
			{
				ID: 1, Kind: Number, Title: "Pods placed", Width: 4, Height: 5, Unit: Count,
				Description: "Pods that were bound in the range shown, with at least two feasible nodes.",
				Queries:     one("round(sum(increase(drover_scheduler_chosen_points_count[$__range])))", "pods"),
			},
			{
				ID: 2, Kind: Number, Title: "Nodes in the picture", Width: 4, Height: 5, Unit: Count,
				Description: "Nodes that were alive in the scheduler's picture of the cluster when it was last used.",
				Queries:     one("max(drover_scheduler_view_nodes)", "nodes"),
			},
			{
				ID: 3, Kind: Number, Title: "Age of the picture", Width: 4, Height: 5, Unit: Seconds, Steps: []Step{{10, Yellow}, {30, Red}},
				Description: "Age of the picture of the cluster when it was last used.",
				Queries:     one("max(drover_scheduler_view_age_seconds)", "age"),
			},
			{
				ID: 4, Kind: Number, Title: "Neutral scores", Width: 4, Height: 5, Unit: Share, Steps: []Step{{0.1, Yellow}, {0.5, Red}},
				Description: "Share of the scores, in the range shown, that were the median because a measurement was missing or stale.",
				Queries: one("sum(increase(drover_scheduler_unknown_scores_total[$__range])) / sum(increase(drover_scheduler_scores_total[$__range]))",
					"neutral"),
			},
			{
				ID: 5, Kind: Number, Title: "Pods arriving", Width: 4, Height: 5, Unit: Count,
				Description: "Pods that have come to nodes and that no load tells of yet: they count with what they are held to use.",
				Queries:     one("sum(drover_scheduler_arriving_pods)", "pods"),
			},
			{
				ID: 6, Kind: Number, Title: "Malformed peers", Width: 4, Height: 5, Unit: Count, Steps: []Step{{1, Yellow}},
				Description: "Scheduling attempts, in the range shown, of pods whose annotation drover.dev/peers is malformed.",
				Queries:     one("round(sum(increase(drover_scheduler_invalid_peers_total[$__range])))", "attempts"),
			},
			{
				ID: 7, Kind: Lines, Title: "A of the chosen and of the best node", Unit: Count,
				Description: "Medians. Where the chosen one is less, other plugins or filters preferred it: the ratio is what that cost.",
				Queries: []Query{
					{Expr: "histogram_quantile(0.5, sum by (le) (rate(drover_scheduler_chosen_a_bucket[$__rate_interval])))", Legend: "chosen"},
					{Expr: "histogram_quantile(0.5, sum by (le) (rate(drover_scheduler_best_a_bucket[$__rate_interval])))", Legend: "best"},
				},
			},
			{
				ID: 8, Kind: Buckets, Title: "Points of the chosen node", Unit: Count,
				Description: "RouteTime's points, 0 to 100, of the nodes that pods were bound to. Much below 100 means that other plugins outweigh it.",
				Queries:     one("sum by (le) (increase(drover_scheduler_chosen_points_bucket[$__rate_interval]))", "{{le}}"),
			},
			{
				ID: 9, Kind: Lines, Title: "What each plugin said of the chosen node", Unit: Count,
				Description: "Points of each Score plugin, normalised and weighted, a mean over the pods that were bound.",
				Queries: one("sum by (plugin) (rate(drover_scheduler_chosen_plugin_points_sum[$__rate_interval]))"+
					" / sum by (plugin) (rate(drover_scheduler_chosen_plugin_points_count[$__rate_interval]))", "{{plugin}}"),
			},
			{
				ID: 10, Kind: Lines, Title: "Age of what was used", Unit: Seconds, Steps: []Step{{30, Red}},
				Description: "Age of what the chosen node had last told. The scheduler takes nothing that is older than staleAfter, by default 30 s.",
				Queries:     quantiles("drover_scheduler_chosen_age_seconds_bucket"),
			},
			{
				ID: 11, Kind: Lines, Title: "Neutral scores by reason", Unit: PerSecond,
				Description: "Nodes a second that got the median, by what was not known of them (docs/placement.md).",
				Queries:     one("sum by (reason) (rate(drover_scheduler_unknown_scores_total[$__rate_interval]))", "{{reason}}"),
			},
			{
				ID: 12, Kind: Lines, Title: "Time to rank", Unit: Seconds,
				Description: "Time to rank all feasible nodes for one pod.",
				Queries:     quantiles("drover_scheduler_score_duration_seconds_bucket"),
			},
			{
				ID: 13, Kind: Lines, Title: "Scores, and nodes refused to replacements", Unit: PerSecond,
				Description: "Nodes scored a second, and nodes refused a second to pods that are to be restored because they cannot do it.",
				Queries: []Query{
					{Expr: "sum(rate(drover_scheduler_scores_total[$__rate_interval]))", Legend: "scored"},
					{Expr: "sum(rate(drover_scheduler_filter_rejections_total[$__rate_interval]))", Legend: "refused"},
				},
			},
			{
				ID: 14, Kind: Table, Title: "Nodes when they were last scored", Unit: Count,
				Description: "A and what it is made of, from the peers of whichever pod was placed last. Only with the scheduler's flag --drover-node-metrics=N.",
				Queries: []Query{
					{Expr: "max by (node) (" + ofNodes("drover_scheduler_node_a{NODE}") + ")", Legend: "A", Unit: Count},
					{Expr: "max by (node) (" + ofNodes("drover_scheduler_node_idle_cores{NODE}") + ")", Legend: "C, idle cores", Unit: Count},
					{Expr: "max by (node) (" + ofNodes("drover_scheduler_node_idle_memory_bytes{NODE}") + ")", Legend: "M, idle memory", Unit: Bytes},
					{Expr: "max by (node) (" + ofNodes("drover_scheduler_node_route_time_seconds{NODE}") + ")", Legend: "T, route time", Unit: Seconds},
				},
			},
		},
	}
}
