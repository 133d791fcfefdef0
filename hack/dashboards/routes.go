package dashboards

// routes shows how far nodes are from each other, and how well that is known.
func routes() Dashboard {
	const pair = "{{node}} to {{peer}}"
	return Dashboard{
		Name: "routes", Title: "Route times", Path: true,
		Description: "T between nodes, measured in the kernel: as placement takes it, its history, how it spreads and how probes fare.",
		Panels: []Panel{
			{
				ID: 1, Kind: Matrix, Title: "Route time from row to column", Unit: Seconds,
				Description: "T now. Beyond 64 nodes each measures O(log n) others; the empty cells are computed from what was measured.",
				Queries:     one(`max by (node, peer) (drover_route_time_seconds{node=~"$node",path="$path"})`, pair),
			},
			{
				ID: 2, Kind: History, Title: "Route time of each pair", Unit: Seconds,
				Description: "T over time. A row that changes its colour is a route that has changed.",
				Queries:     one(`max by (node, peer) (drover_route_time_seconds{node=~"$node",path="$path"})`, pair),
			},
			{
				ID: 3, Kind: Buckets, Title: "Single round trips", Unit: Seconds,
				Description: "All probes' round trips: what lies above the bulk is queueing on the way.",
				Queries: one(`sum by (le) (rate(drover_route_time_round_trip_seconds_bucket{node=~"$node",path="$path"}[$__rate_interval]))`,
					"{{le}}"),
			},
			{
				ID: 4, Kind: Lines, Title: "Spread", Unit: Seconds,
				Description: "How far a pair's round trips lie apart. Nodes whose route times overlap within it count as equally far.",
				Queries:     one(`max by (node, peer) (drover_route_time_spread_seconds{node=~"$node",path="$path"})`, pair),
			},
			{
				ID: 5, Kind: Lines, Title: "Probes without answer", Unit: Share, Steps: []Step{{0.5, Red}},
				Description: "Share of the probes that were lost or could not be sent.",
				Queries: one(`sum by (node, peer) (rate(drover_route_probes_total{node=~"$node",path="$path",result!="answered"}[$__rate_interval]))`+
					` / sum by (node, peer) (rate(drover_route_probes_total{node=~"$node",path="$path"}[$__rate_interval]))`, pair),
			},
			{
				ID: 6, Kind: Lines, Title: "Samples in the window, by stamp", Unit: Count,
				Description: "Round trips of which T is made. What user space stamps waits for the CPU as well: the kernel should stamp all of them.",
				Queries:     one(`sum by (node, stamp) (drover_route_window_samples{node=~"$node",path="$path"})`, "{{node}}, {{stamp}}"),
			},
			{
				ID: 7, Kind: Number, Title: "Nodes that measure in the kernel", Unit: Share, Width: 6, Height: 6,
				Description: "Share of the nodes whose programs are on the devices towards all peers.",
				Queries:     one(`avg(drover_route_kernel_stamps{node=~"$node",path="$path"})`, "nodes"),
			},
			{
				ID: 8, Kind: Number, Title: "Devices with XDP", Unit: Count, Width: 6, Height: 6,
				Description: "Devices on which an XDP program turns probes round (agent.routeXDP).",
				Queries:     one(`sum(drover_route_xdp_devices{node=~"$node",path="$path"})`, "devices"),
			},
			{
				ID: 9, Kind: Lines, Title: "Packets of probes", Unit: PerSecond, Height: 6,
				Description: "What became of them, in the kernel and in user space. Strangers and malformed ones come from no agent.",
				Queries: one(`sum by (handler, outcome) (rate(drover_route_packets_total{node=~"$node",path="$path"}[$__rate_interval]))`,
					"{{handler}}: {{outcome}}"),
			},
			{
				ID: 10, Kind: Lines, Title: "What connections feel", Unit: Seconds,
				Description: "Smoothed round trip of TCP connections to each peer in the last minute. Above T by as much as ends wait for their CPU.",
				Queries:     one(`max by (node, peer) (drover_connection_smoothed_rtt_seconds{node=~"$node",path="$path"})`, pair),
			},
			{
				ID: 11, Kind: Lines, Title: "Least round trip of connections", Unit: Seconds,
				Description: "What is left of it without waiting: close to T.",
				Queries:     one(`max by (node, peer) (drover_connection_min_rtt_seconds{node=~"$node",path="$path"})`, pair),
			},
			{
				ID: 12, Kind: Lines, Title: "Payload between nodes", Unit: BytesPerSecond,
				Description: "Payload of the TCP connections of nodes and their pods, as the sender counts it.",
				Queries: one(`sum by (node, peer) (rate(drover_connection_bytes_total{node=~"$node",direction="sent"}[$__rate_interval]))`,
					pair),
			},
			{
				ID: 13, Kind: Lines, Title: "Network in use", Unit: BytesPerSecond,
				Description: "What the devices that lead to other nodes carry, a mean of the last seconds.",
				Queries:     one(`sum by (node, direction) (drover_node_network_bytes_per_second{node=~"$node"})`, "{{node}}, {{direction}}"),
			},
			{
				ID: 14, Kind: Lines, Title: "Where connections are seen", Unit: Count,
				Description: "Nodes by what their programs are attached to: sock_ops sees no connection from before, none sees none.",
				Queries:     one(`sum by (source) (drover_connection_source{node=~"$node"})`, "{{source}}"),
			},
		},
	}
}
