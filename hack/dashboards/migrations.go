package dashboards

// migrations shows moves: under way, ended, and what is held by them.
func migrations() Dashboard {
	return Dashboard{
		Name: "migrations", Title: "Migrations",
		Description: "Moves of pods: under way, how they ended, for how long pods were frozen, what is held now, what was refused.",
		Panels: []Panel{
			{
				ID: 1, Kind: Number, Title: "Under way", Unit: Count, Width: 6, Height: 5,
				Description: "PodMigrations that have not ended.",
				Queries:     one(`sum(drover_migration_phase{phase!~"completed|aborted|returned|lost|rejected"})`, "moves"),
			},
			{
				ID: 2, Kind: Number, Title: "Oldest under way", Unit: Seconds, Width: 6, Height: 5, Steps: []Step{{120, Yellow}, {600, Red}},
				Description: "Age of the oldest PodMigration that has not ended; 0 when there is none.",
				Queries:     one("max(drover_migration_oldest_seconds)", "age"),
			},
			{
				ID: 3, Kind: Number, Title: "Held longest", Unit: Seconds, Width: 6, Height: 5, Steps: []Step{{5, Yellow}, {10, Red}},
				Description: "For how long the container has stood still that is held longest now; 0 when none is.",
				Queries:     one(`max(drover_held_longest_seconds{node=~"$node"})`, "held"),
			},
			{
				ID: 4, Kind: Number, Title: "Held without record", Unit: Count, Width: 6, Height: 5, Steps: []Step{{1, Red}},
				Description: "Pods that are held by a move whose PodMigration is gone: each stands still until it is deleted.",
				Queries:     one(`sum(drover_held_without_record{node=~"$node"})`, "pods"),
			},
			{
				ID: 5, Kind: Lines, Title: "Ended moves", Unit: Count,
				Description: "PodMigrations that ended in each five minutes, by how.",
				Queries:     one("sum by (outcome) (increase(drover_controller_migration_duration_seconds_count[5m]))", "{{outcome}}"),
			},
			{
				ID: 6, Kind: Table, Title: "Moves of each node", Unit: Count,
				Description: "Since its agent started: pods that left, that came, that stayed where they were because the move was given up, or returned.",
				Queries: []Query{
					{Expr: `sum by (node) (drover_migrations_total{node=~"$node",role="source",outcome="moved"})`, Legend: "left", Unit: Count},
					{Expr: `sum by (node) (drover_migrations_total{node=~"$node",role="target",outcome="moved"})`, Legend: "came", Unit: Count},
					{Expr: `sum by (node) (drover_migrations_total{node=~"$node",role="source",outcome="aborted"})`, Legend: "given up", Unit: Count},
					{Expr: `sum by (node) (drover_migrations_total{node=~"$node",role="source",outcome="returned"})`, Legend: "returned", Unit: Count},
				},
			},
			{
				ID: 7, Kind: Lines, Title: "Why moves ended", Unit: Count,
				Description: "PodMigrations by outcome and reason, since the controller started.",
				Queries:     one("sum by (outcome, reason) (drover_controller_migrations_total)", "{{outcome}}: {{reason}}"),
			},
			{
				ID: 8, Kind: Lines, Title: "Frozen time", Unit: Seconds,
				Description: "How long moved pods were frozen, from the freeze to the target's acknowledgement.",
				Queries:     quantiles(`drover_migration_frozen_seconds_bucket{node=~"$node"}`),
			},
			{
				ID: 9, Kind: Buckets, Title: "Frozen time of all moves", Unit: Seconds,
				Description: "The same, as moves fell into each range, by the controller's count.",
				Queries:     one("sum by (le) (increase(drover_controller_migration_frozen_seconds_bucket[$__rate_interval]))", "{{le}}"),
			},
			{
				ID: 10, Kind: Lines, Title: "From order to end", Unit: Seconds,
				Description: "Time from a PodMigration's creation to its end, of those that completed.",
				Queries:     quantiles(`drover_controller_migration_duration_seconds_bucket{outcome="completed"}`),
			},
			{
				ID: 11, Kind: Lines, Title: "Images on their way", Unit: BytesPerSecond,
				Description: "Bytes of images that nodes send and receive, complete or not.",
				Queries: one(`sum by (node, direction) (rate(drover_transfer_bytes_total{node=~"$node"}[$__rate_interval]))`,
					"{{node}}, {{direction}}"),
			},
			{
				ID: 12, Kind: Lines, Title: "Images of ended moves", Unit: Bytes,
				Description: "Bytes of images that were sent for PodMigrations that ended in each five minutes.",
				Queries:     one("sum(increase(drover_controller_migration_bytes_total[5m]))", "bytes"),
			},
			{
				ID: 13, Kind: Lines, Title: "Containers held", Unit: Count, Width: 8,
				Description: "Containers that stand still on each node by a move, as source or target.",
				Queries:     one(`sum by (node) (drover_held_containers{node=~"$node"})`, "{{node}}"),
			},
			{
				ID: 14, Kind: Lines, Title: "Time held", Unit: Share, Width: 8, Steps: []Step{{0.2, Red}},
				Description: "Seconds a second for which containers stand still, each container counted.",
				Queries:     one(`sum by (node) (rate(drover_held_seconds_total{node=~"$node"}[$__rate_interval]))`, "{{node}}"),
			},
			{
				ID: 15, Kind: Lines, Title: "Images not taken", Unit: Count, Width: 8,
				Description: "Images that nodes did not take from others in each five minutes, by reason: space and disk are for whoever runs the node.",
				Queries:     one(`sum by (reason) (increase(drover_transfer_refused_total{node=~"$node"}[5m]))`, "{{reason}}"),
			},
			{
				ID: 16, Kind: Lines, Title: "Refused", Unit: Count,
				Description: "What programs were asked for in each five minutes that no honest peer asks for. A few come with moves that are decided meanwhile.",
				Queries:     one("sum by (what) (increase(drover_refused_total[5m]))", "{{what}}"),
			},
			{
				ID: 17, Kind: Lines, Title: "Moves by phase", Unit: Count,
				Description: "PodMigrations in each phase. Those that have ended stay for a time.",
				Queries:     one("sum by (phase) (drover_migration_phase)", "{{phase}}"),
			},
		},
	}
}
