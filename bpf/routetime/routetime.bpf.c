//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

// The round trip between two nodes, from kernel to kernel.
//
// A program where the kernel tells sockets of time stamps that they asked for notes when a probe
// leaves, the peer's ingress program turns the probe round without waking anybody, and
// the origin's ingress program takes the time when it is back. A node whose every processor is
// busy still answers from its interrupt. No other packet that leaves a node meets a program.
//
// What is believed: the origin's own table of probes, never the packet. A nonce that user
// space did not announce is never stamped, an answer that was not asked for from that very
// address is dropped, and an answer counts once. A probe is answered to members alone, with
// a packet of the same size, so nothing can be amplified.
//
// What the peer's program took to turn the probe round is no part of its way: where its caches
// are cold that is 20 µs and more. It writes that into the answer, and 65 µs at most are taken
// off: by so much a peer can make itself nearer.

#include "packet.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

struct sk_buff {
	unsigned char *head;
	__u16 network_header;
	__be16 protocol;
} RELOCATED;

struct sk_buff_head {
	struct sk_buff *prev; // the last
	__u32 qlen;
} RELOCATED;

struct sock {
	struct sk_buff_head sk_error_queue;
} RELOCATED;

struct expected {
	struct address peer;
	__u64 sent_ns; // 0 until it has left
};

struct sample {
	struct address peer;
	__u64 nonce;
	__u64 rtt_ns;
	__u32 kind;
	__u32 zero;
};

enum member {
	MEMBER_SELF = 1,
	MEMBER_PEER = 2,
};

enum counter {
	STAMPED,
	ANSWERED,
	ANSWERED_XDP,
	MEASURED,
	STRANGER,
	UNKNOWN,
	WRONG_PEER,
	UNSTAMPED,
	RING_FULL,
	COUNTERS,
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 14);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address);
	__type(value, enum member);
} members SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 16);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct expected);
} outstanding SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, enum counter);
	__type(value, __u64);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
} samples SEC(".maps");

static __always_inline void count(enum counter which)
{
	__u64 *n = bpf_map_lookup_elem(&counters, &which);

	if (n)
		*n += 1;
}

static __always_inline bool same(const struct address *a, const struct address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] &&
	       a->word[2] == b->word[2] && a->word[3] == b->word[3];
}

static __always_inline bool is(const struct address *a, enum member what)
{
	enum member *member = bpf_map_lookup_elem(&members, a);

	return member && *member == what;
}

// Almost every packet of the node costs no more than this. A bare acknowledgement of TCP, with
// its time stamp, is as long as a probe.
static __always_inline bool may_be_probe(struct __sk_buff *skb)
{
	__u8 *head = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 len = skb->len;

	if (len != ETHER + sizeof(struct datagram_v4) && len != ETHER + sizeof(struct datagram_v6))
		return false;
	if (head + ETHER + sizeof(struct ipv4) > end) // to be copied from its fragments
		return true;
	if (len == ETHER + sizeof(struct datagram_v4))
		return head[ETHER + 9] == IPPROTO_UDP;
	return head[ETHER + 6] == IPPROTO_UDP;
}

static __always_inline bool parse_v4(struct __sk_buff *skb, struct packet *p)
{
	struct datagram_v4 h;

	return skb->len == ETHER + sizeof(h) && !bpf_skb_load_bytes(skb, ETHER, &h, sizeof(h)) &&
	       read_v4(&h, p);
}

static __always_inline bool parse_v6(struct __sk_buff *skb, struct packet *p)
{
	struct datagram_v6 h;

	return skb->len == ETHER + sizeof(h) && !bpf_skb_load_bytes(skb, ETHER, &h, sizeof(h)) &&
	       read_v6(&h, p);
}

static __always_inline bool parse(struct __sk_buff *skb, struct packet *p)
{
	// A tagged packet belongs to the VLAN's own device, where it is seen without its tag.
	if (skb->vlan_present)
		return false;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return parse_v4(skb, p);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return parse_v6(skb, p);
	return false;
}

// What fits into the answer of a time in nanoseconds.
static __always_inline __be16 short_of(__u64 ns)
{
	return bpf_htons(ns < 0xffff ? ns : 0xffff);
}

