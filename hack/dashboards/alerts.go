package dashboards

// Alerts are all of them, those of which a pod stands still first.
func Alerts() []Alert {
	return append(append(held(), measuring()...), trust()...)
}

// held are about pods and moves.
func held() []Alert {
	return []Alert{
		{
			// The agent says for how long, so that no "for" is needed: each scrape tells the whole time.
			Name: "DroverPodHeld", Expr: "drover_held_longest_seconds > 10", Severity: Critical,
			Summary: "A pod is held by a move on " + where + " for {{ $value | humanizeDuration }}",
			Description: `A pod stands still between its freeze and the decision of its move: the API server is away, or an agent or a node is. ` +
				`"kubectl get pmig -A" finds the move (condition Held), "kubectl drover resolve" shows both ends and what can be done.`,
			Why: "A pod is frozen for a move that is not decided. It does not run, and nobody lets it go because time has passed: the other end may have it.",
			Do: []string{"`kubectl drover resolve` shows which moves have not ended, and what they wait for. See to that first: an API server, agent or node that comes back ends the hold by itself.",
				"`kubectl drover resolve PODMIGRATION` shows the record, both ends, and what can be forced. [moves.md](moves.md#when-something-is-held) says what that costs."},
		},
		{
			Name: "DroverPodHeldWithoutRecord", Expr: "drover_held_without_record > 0", Severity: Critical,
			Summary:     "{{ $value }} pods are held on " + where + " whose PodMigration is gone",
			Description: "Nobody will ever decide about them. The event HeldWithoutRecord is on each of them. Delete the pod, and it is ended.",
			Why:         "The record said which end may run, and it is gone: nobody can tell any more, so the pod stays held.",
			Do: []string{"Find the pods by their event: `kubectl get events -A --field-selector reason=HeldWithoutRecord`.",
				"Delete them. [moves.md](moves.md#when-something-is-held) tells what becomes of each end."},
		},
		{
			Name: "DroverPodsHeldOften", Expr: "rate(drover_held_seconds_total[5m]) > 0.2", For: "5m", Severity: Warning,
			Summary:     "Moves hold pods for more than a fifth of the time on " + where,
			Description: "Pods that are held again and again, each for a moment, do not run either. The dashboard Migrations shows which moves and how they end.",
			Why:         "Each move freezes a pod for a moment. So many in so little time cost more than they bring.",
			Do: []string{"`kubectl get pmig -A --sort-by=.metadata.creationTimestamp`: who orders them, and why (`spec.reason`)?",
				"Moves that are given up and ordered again point to a target that cannot restore: read the decision's message.",
				"Stop new moves by [the switch](install.md#the-switch) while you look."},
		},
		{
			Name: "DroverMoveLost", Expr: `sum(increase(drover_controller_migration_duration_seconds_count{outcome="lost"}[15m])) > 0`, Severity: Critical,
			Summary:     "A move ended as Lost: the memory of its pod is gone",
			Description: `The target was gone for good when its copy may have run, so that neither end could go on. "kubectl get pmig -A" shows which (phase Lost).`,
			Why:         "After the commit the target's node was lost. Its copy may have done things, so the source's older state was ended as well; the owner starts a new pod.",
			Do: []string{"See that the pod's owner has made a new one, and what it needs after a loss of memory.",
				"Find out what became of the node: it went within the second of a move."},
		},
		{
			Name: "DroverMovesFail", Severity: Warning, For: "10m",
			Expr: `sum(outcome:drover_controller_migrations_ended:increase1h{outcome=~"aborted|lost|returned"}) > 3 and` +
				` sum(outcome:drover_controller_migrations_ended:increase1h{outcome=~"aborted|lost|returned"}) > 0.5 * sum(outcome:drover_controller_migrations_ended:increase1h)`,
			Summary:     "More than half of the moves of the last hour failed ({{ $value | humanize }} moves)",
			Description: "The pods run on where they were, but each was tried to be moved in vain. The dashboard Migrations has the reasons.",
			Why:         "Moves are tried and given up. The pods are well; what made them be moved is not mended.",
			Do: []string{"The panel \"Why moves ended\", or `kubectl get pmig -A -o wide`, gives the reasons. [moves.md](moves.md) explains each.",
				"One node in most of them: `kubectl drover status` says whether it can take pods, and its agent's log what failed.",
				"One application in most of them: `kubectl drover check POD` says what speaks against moving it."},
		},
		{
			Name: "DroverMoveStuck", Expr: "max(drover_migration_oldest_seconds) > 900", Severity: Warning,
			Summary:     "A move has not ended for {{ $value | humanizeDuration }}",
			Description: `A PodMigration waits. "kubectl drover resolve" shows for what.`,
			Why:         "A move takes seconds. One that does not end waits: for room on a target, for its owner, for an agent, or for a node that will not come back. A replacement keeps resources reserved meanwhile.",
			Do: []string{"`kubectl drover resolve` lists the moves that have not ended and what each waits for.",
				"`kubectl describe pmig NAME` has the steps that were taken and the conditions.",
				"`kubectl drover resolve NAME --abort` gives an undecided move up; that is always safe."},
		},
		{
			Name: "DroverImagesDoNotFit", Expr: `sum by (node, instance) (increase(drover_transfer_refused_total{reason=~"space|disk"}[1h])) > 0`, Severity: Warning,
			Summary:     where + " could not keep {{ $value | humanize }} images of moves in the last hour",
			Description: "Its memory for images is full, or it could not write them. Pods that were to come stayed where they were.",
			Why:         "Images of a move are kept in memory that is never swapped out (`agent.images.memory`), or in a directory (`agent.images.directory`). What does not fit is not taken.",
			Do: []string{"The agent's log says how much was wanted and what was there.",
				"Give images more memory, or a directory on an encrypted file system: [install.md](install.md#the-chart). See that the agent has no memory limit.",
				"Reason `disk`: the node could not write. Look after its file system."},
		},
		{
			Name: "DroverContainerSuffers", Expr: "namespace_pod_container:drover_container_severe:max > 0", For: "5m", Severity: Warning,
			Summary: "Others have kept {{ $labels.namespace }}/{{ $labels.pod }}/{{ $labels.container }} from {{ $labels.resource }} for five minutes",
			Description: `It is still there: it may not be moved, or there is nowhere better to go. "kubectl drover contention NODE" shows from whom, ` +
				`the pod's events and the agent's log why it is not moved.`,
			Why: "A container suffers severely and was not moved: it has not opted in, agents only observe, the switch is set, or no node is clearly better.",
			Do: []string{"`kubectl drover contention NODE` shows who takes the resource, and how much of it.",
				"The pod's events (`WouldMigrate`) and the agent's log say why it stays. `kubectl drover check POD` says whether it can be moved, `kubectl drover explain POD` what every node is worth.",
				"Give the neighbour a limit, the pod a request or an opt-in, or the cluster another node. [contention.md](contention.md) tells what the numbers mean."},
		},
	}
}

