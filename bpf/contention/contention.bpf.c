//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

// How long the tasks of each control group wait in the CPU's run queue, to whom they owe
// that, and how long they run.
//
// A task waits from the moment it becomes runnable (woken, new, or taken off the CPU while it
// still wanted to run) until it is put on a CPU. The wait is charged when the task gets the
// CPU, when it goes to the queue of another one, and when it is read (charge_waiting), to the
// group the task is in by then. Time is the monotonic clock of the whole machine. Tasks that
// waited when the programs were attached are charged from the first reading on, those that ran
// from their next change on. A run is charged when it ends, to the group the task was in when it
// began.
//
// Who runs on the CPU in whose queue a task waits is who makes it wait. Each CPU keeps a
// short past: who ran last, and until when. When a wait is charged, the past of that CPU is
// walked back to where the wait began. The scheduler's tracepoints do so under the lock of that
// CPU's run queue. A reading has no lock: it takes a wait by compare-and-swap of its beginning, so
// that nothing is charged twice, and what changes on the CPU while it walks may be a moment off.

#include "../include/types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

// The values of linux/bpf.h that only this program uses.
enum {
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_HASH = 5,
	BPF_MAP_TYPE_TASK_STORAGE = 29,
};

struct kernfs_node {
	__u64 id;
} RELOCATED;

struct cgroup {
	struct kernfs_node *kn;
} RELOCATED;

struct cgroup_subsys_state {
	struct cgroup *cgroup;
} RELOCATED;

enum cgroup_subsys_id {
	cpu_cgrp_id = 1, // relocated: its place differs from kernel to kernel
};

struct css_set {
	struct cgroup_subsys_state *subsys[1];
	struct cgroup *dfl_cgrp;
} RELOCATED;

struct task_struct;

struct rq {
	int cpu;
	struct task_struct *curr; // set before sched_switch is told
	__u64 clock;
	__u64 clock_pelt;
	__u64 lost_idle_time; // of clock_pelt
} RELOCATED;

struct list_head {
} RELOCATED;

struct cfs_rq {
	struct rq *rq;
	__u64 throttled_clock_self;	 // when the throttling that goes on began, or 0
	__u64 throttled_clock_self_time; // how long all those before it took
	__u64 throttled_clock_pelt;	 // when the last one began, by the run queue's clock_pelt
	int throttle_count;		 // of the groups from here up, how many are throttled now
	struct list_head throttled_limbo_list; // since 6.18
} RELOCATED;

// cfs_rq before Linux 6.6, and before 5.19.
struct cfs_rq___before_6_6 {
	__u64 throttled_clock_pelt_time;
} RELOCATED;

struct cfs_rq___before_5_19 {
	__u64 throttled_clock_task_time;
} RELOCATED;

struct sched_entity {
	struct cfs_rq *cfs_rq;
} RELOCATED;

struct task_struct {
	__s32 pid;
	int on_cpu; // not where the kernel is built for one CPU
	struct sched_entity se;
	unsigned int __state;
	int on_rq;
	struct css_set *cgroups;
} RELOCATED;

// task_struct before Linux 5.14.
struct task_struct___before_5_14 {
	long state;
} RELOCATED;

// v1_cpu: groups are those of the version 1 cpu hierarchy, else those of version 2.
const volatile __u8 v1_cpu = 0;

enum bpf_func_id {
	BPF_FUNC_map_lookup_percpu_elem = 195, // since 5.19
};

struct bpf_iter__task {
	struct task_struct *task;
} RELOCATED;

// What is known of one task.
struct task_times {
	__u64 queued_since; // in the queue of the CPU where it is now, or 0
	__u64 throttled;    // throttle_clock() when it was queued
};

enum {
	PAST = 128,	    // a power of 2
	NOBODY = 0,	    // no group has this ID: the CPU was idle
	ROOT = 1,	    // the ID of the root group: kernel threads are in it
};

#define NOT_KNOWN (~0ULL)

// Who ran on one CPU: past[(changes - 1) % PAST] is the newest.
struct cpu {
	__u64 changes;
	__u64 running; // the group that runs now
	__u64 since;   // when the task of it that runs now came, or 0
	struct {
		__u64 group;
		__u64 until;
	} past[PAST];
};

// What is known of one control group. All of it only grows.
struct usage {
	__u64 wait_ns;
	__u64 run_ns;
	__u64 switches; // times that a task of the group was put on a CPU
	__u64 throttled_ns; // the part of wait_ns in which a CPU quota, of the group or above it, held
	__u64 self_ns;	    // the part of wait_ns in which others of the group ran there
};

struct span {
	__u64 from;
	__u64 to;
};

// A group that waited, and the group that ran meanwhile, or FORGOTTEN and the number of the
// CPU: it waited there before what that CPU's past tells.
struct pair {
	__u64 waits;
	__u64 runs;
};