// Swapped words, ports too, leave every checksum as it is.
static __always_inline int turn(struct __sk_buff *skb, const struct packet *p)
{
	struct {
		__u8 destination[6];
		__u8 source[6];
	} eth, back;
	__u8 kind = KIND_KERNEL, ttl = TTL;
	__be16 ports[2] = { bpf_htons(PORT), p->port };
	__u32 probe = p->udp + sizeof(struct udp);

	if (bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)))
		return -1;
	__builtin_memcpy(back.destination, eth.source, 6);
	__builtin_memcpy(back.source, eth.destination, 6);
	if (bpf_skb_store_bytes(skb, 0, &back, sizeof(back), 0))
		return -1;

	if (p->v4) {
		__be32 ends[2] = { p->destination.word[3], p->source.word[3] };
		__be16 old, new;

		if (bpf_skb_load_bytes(skb, ETHER + 8, &old, sizeof(old)))
			return -1;
		new = bpf_htons(TTL << 8 | IPPROTO_UDP);
		if (bpf_l3_csum_replace(skb, ETHER + 10, old, new, sizeof(new)) ||
		    bpf_skb_store_bytes(skb, ETHER + 8, &ttl, 1, 0) ||
		    bpf_skb_store_bytes(skb, ETHER + 12, ends, sizeof(ends), 0))
			return -1;
	} else {
		struct address ends[2] = { p->destination, p->source };

		if (bpf_skb_store_bytes(skb, ETHER + 7, &ttl, 1, 0) ||
		    bpf_skb_store_bytes(skb, ETHER + 8, ends, sizeof(ends), 0))
			return -1;
	}
	if (bpf_skb_store_bytes(skb, p->udp, ports, sizeof(ports), 0))
		return -1;
	// A checksum that is absent stays absent, one that the card will fill in is left to it.
	if (bpf_l4_csum_replace(skb, p->udp + 6, bpf_htons(VERSION << 8 | KIND_PROBE),
				bpf_htons(VERSION << 8 | KIND_KERNEL),
				BPF_F_MARK_MANGLED_0 | sizeof(__be16)))
		return -1;
	return bpf_skb_store_bytes(skb, probe + 5, &kind, 1, 0);
}

// Writes into an answer how long it took to make, up to here: the way from the end of the program
// into the device's queue is left out, as nothing sees a packet there that other packets would
// not pay for.
static __always_inline int complete(struct __sk_buff *skb, const struct packet *p, __u64 came)
{
	__be16 dwell = short_of(bpf_ktime_get_ns() - came);

	if (bpf_l4_csum_replace(skb, p->udp + 6, 0, dwell, BPF_F_MARK_MANGLED_0 | sizeof(dwell)))
		return -1;
	return bpf_skb_store_bytes(skb, p->udp + sizeof(struct udp) + 6, &dwell, sizeof(dwell), 0);
}

static __always_inline int answer(struct __sk_buff *skb, const struct packet *p, __u64 now)
{
	if (!is(&p->source, MEMBER_PEER)) {
		count(STRANGER);
		return DROP;
	}
	if (turn(skb, p))
		return DROP;
	count(ANSWERED);
	if (complete(skb, p, now))
		return DROP;
	return bpf_redirect(skb->ifindex, 0);
}

static __always_inline int measure(const struct packet *p, __u64 now)
{
	__u64 dwell = bpf_ntohs(p->dwell);
	struct expected *found = bpf_map_lookup_elem(&outstanding, &p->nonce);
	struct sample sample = {};

	if (!found) {
		count(UNKNOWN);
		return DROP;
	}
	if (!same(&found->peer, &p->source)) {
		count(WRONG_PEER);
		return DROP;
	}
	if (!found->sent_ns) { // it left by a socket that asks for no stamp: user space has the time
		count(UNSTAMPED);
		return NEXT;
	}
	sample.peer = p->source;
	sample.nonce = p->nonce;
	sample.rtt_ns = now - found->sent_ns;
	if (sample.rtt_ns > dwell)
		sample.rtt_ns -= dwell;
	sample.kind = p->kind;
	if (bpf_map_delete_elem(&outstanding, &p->nonce)) { // its twin on another CPU was first
		count(UNKNOWN);
		return DROP;
	}
	count(bpf_ringbuf_output(&samples, &sample, sizeof(sample), 0) ? RING_FULL : MEASURED);
	return DROP;
}

// A socket has something in its error queue: of a Sender's it is the probe, put there together with
// a stamp in the moment that the kernel gives it to the device. Few other packets come here.
SEC("tp_btf/inet_sk_error_report")
int BPF_PROG(routetime_leaves, const struct sock *sk)
{
	const struct sk_buff *skb = sk->sk_error_queue.prev;
	const unsigned char *at = skb->head + skb->network_header;
	struct packet p = {};
	struct expected *found;
	union {
		struct datagram_v4 v4;
		struct datagram_v6 v6;
	} h;
	bool is_one = false;

	if (!sk->sk_error_queue.qlen)
		return 0;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		is_one = !bpf_probe_read_kernel(&h.v4, sizeof(h.v4), at) && read_v4(&h.v4, &p);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		is_one = !bpf_probe_read_kernel(&h.v6, sizeof(h.v6), at) && read_v6(&h.v6, &p);
	if (!is_one || p.kind != KIND_PROBE)
		return 0;
	found = bpf_map_lookup_elem(&outstanding, &p.nonce);
	if (!found || found->sent_ns || !same(&found->peer, &p.destination))
		return 0;
	count(STAMPED);
	found->sent_ns = bpf_ktime_get_ns();
	return 0;
}