// measuring are about programs that are away and pictures that are not complete.
func measuring() []Alert {
	return []Alert{
		{
			Name: "DroverDown", Expr: `up{pod=~"drover-(agent|controller|scheduler)-.+"} == 0`, For: "5m", Severity: Critical,
			Summary:     "{{ $labels.pod }} does not answer Prometheus",
			Description: "One of Drover's programs is down or cannot be reached. While an agent is away, what a move holds on its node stays held; without scheduler or controller no move begins or ends.",
			Why:         "Prometheus has found the pod and gets no metrics from it.",
			Do: []string{"`kubectl -n drover-system get pods -o wide`, and the log of the one that is named, with `--previous` if it restarts.",
				"It runs and is ready: Prometheus cannot reach TCP 7949 of it. See [install.md](install.md#ports)."},
		},
		{
			Name: "DroverNodeGone", Expr: `max by (phase) (drover_gossip_nodes{phase=~"suspected|dead"}) > 0`, For: "5m", Severity: Warning,
			Summary:     "{{ $value }} nodes are held for {{ $labels.phase }}",
			Description: `No pod is moved to them, and what was on a dead one is lost unless it comes back. "kubectl drover status" names them.`,
			Why:         "Neither the agent nor the node's kernel answers some member (suspected), or nobody at all (dead). A node whose kernel answers is never held for dead.",
			Do: []string{"`kubectl drover status` names the nodes; `kubectl get node` has kubelet's view of them.",
				"Only the agent is away: see DroverDown. The machine is: bring it back, or delete its Node object if it is gone for good ([lifecycle.md](lifecycle.md)).",
				"Suspected by some and not by others: the network between them is cut. The dashboard Members shows whose picture differs."},
		},
		{
			Name: "DroverMembersDisagree", Expr: "max(drover_gossip_members) - min(drover_gossip_members) > 0", For: "10m", Severity: Warning,
			Summary:     "Members' pictures differ by {{ $value }} members",
			Description: "Some agent or scheduler does not hear all that others hear: the network is cut, or one has another key.",
			Why:         "All members come to the same picture within seconds. Those that do not are apart: decisions on both sides are made without the other.",
			Do: []string{"The dashboard Members, or `drover_gossip_members`, shows who sees fewer.",
				"TCP and UDP 7946 have to pass between all nodes and the pods of drover-scheduler: [install.md](install.md#ports).",
				"`drover_gossip_undecryptable_total` rises: see DroverPacketsUndecryptable."},
		},
		{
			Name: "DroverPictureOld", Expr: "drover_gossip_oldest_state_age_seconds > 60", For: "5m", Severity: Warning,
			Summary:     where + " has not heard some node's state for {{ $value | humanizeDuration }}",
			Description: "The node is alive, and what it last told is too old to be used: it gets neutral scores, and no pod is moved there.",
			Why:         "A node tells its state every 9 s even when nothing changes, every 25 s among 1,800 nodes and more. One that is alive and does not is stuck, or its records are refused.",
			Do: []string{"`kubectl drover status` shows the age of each node's report (AGE).",
				"Old at every member: its agent's log. Old at this member alone: what it refuses (`drover_gossip_records_total`), and whether its clock is right.",
				"While versions are mixed this is expected: [install.md](install.md#upgrades)."},
		},
		{
			Name: "DroverContentionUnmeasured", Expr: "drover_contention_measured == 0", For: "10m", Severity: Warning,
			Summary:     "Contention is not known on " + where,
			Description: "The kernel's programs cannot be attached or read there: nobody suffers visibly, and no pod is moved away.",
			Why:         "Nothing is told of any container of that node, so the agent cannot decide that one should go.",
			Do: []string{"The agent's log says what the kernel refused (\"contention is not measured here\").",
				"[install.md](install.md#what-a-cluster-needs) and [kernels.md](kernels.md) list what a kernel needs."},
		},
		{
			Name: "DroverRoutesUnmeasured", Expr: "node_peer_path:drover_route_probes_unanswered:ratio_rate5m > 0.5", For: "10m", Severity: Warning,
			Summary:     "{{ $labels.node }} gets no answer to {{ $value | humanizePercentage }} of its probes of {{ $labels.peer }} ({{ $labels.path }} path)",
			Description: "The route time between them is not known, or by few samples, and placement goes without.",
			Why:         "Probes are UDP to port 7948. They do not come, or their answers do not come back.",
			Do: []string{"Is the peer up (DroverNodeGone)? Is the ratio near 7/8 during an update? Then see [install.md](install.md#the-pod-path).",
				"Path node: firewalls have to let [the ports](install.md#ports) pass, both ways. Path pod: network policies, and masquerading between pods.",
				"`kubectl drover routes NODE` shows each peer."},
		},
		{
			Name: "DroverRoutesInUserSpace", Expr: "min by (node, instance, path) (drover_route_kernel_stamps) == 0", For: "15m", Severity: Warning,
			Summary:     "Route times of " + where + " are stamped in user space ({{ $labels.path }} path)",
			Description: "They contain the time that the agent waits for the CPU: a busy node looks far away.",
			Why:         "The programs that stamp probes are not on all devices towards peers.",
			Do: []string{"The agent's log says which device and what the kernel said.",
				"[route-times.md](route-times.md) tells what is attached where."},
		},
		{
			Name: "DroverScoresNeutral", Expr: "drover_scheduler_unknown_scores:ratio_rate10m > 0.5", For: "10m", Severity: Warning,
			Summary:     "{{ $value | humanizePercentage }} of RouteTime's scores are neutral",
			Description: "The scheduler places pods without knowing: measurements are missing or stale for most nodes.",
			Why:         "A node of which something is not known gets the median of the others' points. With more than half of them neutral the ranking says little.",
			Do: []string{"The panel \"Neutral scores by reason\" says what is missing; [placement.md](placement.md) explains the reasons.",
				"NoState, StaleState, NotAlive: DroverDown, DroverPictureOld, DroverMembersDisagree. NoRoute: DroverRoutesUnmeasured."},
		},
	}
}