#define FORGOTTEN (1ULL << 63)

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __s32);
	__type(value, struct task_times);
} tasks SEC(".maps");

// Preallocated: nothing may be allocated under the run queue's lock on older kernels.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct usage);
} groups SEC(".maps");

// How long each waited for each other, in nanoseconds; no waits of ROOT.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct pair);
	__type(value, __u64);
} owed SEC(".maps");

// One for each CPU; as many are made as the machine can have.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cpu);
} cpus SEC(".maps");

enum { LOST_USAGE, LOST_OWED, LOSSES };

// Charges lost because `groups`, or `owed`, was full or locked.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LOSSES);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

// Plain loads, as the kernel gives these pointers with their types: each costs a tenth of what
// the helper that reads any address does.
static __always_inline __u64 group_of(struct task_struct *task)
{
	struct css_set *set = task->cgroups;

	if (!v1_cpu)
		return set->dfl_cgrp->kn->id;

	__u64 index = bpf_core_enum_value(enum cgroup_subsys_id, cpu_cgrp_id);
	struct cgroup_subsys_state **css = (void *)set + bpf_core_field_offset(set->subsys) + index * sizeof(*css);

	return (*css)->cgroup->kn->id;
}

static __always_inline void lose(__u32 what)
{
	__u64 *count = bpf_map_lookup_elem(&lost, &what);

	if (count)
		*count += 1;
}

static __always_inline struct usage *usage_of(__u64 group)
{
	struct usage *known = bpf_map_lookup_elem(&groups, &group);

	if (known)
		return known;

	struct usage none = {};

	bpf_map_update_elem(&groups, &group, &none, BPF_NOEXIST);
	known = bpf_map_lookup_elem(&groups, &group);
	if (!known)
		lose(LOST_USAGE);
	return known;
}

// The usage of a group on another CPU than this one; before Linux 5.19, on this one.
static __always_inline struct usage *usage_on(__u64 group, __u32 cpu)
{
	struct usage *here = usage_of(group);

	if (!here || !bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_map_lookup_percpu_elem))
		return here;
	return bpf_map_lookup_percpu_elem(&groups, &group, cpu);
}

// What is owed is counted on this CPU. A reading may be interrupted by the scheduler here; nothing
// interrupts the scheduler.
static __always_inline void owe(__u64 waits, __u64 runs, __u64 ns, bool reading)
{
	struct pair pair = {waits, runs};
	__u64 *sum = bpf_map_lookup_elem(&owed, &pair), none = 0;

	if (!sum) {
		bpf_map_update_elem(&owed, &pair, &none, BPF_NOEXIST);
		sum = bpf_map_lookup_elem(&owed, &pair);
	}
	if (!sum)
		lose(LOST_OWED);
	else if (reading)
		__sync_fetch_and_add(sum, ns);
	else
		*sum += ns;
}

// For how long quotas have kept a task's group off the CPU it is on, the quotas of all groups
// above it too. Before Linux 6.6 the time of a throttling is added when it ends, by a clock
// that may be slower than real time.
static __always_inline __u64 throttle_clock(struct task_struct *task)
{
	if (!bpf_core_field_exists(task->se.cfs_rq))
		return 0;

	struct cfs_rq *queue = task->se.cfs_rq;

	if (bpf_core_field_exists(queue->throttled_clock_self_time)) {
		__u64 began = queue->throttled_clock_self, now = queue->rq->clock;

		return queue->throttled_clock_self_time + (began && now > began ? now - began : 0);
	}
	if (bpf_core_field_exists(((struct cfs_rq___before_6_6 *)queue)->throttled_clock_pelt_time))
		return BPF_CORE_READ((struct cfs_rq___before_6_6 *)queue, throttled_clock_pelt_time);
	if (bpf_core_field_exists(((struct cfs_rq___before_5_19 *)queue)->throttled_clock_task_time))
		return BPF_CORE_READ((struct cfs_rq___before_5_19 *)queue, throttled_clock_task_time);
	return 0;
}

static __always_inline void enter_queue(struct task_struct *task, struct task_times *times, __u64 now)
{
	times->queued_since = now;
	times->throttled = throttle_clock(task);
}

// When the last throttling of a task's queue began, or 0 where that is not known. A task is
// throttled when it leaves the CPU; only before Linux 6.18 may one be throttled that waits
// already, because another thread of its group has used the quota up. clock_pelt is slower than
// real time on a CPU at less than its full speed.
static __always_inline __u64 throttling_began(struct task_struct *task, __u64 now)
{
	if (!bpf_core_field_exists(task->se.cfs_rq))
		return 0;

	struct cfs_rq *queue = task->se.cfs_rq;
	struct rq *rq = queue->rq;
	__u64 ago;

	if (bpf_core_field_exists(queue->throttled_limbo_list) || !bpf_core_field_exists(queue->throttled_clock_pelt) ||
	    !bpf_core_field_exists(rq->lost_idle_time))
		return 0;
	ago = rq->clock_pelt - rq->lost_idle_time - queue->throttled_clock_pelt;
	return ago < now ? now - ago : 0;
}