SEC("tc")
int routetime_ingress(struct __sk_buff *skb)
{
	struct packet p = {};
	__u64 now;

	if (!may_be_probe(skb))
		return NEXT;
	now = bpf_ktime_get_ns();
	// What is only passing through (a pod's traffic, another node's) is none of ours.
	if (skb->pkt_type != PACKET_HOST || !parse(skb, &p) || !is(&p.destination, MEMBER_SELF))
		return NEXT;
	switch (p.kind) {
	case KIND_PROBE:
		return answer(skb, &p, now);
	case KIND_KERNEL:
	case KIND_USER:
		return measure(&p, now);
	}
	return NEXT;
}

// The new checksum after one of the 16-bit words under it has changed (RFC 1624).
static __always_inline __be16 adjust(__be16 check, __be16 old, __be16 new)
{
	__u32 sum = (__u16)~check + (__u16)~old + new;

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline void turn_datagram(struct datagram *d, const struct packet *p, __u64 came)
{
	d->udp.source = bpf_htons(PORT);
	d->udp.destination = p->port;
	d->probe.kind = KIND_KERNEL;
	d->probe.dwell = short_of(bpf_ktime_get_ns() - came);
	if (!d->udp.check)
		return;
	d->udp.check = adjust(d->udp.check, bpf_htons(VERSION << 8 | KIND_PROBE),
			      bpf_htons(VERSION << 8 | KIND_KERNEL));
	d->udp.check = adjust(d->udp.check, 0, d->probe.dwell);
	if (!d->udp.check)
		d->udp.check = 0xffff; // 0 would say that there is none
}

// Whatever is not a member's probe is left to the tc program, which counts it.
static __always_inline bool for_us(const struct packet *p)
{
	return p->kind == KIND_PROBE && is(&p->destination, MEMBER_SELF) &&
	       is(&p->source, MEMBER_PEER);
}

// The verifier understands > alone, and the compiler must not make != of both.
static __always_inline bool exactly(void *after, void *end)
{
	if (after > end)
		return false;
	asm volatile("" : "+r"(end));
	return after == end;
}

// Opt-in: turns a probe round in the driver, before the packet gets its sk_buff.
SEC("xdp")
int routetime_xdp(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ether *eth = (void *)(long)ctx->data;
	struct packet p = {};
	__u8 mac[6];
	__u64 now;

	if ((void *)(eth + 1) > end || eth->destination[0] & 1 /* multicast */)
		return XDP_PASS;
	if (eth->type == bpf_htons(ETH_P_IP)) {
		struct datagram_v4 *h = (void *)(eth + 1);
		__be16 hops;

		if (!exactly(h + 1, end) || !read_v4(h, &p))
			return XDP_PASS;
		now = bpf_ktime_get_ns();
		if (!for_us(&p))
			return XDP_PASS;
		hops = bpf_htons(h->ip.ttl << 8 | IPPROTO_UDP);
		h->ip.ttl = TTL;
		h->ip.check = adjust(h->ip.check, hops, bpf_htons(TTL << 8 | IPPROTO_UDP));
		h->ip.source = p.destination.word[3];
		h->ip.destination = p.source.word[3];
		turn_datagram(&h->d, &p, now);
	} else if (eth->type == bpf_htons(ETH_P_IPV6)) {
		struct datagram_v6 *h = (void *)(eth + 1);

		if (!exactly(h + 1, end) || !read_v6(h, &p))
			return XDP_PASS;
		now = bpf_ktime_get_ns();
		if (!for_us(&p))
			return XDP_PASS;
		h->ip.hops = TTL;
		__builtin_memcpy(h->ip.source, &p.destination, sizeof(h->ip.source));
		__builtin_memcpy(h->ip.destination, &p.source, sizeof(h->ip.destination));
		turn_datagram(&h->d, &p, now);
	} else {
		return XDP_PASS;
	}
	__builtin_memcpy(mac, eth->source, sizeof(mac));
	__builtin_memcpy(eth->source, eth->destination, sizeof(mac));
	__builtin_memcpy(eth->destination, mac, sizeof(mac));
	count(ANSWERED_XDP);
	return XDP_TX;
}

char _license[] SEC("license") = "GPL";
