//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

// What the TCP connections of the machine have carried, by the addresses of their ends, and
// the round trips that the kernel has measured on them. All network namespaces are seen.
//
// Nothing runs when a packet comes or goes: the kernel counts for every connection already. A
// connection is noted down when it is established (or, once, when it is found open), with what
// it had carried by then. What it carries from then on is added to what is known of its two
// addresses when somebody reads (`report`), and when it ends.

#include "../include/types.h"

struct bpf_sock;

// As in linux/bpf.h, whose layout is fixed; what is not read here has no name.
struct bpf_sock_ops {
	__u32 op;
	__u32 args[4];
	__u32 unread[16];
	__u32 bpf_sock_ops_cb_flags;
	__u32 unread_either[24];
	struct bpf_sock *sk;
};

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

// The values of linux/bpf.h and of the kernel's other headers that only this program uses.
enum {
	BPF_MAP_TYPE_SK_STORAGE = 24,

	BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB = 4,
	BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB = 5,
	BPF_SOCK_OPS_STATE_CB = 10,
	BPF_SOCK_OPS_STATE_CB_FLAG = 1 << 2,

	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT = 2,
	TCP_FIN_WAIT1 = 4,
	TCP_FIN_WAIT2 = 5,
	TCP_CLOSE = 7,
	TCP_CLOSE_WAIT = 8,
	TCP_LAST_ACK = 9,
	TCP_CLOSING = 11,

	AF_INET = 2,
	AF_INET6 = 10,

	SOCK_DONE = 1, // enum sock_flags: a FIN has come
};

struct in6_addr {
	union {
		__be32 u6_addr32[4];
	} in6_u;
} RELOCATED;

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	unsigned long skc_flags;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
} RELOCATED;

struct sock {
	struct sock_common __sk_common;
} RELOCATED;

struct minmax_sample {
	__u32 t;
	__u32 v;
} RELOCATED;

struct minmax {
	struct minmax_sample s[3];
} RELOCATED;

struct tcp_sock {
	__u64 bytes_received;
	__u64 bytes_acked;
	__u32 segs_in;
	__u32 snd_una;
	__u32 write_seq;
	__u32 srtt_us;
	struct minmax rtt_min;
} RELOCATED;

struct socket {
	struct sock *sk;
} RELOCATED;

struct file;
struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
} RELOCATED;

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct file *file;
} RELOCATED;

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct sock *sk;
} RELOCATED;

// The addresses of the two ends; IPv4 as mapped into IPv6.
struct pair {
	__be32 local[4];
	__be32 remote[4];
};

// How far the counters of a connection are in its pair's already, or were when it was seen.
struct connection {
	__u64 sent, received;
	__u32 segments;
	__u32 unused;
};

// What the connections between two addresses have carried. Nothing but the last two
// is ever less by more than a FIN.
struct traffic {
	__u64 sent;	   // payload that the other end has acknowledged
	__u64 received;	   // payload
	__u64 connections; // as often as one had received segments since it was looked at before
	__u64 segments;	   // received, of connections whose round trip is known
	__u64 srtt;	   // the sum over these segments of the smoothed round trip, in microseconds
	__u32 min_rtt;	   // the least round trip in the period, in microseconds; 0: none
	__u32 period;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __s32);
	__type(value, struct connection);
} connections SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct pair);
	__type(value, struct traffic);
} pairs SEC(".maps");

// How many of `pairs` a local address is in.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384); // as many as `pairs`
	__type(key, __be32[4]);
	__type(value, __u32);
} locals SEC(".maps");

// Connections that could not be noted down, and those that ended when `pairs` had no room.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

// Which reading is next; never 0.
volatile __u32 period = 1;

// How many pairs one local address may be in, about: two that come at once count as one.
volatile const __u32 part = 4096;

static __always_inline void lose(void)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&lost, &zero);

	if (count)
		*count += 1;
}

static __always_inline int is_loopback(const __be32 *address)
{
	if (!address[0] && !address[1] && address[2] == __builtin_bswap32(0xffff))
		return (address[3] & 0xff) == 127;
	return !address[0] && !address[1] && !address[2] && address[3] == __builtin_bswap32(1);
}

