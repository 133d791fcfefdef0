//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

// When the packets of three probers pass the drivers of their devices: handed to the
// driver for sending, and taken in from it. These are other hooks than those of any prober.

#include "../../../../bpf/include/ipv4.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

struct sk_buff {
	unsigned char *data;
	__be16 protocol;
} RELOCATED;

enum {
	ETHER = 14,
	IPPROTO_TCP = 6,
	IPPROTO_UDP = 17,
	DROVER_PORT = 7948,
	DROVER_PROBE = 1,
	UDP_PORT = 18098,
	HTTP_PORT = 18099,
	BPF_RB_NO_WAKEUP = 1, // of linux/bpf.h
};

enum prober { DROVER, UDP, HTTP };

enum point { REQUEST_LEAVES, REQUEST_COMES, ANSWER_LEAVES, ANSWER_COMES };

struct event {
	__u64 id; // the nonce of a datagram
	__u64 at_ns;
	enum prober prober;
	enum point point;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 24);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

struct datagram {
	__be16 source;
	__be16 destination;
	__be16 length;
	__be16 check;
	__u8 magic[4];
	__u8 version;
	__u8 kind;
	__be16 zero;
	__be32 nonce[2];
};

struct segment {
	__be16 source;
	__be16 destination;
	__be32 sequence;
	__be32 acknowledged;
	__u8 offset;
};

static __always_inline bool read_datagram(const unsigned char *at, struct event *e, bool *answer)
{
	struct datagram d;

	if (bpf_probe_read_kernel(&d, sizeof(d), at))
		return 0;
	if (d.destination == bpf_htons(DROVER_PORT) || d.source == bpf_htons(DROVER_PORT))
		e->prober = DROVER;
	else if (d.destination == bpf_htons(UDP_PORT) || d.source == bpf_htons(UDP_PORT))
		e->prober = UDP;
	else
		return 0;
	*answer = d.kind != DROVER_PROBE;
	e->id = (__u64)bpf_ntohl(d.nonce[0]) << 32 | bpf_ntohl(d.nonce[1]);
	return 1;
}

static __always_inline bool read_segment(const unsigned char *at, __u32 length, struct event *e, bool *answer)
{
	struct segment s;

	if (bpf_probe_read_kernel(&s, sizeof(s), at) || length <= (s.offset >> 4) * 4)
		return 0; // without data
	if (s.destination != bpf_htons(HTTP_PORT) && s.source != bpf_htons(HTTP_PORT))
		return 0;
	e->prober = HTTP;
	*answer = s.source == bpf_htons(HTTP_PORT);
	return 1;
}

static __always_inline int note(const unsigned char *at, bool comes)
{
	struct event e = {.at_ns = bpf_ktime_get_ns()};
	bool answer = 0, ours = 0;
	__u32 zero = 0, header;
	struct ipv4 ip;

	if (bpf_probe_read_kernel(&ip, sizeof(ip), at) || ip.version_length >> 4 != 4)
		return 0;
	header = (ip.version_length & 0xf) * 4;
	if (ip.protocol == IPPROTO_UDP)
		ours = read_datagram(at + header, &e, &answer);
	else if (ip.protocol == IPPROTO_TCP)
		ours = read_segment(at + header, bpf_ntohs(ip.total) - header, &e, &answer);
	if (!ours)
		return 0;
	e.point = answer ? ANSWER_LEAVES : REQUEST_LEAVES;
	if (comes)
		e.point++;
	// To wake the reader takes longer than anything that is measured, and in its midst.
	if (bpf_ringbuf_output(&events, &e, sizeof(e), BPF_RB_NO_WAKEUP)) {
		__u64 *n = bpf_map_lookup_elem(&lost, &zero);

		if (n)
			*n += 1;
	}
	return 0;
}

SEC("tp_btf/net_dev_start_xmit")
int BPF_PROG(leaves, const struct sk_buff *skb)
{
	if (skb->protocol != bpf_htons(0x0800))
		return 0;
	return note(skb->data + ETHER, 0);
}

SEC("tp_btf/netif_receive_skb")
int BPF_PROG(comes, const struct sk_buff *skb)
{
	if (skb->protocol != bpf_htons(0x0800))
		return 0;
	return note(skb->data, 1);
}

char _license[] SEC("license") = "GPL";