// The part of the time from began until ended that does not lie in the hole.
static __always_inline __u64 outside(struct span hole, __u64 began, __u64 ended)
{
	__u64 from = hole.from > began ? hole.from : began, to = hole.to < ended ? hole.to : ended;

	return ended - began - (to > from ? to - from : 0);
}

// Charges a task's wait in one CPU's queue from since until now: to its group, and to those who
// ran there. clock is what the queue's throttling had come to at its beginning.
//
// What of it was throttled is taken for one span, from where the last throttling began, or as
// much earlier as it needs; where that is not known, from where the wait began.
static __always_inline void charge(struct task_struct *task, __u64 since, __u64 clock, __u64 group,
				   struct usage *usage, struct cpu *cpu, __u32 id, __u64 now, bool reading)
{
	__u64 until = now, runs, changes, ns;
	struct span hole = {};

	if (!since || since >= now)
		return;
	__sync_fetch_and_add(&usage->wait_ns, now - since);
	if (clock != NOT_KNOWN) {
		__u64 is = throttle_clock(task);
		__u64 throttled = is > clock ? is - clock : 0;

		if (throttled > now - since)
			throttled = now - since;
		if (throttled) {
			__sync_fetch_and_add(&usage->throttled_ns, throttled);
			hole.from = throttling_began(task, now);
			if (hole.from > now - throttled)
				hole.from = now - throttled;
			if (hole.from < since)
				hole.from = since;
			hole.to = hole.from + throttled;
		}
	}
	if (group == ROOT)
		return;
	runs = cpu->running;
	changes = cpu->changes;
	for (int i = 0; i < PAST && since < until && changes; i++) {
		changes--;

		__u64 from = cpu->past[changes % PAST].until;
		__u64 began = from > since ? from : since;

		if (until > began && runs != NOBODY) {
			ns = outside(hole, began, until);
			if (runs == group)
				__sync_fetch_and_add(&usage->self_ns, ns);
			else if (ns)
				owe(group, runs, ns, reading);
		}
		runs = cpu->past[changes % PAST].group;
		if (from < until) // else the CPU has changed since now
			until = from;
	}
	if (until > since) {
		ns = outside(hole, since, until);
		if (ns)
			owe(group, FORGOTTEN | id, ns, reading);
	}
}

// Notes down that the CPU goes to a task of a group.
static __always_inline void pass_on(struct cpu *cpu, __u64 group, __u64 now)
{
	cpu->since = now;
	if (cpu->changes && cpu->running == group)
		return;
	cpu->past[cpu->changes % PAST].group = cpu->running;
	cpu->past[cpu->changes % PAST].until = now;
	cpu->changes++;
	cpu->running = group;
}

static __always_inline int is_blocking(struct task_struct *task)
{
	if (bpf_core_field_exists(task->__state))
		return task->__state != 0;
	return BPF_CORE_READ((struct task_struct___before_5_14 *)task, state) != 0;
}

// Under the run queue's lock, as at a wake-up.
static __always_inline bool is_running(struct task_struct *task)
{
	if (bpf_core_field_exists(task->on_cpu))
		return task->on_cpu;
	return task->pid == (__s32)bpf_get_current_pid_tgid();
}