// Gives 0 for a connection that stays within one host.
static __always_inline int addresses(struct sock *sk, struct pair *pair)
{
	switch (sk->__sk_common.skc_family) {
	case AF_INET:
		pair->local[2] = pair->remote[2] = __builtin_bswap32(0xffff);
		pair->local[3] = sk->__sk_common.skc_rcv_saddr;
		pair->remote[3] = sk->__sk_common.skc_daddr;
		break;
	case AF_INET6:
		if (!bpf_core_field_exists(sk->__sk_common.skc_v6_daddr))
			return 0;
		for (int i = 0; i < 4; i++) {
			pair->local[i] = sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[i];
			pair->remote[i] = sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[i];
		}
		break;
	default:
		return 0;
	}
	return !is_loopback(pair->remote) &&
	       (pair->local[0] != pair->remote[0] || pair->local[1] != pair->remote[1] ||
		pair->local[2] != pair->remote[2] || pair->local[3] != pair->remote[3]);
}

// What the other end has acknowledged, but for a FIN, which the kernel counts as a byte. Where
// the socket is not locked, `settled` is 0: bytes_acked and snd_una need not agree.
static __always_inline __u64 acknowledged(struct sock *sk, struct tcp_sock *tp, int settled)
{
	__u64 bytes = tp->bytes_acked;
	__u32 fin_sent = 1 << TCP_FIN_WAIT1 | 1 << TCP_FIN_WAIT2 | 1 << TCP_CLOSING | 1 << TCP_LAST_ACK;

	if (bytes && (fin_sent >> sk->__sk_common.skc_state & 1) && (!settled || tp->snd_una == tp->write_seq))
		bytes -= 1;
	return bytes;
}

// What has come in order, but for a FIN.
static __always_inline __u64 received(struct sock *sk, struct tcp_sock *tp)
{
	__u64 bytes = tp->bytes_received;

	return bytes - (bytes && (sk->__sk_common.skc_flags >> SOCK_DONE & 1));
}

// Moves a mark on, and gives by how much: a socket may be looked at by several at once.
static __always_inline __u64 claim(__u64 *mark, __u64 now)
{
	for (int i = 0; i < 3; i++) {
		__u64 was = *(volatile __u64 *)mark;

		if (was >= now)
			break;
		if (__sync_val_compare_and_swap(mark, was, now) == was)
			return now - was;
	}
	return 0;
}

// Gives what is left to tell of a socket that ends: less than nothing, if somebody has looked when
// a FIN was counted and not yet known. Nobody moves the mark any more: who has found the socket
// before may look at it later, when it is closed, and take the FIN for a byte.
static __always_inline __u64 settle(__u64 *mark, __u64 now)
{
	return now - __sync_lock_test_and_set(mark, ~0ULL);
}

static __always_inline void opened(struct sock *sk, __u64 sent, __u64 received, __u32 segments)
{
	struct connection first = {.sent = sent, .received = received, .segments = segments};
	struct pair pair = {};

	if (addresses(sk, &pair) && !bpf_sk_storage_get(&connections, sk, &first, BPF_LOCAL_STORAGE_GET_F_CREATE))
		lose();
}

static __always_inline struct traffic *traffic_of(struct pair *pair)
{
	struct traffic *known = bpf_map_lookup_elem(&pairs, pair);
	struct traffic none = {};
	__u32 *have, first = 1;

	if (known)
		return known;
	have = bpf_map_lookup_elem(&locals, pair->local);
	if (have && *have >= part)
		return 0;
	if (!bpf_map_update_elem(&pairs, pair, &none, BPF_NOEXIST)) {
		if (have)
			__sync_fetch_and_add(have, 1);
		else
			bpf_map_update_elem(&locals, pair->local, &first, BPF_NOEXIST);
	}
	return bpf_map_lookup_elem(&pairs, pair);
}