// trust are about what no honest program does.
func trust() []Alert {
	return []Alert{
		{
			// A few come with moves that are decided while images are on their way.
			Name: "DroverRefusesOften", Expr: "increase(drover_refused_total[15m]) > 5", Severity: Warning,
			Summary:     where + " was asked {{ $value | humanize }} times for what no honest peer asks for ({{ $labels.what }})",
			Description: "A node, or somebody with its keys, does what no honest one does. The program's log says who asked and for what.",
			Why:         "Single refusals come with moves that are decided while images are on their way. More do not.",
			Do: []string{"The log of the program that refused says who asked, from where, and for what.",
				"Treat the node that asked as broken into until you know better: [threat-model.md](threat-model.md) tells what it can do and what it cannot, and what to rotate."},
		},
		{
			Name: "DroverGossipRefuses", Severity: Warning,
			Expr:        `sum by (result) (increase(drover_gossip_records_total{result=~"bad_certificate|bad_signature|wrong_origin|not_entitled|future|oversized|limited"}[15m])) > 10`,
			Summary:     "Members refused {{ $value | humanize }} records in a quarter of an hour ({{ $labels.result }})",
			Description: "Records are signed by the node that they tell of. These are forged, or a node's certificate or clock is wrong. Logs of agents say whose.",
			Why:         "bad_certificate: not from Drover's CA, or over. bad_signature, wrong_origin, not_entitled: a node says what is not its to say. future: a clock is more than a day ahead. oversized: larger than any honest record. limited: a node says more anew than all others can carry.",
			Do: []string{"Agents' logs name the node that the records tell of, and the one that passed them on.",
				"future: mend that node's clock. bad_certificate: is it after a change of the CA? Restart the agent that has the old one.",
				"Otherwise treat the node as broken into: [threat-model.md](threat-model.md)."},
		},
		{
			Name: "DroverPacketsUndecryptable", Expr: "increase(drover_gossip_undecryptable_total[15m]) > 50", For: "15m", Severity: Warning,
			Summary:     where + " gets packets of gossip that none of its keys has encrypted",
			Description: "A member has a key that others do not take in, or somebody sends who is no member.",
			Why:         "Keys are rotated in three steps, and a member that missed one is heard by nobody. It can also be a stranger.",
			Do: []string{"`drover_gossip_key_info` shows each member's keys by name: one that differs has an old Secret. `kubectl drover rotate-key` goes on with what was begun.",
				"All have the same keys: packets come from outside. Close port 7946 to it ([install.md](install.md#ports))."},
		},
	}
}