static __always_inline int became_runnable(struct task_struct *task)
{
	struct task_times *times;

	// A task can be woken while it is still running (it was about to sleep): no wait.
	if (is_running(task))
		return 0;
	times = bpf_task_storage_get(&tasks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	// Woken twice before it runs: the first time counts.
	if (times && !times->queued_since)
		enter_queue(task, times, bpf_ktime_get_ns());
	return 0;
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(sched_wakeup, struct task_struct *task)
{
	return became_runnable(task);
}

SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(sched_wakeup_new, struct task_struct *task)
{
	return became_runnable(task);
}

static __always_inline void leave_cpu(struct task_struct *task, bool preempted, __u64 now)
{
	struct task_times *times;

	if (!preempted && is_blocking(task))
		return;
	times = bpf_task_storage_get(&tasks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (times)
		enter_queue(task, times, now);
}

static __always_inline void enter_cpu(struct task_struct *task, __u64 group, struct usage *usage,
				      struct cpu *cpu, __u32 id, __u64 now)
{
	struct task_times *times = bpf_task_storage_get(&tasks, task, 0, 0);
	__u64 since;

	usage->switches += 1;
	if (!times)
		return;
	// A reading may be about to charge the same wait: whoever takes its beginning does.
	since = __sync_lock_test_and_set(&times->queued_since, 0);
	charge(task, since, times->throttled, group, usage, cpu, id, now, false);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch, bool preempted, struct task_struct *prev, struct task_struct *next)
{
	__u32 id = bpf_get_smp_processor_id();
	struct cpu *cpu = bpf_map_lookup_elem(&cpus, &id);
	struct usage *usage = 0;
	__u64 now, group;

	if (!cpu)
		return 0;
	now = bpf_ktime_get_ns();
	// pid 0 is the idle task of each CPU: it neither waits nor works.
	if (prev->pid) {
		leave_cpu(prev, preempted, now);
		if (cpu->since) {
			usage = usage_of(cpu->running);
			if (usage)
				usage->run_ns += now - cpu->since;
		}
	}
	group = next->pid ? group_of(next) : NOBODY;
	if (group != NOBODY) {
		if (group != cpu->running || !usage)
			usage = usage_of(group);
		if (usage)
			enter_cpu(next, group, usage, cpu, id, now);
	}
	pass_on(cpu, group, now);
	return 0;
}

// A task that is woken goes to another CPU before it waits: that is no change of queue.
SEC("tp_btf/sched_migrate_task")
int BPF_PROG(sched_migrate_task, struct task_struct *task)
{
	struct task_times *times = bpf_task_storage_get(&tasks, task, 0, 0);
	struct usage *usage;
	struct cpu *cpu;
	__u64 now, group, since;
	__u32 id;

	if (!times || !times->queued_since || !bpf_core_field_exists(task->se.cfs_rq))
		return 0;
	now = bpf_ktime_get_ns();
	since = __sync_lock_test_and_set(&times->queued_since, now);
	group = group_of(task);
	id = task->se.cfs_rq->rq->cpu;
	usage = usage_on(group, id);
	cpu = bpf_map_lookup_elem(&cpus, &id);
	if (usage && cpu)
		charge(task, since, times->throttled, group, usage, cpu, id, now, false);
	times->throttled = NOT_KNOWN; // of the queue it goes to, which is none that is throttled
	return 0;
}

static __always_inline bool is_waiting(struct task_struct *task)
{
	// Since Linux 6.12 one that has gone to sleep may stay in the queue for a while.
	return task->on_rq && task->se.cfs_rq->rq->curr != task && !is_blocking(task);
}

// Begins the wait of a task that nothing has been seen of since the programs were attached.
static __always_inline void find_waiting(struct task_struct *task, struct task_times *times, __u64 now)
{
	if (!is_waiting(task))
		return;
	times->throttled = throttle_clock(task);
	if (__sync_val_compare_and_swap(&times->queued_since, 0, now))
		return;
	// It may have got the CPU since it was looked at: then no wait may stay.
	if (!is_waiting(task))
		__sync_val_compare_and_swap(&times->queued_since, now, 0);
}

// Charges every wait that goes on with what it has come to, and lets it begin anew: a task that is
// kept from the CPU for seconds is seen while it is.
SEC("iter/task")
int charge_waiting(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct task_times *times;
	struct cfs_rq *queue;
	struct usage *usage;
	struct cpu *cpu;
	__u64 now, since, clock, group;
	__u32 id;

	if (!task || !task->on_rq || !bpf_core_field_exists(task->se.cfs_rq))
		return 0;
	queue = task->se.cfs_rq;
	// How long a throttling has gone on is known on the CPU it is on alone.
	if (bpf_core_field_exists(queue->throttle_count) && queue->throttle_count)
		return 0;
	times = bpf_task_storage_get(&tasks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!times)
		return 0;
	since = times->queued_since;
	clock = times->throttled;
	now = bpf_ktime_get_ns();
	if (!since) {
		find_waiting(task, times, now);
		return 0;
	}
	if (since >= now || __sync_val_compare_and_swap(&times->queued_since, since, now) != since)
		return 0; // it has the CPU by now, or is in another queue
	__sync_val_compare_and_swap(&times->throttled, clock, throttle_clock(task));
	group = group_of(task);
	id = queue->rq->cpu;
	usage = usage_on(group, id);
	cpu = bpf_map_lookup_elem(&cpus, &id);
	if (usage && cpu)
		charge(task, since, clock, group, usage, cpu, id, now, true);
	return 0;
}

// Forgets every wait that is known: some may have ended while nothing was attached.
SEC("iter/task")
int forget_waiting(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct task_times *times;

	if (!task)
		return 0;
	times = bpf_task_storage_get(&tasks, task, 0, 0);
	if (times)
		times->queued_since = 0;
	return 0;
}

char _license[] SEC("license") = "GPL";