static __always_inline void add_round_trip(struct traffic *t, struct tcp_sock *tp, __u32 segments)
{
	__u32 srtt = tp->srtt_us >> 3, least = tp->rtt_min.s[0].v, now = period;

	if (!srtt)
		return;
	__sync_fetch_and_add(&t->segments, segments);
	__sync_fetch_and_add(&t->srtt, (__u64)segments * srtt);
	if (t->period != now) {
		t->period = now;
		t->min_rtt = 0;
	}
	if (least != ~0U && (!t->min_rtt || least < t->min_rtt))
		t->min_rtt = least;
}

// Adds to the pair what the connection has carried since it was looked at before; gives -1 if
// there is no room.
static __always_inline int account(struct sock *sk, struct tcp_sock *tp, struct connection *c, int settled)
{
	__u32 was = c->segments, now = tp->segs_in;
	__u64 sent = acknowledged(sk, tp, settled), had = received(sk, tp);
	struct pair pair = {};
	struct traffic *t;

	if (settled) {
		sent = settle(&c->sent, sent);
		had = settle(&c->received, had);
		if (now == was && !sent && !had)
			return 0;
	} else if (now == was && sent <= c->sent && had <= c->received) {
		return 0;
	}
	addresses(sk, &pair);
	t = traffic_of(&pair);
	if (!t)
		return -1;
	__sync_fetch_and_add(&t->sent, settled ? sent : claim(&c->sent, sent));
	__sync_fetch_and_add(&t->received, settled ? had : claim(&c->received, had));
	if ((__s32)(now - was) <= 0)
		return 0;
	c->segments = now;
	__sync_fetch_and_add(&t->connections, 1);
	add_round_trip(t, tp, now - was);
	return 0;
}

static __always_inline void closed(struct sock *sk, struct tcp_sock *tp)
{
	struct connection *c = bpf_sk_storage_get(&connections, sk, 0, 0);

	if (!c)
		return;
	if (account(sk, tp, c, 1))
		lose();
	bpf_sk_storage_delete(&connections, sk);
}

// A client's SYN has been counted as a byte by now.
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(inet_sock_set_state, struct sock *sk, int from, int to)
{
	struct tcp_sock *tp;

	if (to != TCP_ESTABLISHED && to != TCP_CLOSE)
		return 0;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp)
		return 0;
	if (to == TCP_ESTABLISHED)
		opened(sk, from == TCP_SYN_SENT, 0, 0);
	else
		closed(sk, tp);
	return 0;
}

// The same for a kernel whose tracepoints cannot be used.
SEC("sockops")
int sock_ops(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	struct tcp_sock *tp;

	if (!sk)
		return 1;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp)
		return 1;
	switch (ops->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		opened((struct sock *)tp, ops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, 0, 0);
		bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ops->args[1] == TCP_CLOSE)
			closed((struct sock *)tp, tp);
		break;
	}
	return 1;
}

// Notes down, for every file of a process that is an open connection, what it has carried.
SEC("iter/task_file")
int find(struct bpf_iter__task_file *ctx)
{
	__u32 states = 1 << TCP_ESTABLISHED | 1 << TCP_FIN_WAIT1 | 1 << TCP_FIN_WAIT2 | 1 << TCP_CLOSE_WAIT |
		       1 << TCP_CLOSING | 1 << TCP_LAST_ACK;
	struct file *file = ctx->file;
	struct socket *socket;
	struct tcp_sock *tp;
	struct sock *sk;

	if (!file)
		return 0;
	socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	sk = socket->sk;
	if (!sk)
		return 0;
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp && (states >> sk->__sk_common.skc_state & 1))
		opened(sk, acknowledged(sk, tp, 1), received(sk, tp), tp->segs_in);
	return 0;
}

SEC("iter/bpf_sk_storage_map")
int report(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct sock *sk = ctx->sk;
	struct connection *c;
	struct tcp_sock *tp;

	if (!sk)
		return 0;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp || sk->__sk_common.skc_state == TCP_CLOSE)
		return 0;
	c = bpf_sk_storage_get(&connections, sk, 0, 0);
	if (c)
		account(sk, tp, c, 0); // what has no room has it when somebody reads again, perhaps
	return 0;
}

char _license[] SEC("license") = "GPL";
