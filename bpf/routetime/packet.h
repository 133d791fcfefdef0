// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

// The kernel's types and values that are used here, what travels, and how it is read.

#include "../include/ipv4.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

// The values of linux/bpf.h, if_ether.h, if_packet.h and pkt_cls.h that only this program uses.
enum {
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
	__u32 tc_index;
	__u32 cb[5];
	__u32 hash;
	__u32 tc_classid;
	__u32 data;
	__u32 data_end;
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
	__be16 dwell; // ns between coming and leaving of what was answered here, at most 65,535
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

// A probe or an answer, read out of a packet.
struct packet {
	struct address source;
	struct address destination;
	__u64 nonce;
	__u32 udp; // offset of its header
	__be16 port; // the origin's
	__be16 dwell;
	__u8 kind;
	bool v4;
};

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
	    d->probe.version != VERSION || (d->probe.dwell && d->probe.kind != KIND_KERNEL))
		return false;
	p->kind = d->probe.kind;
	p->dwell = d->probe.dwell;
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
