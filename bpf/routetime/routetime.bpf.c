//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

// The round trip between two nodes, from kernel to kernel.
//
// The origin's egress program notes when a probe leaves, the peer's ingress program turns
// the probe round without waking anybody, and the origin's ingress program takes the time
// when it is back. A node whose every processor is busy still answers from its interrupt.
//
// What is believed: the origin's own table of probes, never the packet. A nonce that user
// space did not announce is never stamped, an answer that was not asked for from that very
// address is dropped, and an answer counts once. A probe is answered to members alone, with
// a packet of the same size, so nothing can be amplified.

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

#include <stdbool.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

// The few values of linux/bpf.h, if_ether.h, if_packet.h and pkt_cls.h that are used here.
enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_F_NO_PREALLOC = 1,
	BPF_F_MARK_MANGLED_0 = 1 << 5,
	ETH_P_IP = 0x0800,
	ETH_P_IPV6 = 0x86dd,
	PACKET_HOST = 0,
	IPPROTO_UDP = 17,
	IP_FRAGMENT = 0x3fff, // offset or "more follow"
	// The same numbers for tcx and for clsact with direct action.
	NEXT = -1,
	DROP = 2,
	XDP_PASS = 2,
	XDP_TX = 3,
};

// The beginning of the kernel's struct __sk_buff; the verifier knows the rest.
struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol;
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto;
	__u32 priority;
	__u32 ingress_ifindex;
	__u32 ifindex;
};

struct xdp_md {
	__u32 data;
	__u32 data_end;
};

struct ether {
	__u8 destination[6];
	__u8 source[6];
	__be16 type;
};

struct ipv4 {
	__u8 version_length;
	__u8 service;
	__be16 total;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__be16 check;
	__be32 source;
	__be32 destination;
};

struct ipv6 {
	__be32 version_flow;
	__be16 payload;
	__u8 next;
	__u8 hops;
	__be32 source[4];
	__be32 destination[4];
};

struct udp {
	__be16 source;
	__be16 destination;
	__be16 length;
	__be16 check;
};

// What travels, in network byte order. 24 bytes make the smallest frame longer than the
// least Ethernet allows, so no card pads it.
struct probe {
	__be32 magic;
	__u8 version;
	__u8 kind;
	__be16 zero;
	__be32 nonce[2];
	__be32 sequence[2];
};

enum {
	PORT = 7948, // probes go to it
	PATHS = 8,   // and come from it and the next ones
	MAGIC = 0x44525254, // "DRRT"
	VERSION = 1,
	KIND_PROBE = 1,
	KIND_KERNEL = 2, // answered here
	KIND_USER = 3,	 // answered by the agent
	ETHER = 14,
	TTL = 64,
};

// An IPv6 address, or an IPv4 address mapped into one.
struct address {
	__be32 word[4];
};

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

// A probe or an answer, read out of a packet.
struct packet {
	struct address source;
	struct address destination;
	__u64 nonce;
	__u32 udp; // offset of its header
	__be16 port; // the origin's
	__u8 kind;
	bool v4;
};

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

struct datagram {
	struct udp udp;
	struct probe probe;
};

struct datagram_v4 {
	struct ipv4 ip;
	struct datagram d;
};

struct datagram_v6 {
	struct ipv6 ip;
	struct datagram d;
};

// A probe comes from one of PATHS ports and goes to PORT, its answer the other way.
static __always_inline bool read(const struct datagram *d, struct packet *p)
{
	__be16 there = d->udp.destination;

	if (d->udp.length != bpf_htons(sizeof(*d)) || d->probe.magic != bpf_htonl(MAGIC) ||
	    d->probe.version != VERSION || d->probe.zero)
		return false;
	p->kind = d->probe.kind;
	p->port = d->udp.source;
	if (p->kind != KIND_PROBE) {
		p->port = d->udp.destination;
		there = d->udp.source;
	}
	p->nonce = (__u64)bpf_ntohl(d->probe.nonce[0]) << 32 | bpf_ntohl(d->probe.nonce[1]);
	return there == bpf_htons(PORT) && (__u16)(bpf_ntohs(p->port) - PORT) < PATHS;
}

static __always_inline bool read_v4(const struct datagram_v4 *h, struct packet *p)
{
	if (h->ip.version_length != 0x45 || h->ip.protocol != IPPROTO_UDP ||
	    h->ip.total != bpf_htons(sizeof(*h)) || h->ip.fragment & bpf_htons(IP_FRAGMENT))
		return false;
	p->v4 = true;
	p->udp = ETHER + sizeof(h->ip);
	p->source.word[2] = p->destination.word[2] = bpf_htonl(0xffff);
	p->source.word[3] = h->ip.source;
	p->destination.word[3] = h->ip.destination;
	return read(&h->d, p);
}

