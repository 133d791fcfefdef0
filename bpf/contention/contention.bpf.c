//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

// How long the tasks of each control group wait in the CPU's run queue, and how long they run.
//
// A task waits from the moment it becomes runnable (woken, new, or taken off the CPU while it
// still wanted to run) until it is put on a CPU. The wait is charged on switch-in, all of it
// at once and to the group the task is in by then: a task that has not got the CPU yet has
// been charged nothing yet. Time is the monotonic clock of the whole machine, so a task may
// change the CPU while it waits. Tasks that were runnable or running when the programs were
// attached are charged from their next change on.

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef _Bool bool;

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

// The few values of linux/bpf.h that are used here.
enum {
	BPF_MAP_TYPE_PERCPU_HASH = 5,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_TASK_STORAGE = 29,
	BPF_F_NO_PREALLOC = 1,
	BPF_NOEXIST = 1,
	BPF_LOCAL_STORAGE_GET_F_CREATE = 1,
};

#define RELOCATED __attribute__((preserve_access_index))

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

struct task_struct {
	__s32 pid;
	unsigned int __state;
	struct css_set *cgroups;
} RELOCATED;

// task_struct before Linux 5.14.
struct task_struct___before_5_14 {
	long state;
} RELOCATED;

// v1_cpu: groups are those of the version 1 cpu hierarchy, else those of version 2.
const volatile __u8 v1_cpu = 0;

// What is known of one task. At most one of the two is set.
struct task_times {
	__u64 runnable_since;
	__u64 running_since;
};

// What is known of one control group. All of it only grows.
struct usage {
	__u64 wait_ns;
	__u64 run_ns;
	__u64 switches; // times that a task of the group was put on a CPU
};

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

// Charges lost because `groups` was full or locked.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

static __always_inline __u64 group_of(struct task_struct *task)
{
	struct css_set *set = BPF_CORE_READ(task, cgroups);

	if (!v1_cpu)
		return BPF_CORE_READ(set, dfl_cgrp, kn, id);

	__u64 index = bpf_core_enum_value(enum cgroup_subsys_id, cpu_cgrp_id);
	struct cgroup_subsys_state *css = 0;
	const char *first = (const char *)set + bpf_core_field_offset(set->subsys);

	bpf_probe_read_kernel(&css, sizeof(css), first + index * sizeof(css));
	return BPF_CORE_READ(css, cgroup, kn, id);
}

static __always_inline struct usage *usage_of(__u64 group)
{
	struct usage *known = bpf_map_lookup_elem(&groups, &group);

	if (known)
		return known;

	struct usage none = {};

	bpf_map_update_elem(&groups, &group, &none, BPF_NOEXIST);
	known = bpf_map_lookup_elem(&groups, &group);
	if (!known) {
		__u32 zero = 0;
		__u64 *count = bpf_map_lookup_elem(&lost, &zero);

		if (count)
			*count += 1;
	}
	return known;
}

static __always_inline int is_blocking(struct task_struct *task)
{
	if (bpf_core_field_exists(task->__state))
		return task->__state != 0;
	return BPF_CORE_READ((struct task_struct___before_5_14 *)task, state) != 0;
}

static __always_inline int became_runnable(struct task_struct *task)
{
	struct task_times *times = bpf_task_storage_get(&tasks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	// A task can be woken while it is still running (it was about to sleep): no wait.
	// Woken twice before it runs: the first time counts.
	if (times && !times->running_since && !times->runnable_since)
		times->runnable_since = bpf_ktime_get_ns();
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

static __always_inline void leave_cpu(struct task_struct *task, int preempted, __u64 now)
{
	struct task_times *times = bpf_task_storage_get(&tasks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!times)
		return;
	if (times->running_since) {
		struct usage *usage = usage_of(group_of(task));

		if (usage)
			usage->run_ns += now - times->running_since;
	}
	times->running_since = 0;
	times->runnable_since = preempted || !is_blocking(task) ? now : 0;
}

static __always_inline void enter_cpu(struct task_struct *task, __u64 now)
{
	struct task_times *times = bpf_task_storage_get(&tasks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	struct usage *usage;

	if (!times)
		return;
	usage = usage_of(group_of(task));
	if (usage) {
		usage->switches += 1;
		if (times->runnable_since)
			usage->wait_ns += now - times->runnable_since;
	}
	times->runnable_since = 0;
	times->running_since = now;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch, bool preempted, struct task_struct *prev, struct task_struct *next)
{
	__u64 now = bpf_ktime_get_ns();

	// pid 0 is the idle task of each CPU: it neither waits nor works.
	if (prev->pid)
		leave_cpu(prev, preempted, now);
	if (next->pid)
		enter_cpu(next, now);
	return 0;
}

char _license[] SEC("license") = "GPL";
