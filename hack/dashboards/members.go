package dashboards

// members shows the gossip: who is there, and how fresh and how agreed the picture is.
func members() Dashboard {
	return Dashboard{
		Name: "members", Title: "Members",
		Description: "Who is in the gossip, for what each node is held, how fresh the picture is, and what is refused.",
		Panels: []Panel{
			{
				ID: 1, Kind: Number, Title: "Members", Unit: Count, Width: 6, Height: 5,
				Description: "Members alive, agents and schedulers, as the one that sees most has it.",
				Queries:     one("max(drover_gossip_members)", "members"),
			},
			{
				ID: 2, Kind: Number, Title: "Disagreement", Unit: Count, Width: 6, Height: 5, Steps: []Step{{1, Yellow}},
				Description: "By how many members the smallest of all pictures differs from the largest. More than 0 for long: the network is cut somewhere.",
				Queries:     one("max(drover_gossip_members) - min(drover_gossip_members)", "members"),
			},
			{
				ID: 3, Kind: Number, Title: "Oldest state", Unit: Seconds, Width: 6, Height: 5, Steps: []Step{{30, Yellow}, {60, Red}},
				Description: "Age of the oldest state among the nodes alive. A state that does not change is told every 9 s, in large clusters every 25 s.",
				Queries:     one(`max(drover_gossip_oldest_state_age_seconds{node=~"$node"})`, "age"),
			},
			{
				ID: 4, Kind: Number, Title: "Keys in use", Unit: Count, Width: 6, Height: 5, Steps: []Step{{2, Yellow}},
				Description: "Gossip's keys that some member takes in: more than one while they are rotated.",
				Queries:     one("count(count by (key) (drover_gossip_key_info))", "keys"),
			},
			{
				ID: 5, Kind: Lines, Title: "Nodes by phase", Unit: Count,
				Description: "For what nodes are held, as the member has it that holds most for it.",
				Queries:     one("max by (phase) (drover_gossip_nodes)", "{{phase}}"),
			},
			{
				ID: 6, Kind: Lines, Title: "Changes of phase", Unit: Count,
				Description: "How often nodes came to be held for that, in five minutes, as the member has it that saw most.",
				Queries:     one("max by (phase) (increase(drover_gossip_phase_changes_total[5m]))", "{{phase}}"),
			},
			{
				ID: 7, Kind: Lines, Title: "Age of the oldest state", Unit: Seconds, Steps: []Step{{60, Red}},
				Description: "As each member has it.",
				Queries:     one(`max by (node, pod) (drover_gossip_oldest_state_age_seconds{node=~"$node"})`, "{{node}}, {{pod}}"),
			},
			{
				ID: 8, Kind: Lines, Title: "Records heard", Unit: PerSecond,
				Description: "Records from other members by what became of them. Forged, malformed and misplaced ones come from no honest member.",
				Queries:     one("sum by (result) (rate(drover_gossip_records_total[$__rate_interval]))", "{{result}}"),
			},
			{
				ID: 9, Kind: Lines, Title: "Frames and records on their way", Unit: PerSecond,
				Description: "What happened to them between members (docs/gossip.md).",
				Queries:     one("sum by (event) (rate(drover_gossip_events_total[$__rate_interval]))", "{{event}}"),
			},
			{
				ID: 10, Kind: Lines, Title: "Waiting to be passed on", Unit: Bytes,
				Description: "Bytes of records in each member's queue.",
				Queries:     one(`max by (node, pod) (drover_gossip_waiting_bytes{node=~"$node"})`, "{{node}}, {{pod}}"),
			},
			{
				ID: 11, Kind: Lines, Title: "Not sent, not decrypted", Unit: PerSecond, Width: 8,
				Description: "Packets that the queue to the network had no room for, and such as none of the keys has encrypted.",
				Queries: []Query{
					{Expr: "sum(rate(drover_gossip_unsent_packets_total[$__rate_interval]))", Legend: "unsent"},
					{Expr: "sum(rate(drover_gossip_undecryptable_total[$__rate_interval]))", Legend: "undecryptable"},
				},
			},
			{
				ID: 12, Kind: Lines, Title: "Places of moved pods", Unit: Count, Width: 8,
				Description: "That both ends, or the record, have confirmed; every member should have the same.",
				Queries:     one(`max by (node, pod) (drover_gossip_locations{node=~"$node"})`, "{{node}}, {{pod}}"),
			},
			{
				ID: 13, Kind: Lines, Title: "CPU time for logs", Unit: Share, Width: 8, Max: 0.03,
				Description: "What each agent spends on containers' logs, at most 0.02 in a second.",
				Queries:     one(`sum by (node) (rate(drover_log_cpu_seconds_total{node=~"$node"}[$__rate_interval]))`, "{{node}}"),
			},
			{
				ID: 14, Kind: History, Title: "Programs that answer", Unit: Count, Width: 24, Height: 7, Max: 1, Steps: []Step{{0, Red}, {1, Green}},
				Description: "1 for each of Drover's pods that Prometheus reaches.",
				Queries:     one(`max by (pod) (up{pod=~"drover-(agent|controller|scheduler)-.+"})`, "{{pod}}"),
			},
		},
	}
}