static __always_inline bool read_v6(const struct datagram_v6 *h, struct packet *p)
{
	// Without a checksum it is no UDP over IPv6 (RFC 8200, 8.1).
	if (h->ip.next != IPPROTO_UDP || h->ip.payload != bpf_htons(sizeof(h->d)) ||
	    !h->d.udp.check)
		return false;
	p->udp = ETHER + sizeof(h->ip);
	__builtin_memcpy(&p->source, h->ip.source, sizeof(p->source));
	__builtin_memcpy(&p->destination, h->ip.destination, sizeof(p->destination));
	return read(&h->d, p);
}

static __always_inline bool parse_v4(struct __sk_buff *skb, struct packet *p)
{
	struct datagram_v4 h;

	// Almost every packet of the node has another length, and costs no more than this.
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

static __always_inline int answer(struct __sk_buff *skb, const struct packet *p)
{
	if (!is(&p->source, MEMBER_PEER)) {
		count(STRANGER);
		return DROP;
	}
	if (turn(skb, p))
		return DROP;
	count(ANSWERED);
	return bpf_redirect(skb->ifindex, 0);
}

static __always_inline int measure(const struct packet *p, __u64 now)
{
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
	if (!found->sent_ns) { // left by a device without our program: user space has the time
		count(UNSTAMPED);
		return NEXT;
	}
	sample.peer = p->source;
	sample.nonce = p->nonce;
	sample.rtt_ns = now - found->sent_ns;
	sample.kind = p->kind;
	if (bpf_map_delete_elem(&outstanding, &p->nonce)) { // its twin on another CPU was first
		count(UNKNOWN);
		return DROP;
	}
	count(bpf_ringbuf_output(&samples, &sample, sizeof(sample), 0) ? RING_FULL : MEASURED);
	return DROP;
}

SEC("tc")
int routetime_egress(struct __sk_buff *skb)
{
	struct packet p = {};
	struct expected *found;

	if (!parse(skb, &p) || p.kind != KIND_PROBE)
		return NEXT;
	found = bpf_map_lookup_elem(&outstanding, &p.nonce);
	if (!found || found->sent_ns || !same(&found->peer, &p.destination))
		return NEXT;
	count(STAMPED);
	found->sent_ns = bpf_ktime_get_ns();
	return NEXT;
}

SEC("tc")
int routetime_ingress(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_ns();
	struct packet p = {};

	// What is only passing through (a pod's traffic, another node's) is none of ours.
	if (skb->pkt_type != PACKET_HOST || !parse(skb, &p) || !is(&p.destination, MEMBER_SELF))
		return NEXT;
	switch (p.kind) {
	case KIND_PROBE:
		return answer(skb, &p);
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

static __always_inline void turn_datagram(struct datagram *d, const struct packet *p)
{
	d->udp.source = bpf_htons(PORT);
	d->udp.destination = p->port;
	d->probe.kind = KIND_KERNEL;
	if (!d->udp.check)
		return;
	d->udp.check = adjust(d->udp.check, bpf_htons(VERSION << 8 | KIND_PROBE),
			      bpf_htons(VERSION << 8 | KIND_KERNEL));
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

	if ((void *)(eth + 1) > end || eth->destination[0] & 1 /* multicast */)
		return XDP_PASS;
	if (eth->type == bpf_htons(ETH_P_IP)) {
		struct datagram_v4 *h = (void *)(eth + 1);
		__be16 hops;

		if (!exactly(h + 1, end) || !read_v4(h, &p) || !for_us(&p))
			return XDP_PASS;
		hops = bpf_htons(h->ip.ttl << 8 | IPPROTO_UDP);
		h->ip.ttl = TTL;
		h->ip.check = adjust(h->ip.check, hops, bpf_htons(TTL << 8 | IPPROTO_UDP));
		h->ip.source = p.destination.word[3];
		h->ip.destination = p.source.word[3];
		turn_datagram(&h->d, &p);
	} else if (eth->type == bpf_htons(ETH_P_IPV6)) {
		struct datagram_v6 *h = (void *)(eth + 1);

		if (!exactly(h + 1, end) || !read_v6(h, &p) || !for_us(&p))
			return XDP_PASS;
		h->ip.hops = TTL;
		__builtin_memcpy(h->ip.source, &p.destination, sizeof(h->ip.source));
		__builtin_memcpy(h->ip.destination, &p.source, sizeof(h->ip.destination));
		turn_datagram(&h->d, &p);
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
