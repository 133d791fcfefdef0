//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

// Both ends of the tunnel that carries the old address of a pod that has moved: in the sandbox
// that the pod has left, and in the one that it is in now.
//
// What is for the old address is never given to the stack of the old sandbox, so that nobody is
// refused; but its neighbours are answered there, as ever. While the lease is held back nothing but
// the tunnel's own packets passes either end. What is from the old address never leaves the new
// sandbox but through the tunnel, and that neither before the lease is opened nor after its end,
// whether somebody is there to end it or not.
//
// A pod that has moved more than once has several old addresses, each in a sandbox of its own: the new
// sandbox is the end of a tunnel to each. It is left like any other: then what it is to earlier
// addresses stands behind what it is to its own.

#include "../include/ipv4.h"

// As in linux/bpf.h, whose layout is fixed; what is not read here has no name.
struct __sk_buff {
	__u32 unread[2];
	__u32 mark;
	__u32 unread2;
	__u32 protocol; // network byte order
	__u32 unread3[5];
	__u32 ifindex;
};

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// The values of linux/bpf.h and of the kernel's other headers that only this program uses.
enum {
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_LRU_HASH = 9,

	BPF_F_PSEUDO_HDR = 1 << 4,
	BPF_F_MARK_MANGLED_0 = 1 << 5,

	TC_ACT_UNSPEC = -1, // the next filter, or the stack
	TC_ACT_OK = 0,      // no other filter
	TC_ACT_SHOT = 2,

	PACKET_OTHERHOST = 3,

	ETHER = 14,
	ETH_P_IP = 0x0800,
	ETH_P_ARP = 0x0806,
	ETH_P_IPV6 = 0x86dd,
	ETH_P_8021Q = 0x8100,
	ETH_P_8021AD = 0x88a8,
	ARP_SENDER = ETHER + 14,
	ARP_TARGET = ETHER + 24,
	IPPROTO_HOPOPTS = 0,
	IPPROTO_UDP = 17,
	IPPROTO_ROUTING = 43,
	IPPROTO_FRAGMENT = 44,
	IPPROTO_AH = 51,
	IPPROTO_ICMPV6 = 58,
	IPPROTO_DSTOPTS = 60,
	IPPROTO_MH = 135,
	// On what the tunnel has brought back, on its way out.
	MARK_BACK = 0x647276,

	ND_FIRST = 133, // router solicitation to redirect (RFC 4861)
	ND_LAST = 137,
	UDP_CHECK = 6,
	VXLAN_NETWORK = 12, // in a datagram: after UDP's header and VXLAN's flags (RFC 7348)
};

// An IPv4 address has three words of 0 before it; with the fourth 0 there is none.
struct address {
	__be32 word[4];
};

// How many old addresses a pod can have.
enum { ENDS = 4 };

// An old address, by family, and the end of its tunnel that is not here.
struct end {
	struct address old4, old6, there;
	__u32 tunnel;   // index of the tunnel's device; 0: there is no such address
	__be32 network; // as VXLAN has it, with 8 bits of 0 behind it
};

// Set before the programs are loaded. here is the address of the ends in this sandbox; one that the pod
// has left has the first alone.
const volatile struct end ends[ENDS];
const volatile struct address here;
const volatile __be16 port;
const volatile __u32 uplink; // index of a device
// Of the tunnel's devices, the destination first.
const volatile __u8 frame[12];

// How far the old sandbox's end is open.
enum left {
	LEFT_HELD,
	LEFT_BACK, // to what the tunnel brings back
	LEFT_OPEN,
};

// What an agent changes while the programs run.
struct lease {
	// until is when this end closes, in ns of CLOCK_BOOTTIME. 0: held.
	__u64 until;
	__u64 left; // enum left
	__u64 over; // this end, of a new sandbox's, has been left, and its address may be somebody else's
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ENDS);
	__type(key, __u32);
	__type(value, struct lease);
} drover_lease SEC(".maps");

// A peer that has sent a datagram to an old address, and both ports.
struct peer {
	struct address address;
	__be16 port;
	__be16 own;
};

// When it did last, and to which.
struct asked {
	__u64 at;  // in ns of CLOCK_BOOTTIME
	__u64 end; // index
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 14);
	__type(key, struct peer);
	__type(value, struct asked);
} drover_peers SEC(".maps");

struct packet {
	struct address source, destination;
	__u32 payload; // where it begins
	__u8 protocol;
	__u8 fragment; // any but a whole packet
	__u8 later;    // a fragment that is not the first: it has no ports
	__u8 known;    // it is IP, and could be read
	__be16 ports[2];
};

// What IPv6 may have before what it carries (RFC 8200, 4), but for options of each hop. All else
// that begins so is laid out alike as far as is read here.
struct extension {
	__u8 next;
	__u8 length; // in 8 bytes beyond the first 8
	__be16 offset; // of a fragment
};

struct ipv6 {
	__be32 version_class_flow;
	__be16 length;
	__u8 next;
	__u8 hops;
	struct address source, destination;
};

static __always_inline bool same(const struct address *a, const volatile struct address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] &&
	       a->word[2] == b->word[2] && a->word[3] == b->word[3];
}

// The index of the old address in ends; ENDS: it is none.
static __always_inline __u32 old(const struct address *a)
{
#pragma unroll
	for (__u32 i = 0; i < ENDS; i++)
		if (a->word[3] && (same(a, &ends[i].old4) || same(a, &ends[i].old6)))
			return i;
	return ENDS;
}

static __always_inline bool is_old(const struct address *a)
{
	return old(a) < ENDS;
}

static __always_inline bool is_old4(__be32 a)
{
	struct address whole = {{0, 0, 0, a}};

	return is_old(&whole);
}

static __always_inline void read_v4(struct __sk_buff *skb, struct packet *p)
{
	struct ipv4 h;

	if (bpf_skb_load_bytes(skb, ETHER, &h, sizeof(h)))
		return;
	p->source.word[3] = h.source;
	p->destination.word[3] = h.destination;
	p->protocol = h.protocol;
	p->fragment = !!(h.fragment & bpf_htons(0x3fff)); // more to come, or an offset
	p->later = !!(h.fragment & bpf_htons(0x1fff));
	p->payload = ETHER + (h.version_length & 0xf) * 4;
	p->known = true;
}

static __always_inline int is_extension(__u8 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_FRAGMENT ||
	       next == IPPROTO_AH || next == IPPROTO_DSTOPTS || next == IPPROTO_MH;
}

// Options of each hop are read past, as questions for groups have them; a packet with other
// extensions than those and a fragment's is not known.
static __always_inline void read_v6(struct __sk_buff *skb, struct packet *p)
{
	struct extension x;
	struct ipv6 h;

	if (bpf_skb_load_bytes(skb, ETHER, &h, sizeof(h)))
		return;
	p->source = h.source;
	p->destination = h.destination;
	p->protocol = h.next;
	p->payload = ETHER + sizeof(h);
	if (p->protocol == IPPROTO_HOPOPTS) {
		if (bpf_skb_load_bytes(skb, p->payload, &x, sizeof(x)))
			return;
		p->protocol = x.next;
		p->payload += 8 + x.length * 8;
	}
	if (p->protocol == IPPROTO_FRAGMENT) {
		if (bpf_skb_load_bytes(skb, p->payload, &x, sizeof(x)))
			return;
		p->fragment = true;
		p->later = !!(x.offset & bpf_htons(0xfff8));
		p->protocol = x.next;
		p->payload += 8;
	}
	p->known = !is_extension(p->protocol);
}

static __always_inline struct packet read(struct __sk_buff *skb)
{
	struct packet p = {};

	if (skb->protocol == bpf_htons(ETH_P_IP))
		read_v4(skb, &p);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		read_v6(skb, &p);
	if (p.known && p.protocol == IPPROTO_UDP && !p.later &&
	    bpf_skb_load_bytes(skb, p.payload, p.ports, sizeof(p.ports)))
		p.known = false;
	return p;
}

static __always_inline bool is_ip(struct __sk_buff *skb)
{
	return skb->protocol == bpf_htons(ETH_P_IP) || skb->protocol == bpf_htons(ETH_P_IPV6);
}

// Of what is neither IP, which is looked at, nor a question for a neighbour: to the filters a second
// tag hides what is below, and the stack takes tags of VLAN 0 off afterwards.
static __always_inline bool is_tagged(struct __sk_buff *skb)
{
	return skb->protocol == bpf_htons(ETH_P_8021Q) || skb->protocol == bpf_htons(ETH_P_8021AD);
}

// Later fragments have no port; nobody else sends datagrams from the one sandbox to the other.
static __always_inline bool is_tunnel(const struct packet *p, const volatile struct address *from,
				      const volatile struct address *to)
{
	return p->known && p->protocol == IPPROTO_UDP && same(&p->source, from) &&
	       same(&p->destination, to) && (p->later || p->ports[1] == port);
}

// From the other end of this tunnel, and in no other tunnel's name: VXLAN looks at the network alone. Of a
// first fragment that is too short to tell nothing becomes a packet.
static __always_inline bool is_from(struct __sk_buff *skb, const struct packet *p, const volatile struct end *e)
{
	__be32 network;

	if (!is_tunnel(p, &e->there, &here))
		return false;
	return p->later || (!bpf_skb_load_bytes(skb, p->payload + VXLAN_NETWORK, &network, sizeof(network)) &&
			    network == e->network);
}

static __always_inline bool is_over(__u32 end)
{
	struct lease *l = bpf_map_lookup_elem(&drover_lease, &end);

	return !l || l->over;
}

// From the other end of a tunnel that ends in this new sandbox.
static __always_inline bool is_from_end(struct __sk_buff *skb, const struct packet *p)
{
#pragma unroll
	for (__u32 i = 0; i < ENDS; i++)
		if (ends[i].tunnel && is_from(skb, p, &ends[i]))
			return !is_over(i);
	return false;
}

// To the new sandbox's stack all that comes to this port, at whichever address, is a tunnel's.
static __always_inline bool is_for_port(const struct packet *p)
{
	return p->known && p->protocol == IPPROTO_UDP && !p->later && p->ports[1] == port;
}

static __always_inline bool is_neighbour(struct __sk_buff *skb, const struct packet *p)
{
	__u8 type;

	return p->known && p->protocol == IPPROTO_ICMPV6 && !p->fragment &&
	       !bpf_skb_load_bytes(skb, p->payload, &type, 1) && type >= ND_FIRST && type <= ND_LAST;
}

static __always_inline bool open(__u32 end)
{
	struct lease *l = bpf_map_lookup_elem(&drover_lease, &end);

	return l && bpf_ktime_get_boot_ns() < l->until;
}

static __always_inline bool left_is(enum left least)
{
	__u32 first = 0;
	struct lease *l = bpf_map_lookup_elem(&drover_lease, &first);

	return l && l->left >= least && open(first);
}

// What comes to the old sandbox from outside.
SEC("tc")
int drover_left_in(struct __sk_buff *skb)
{
	struct packet p = read(skb);
	__u8 ether[12];

	if (is_tagged(skb))
		return TC_ACT_SHOT;
	if (!is_ip(skb) || is_neighbour(skb, &p))
		return TC_ACT_UNSPEC;
	if (is_from(skb, &p, &ends[0]))
		return TC_ACT_OK; // the filters for earlier addresses know nothing of it
	// The new sandbox would take out of it what somebody has wrapped as the tunnel does.
	if (!p.known || !is_old(&p.destination) || is_for_port(&p) || !left_is(LEFT_OPEN))
		return TC_ACT_SHOT;
#pragma unroll
	for (int i = 0; i < sizeof(ether); i++)
		ether[i] = frame[i];
	// To the sender of what is too large for the tunnel VXLAN says so (RFC 1191, 8201) only if it
	// seems to come by a bridge.
	if (bpf_skb_store_bytes(skb, 0, ether, sizeof(ether), 0) || bpf_skb_change_type(skb, PACKET_OTHERHOST))
		return TC_ACT_SHOT;
	return bpf_redirect(ends[0].tunnel, 0);
}

// What leaves the old sandbox: what the tunnel brought, and nothing of its own stack, which may have to
// end a connection that goes on elsewhere.
SEC("tc")
int drover_left_out(struct __sk_buff *skb)
{
	struct packet p = read(skb);

	if (!is_ip(skb) || is_neighbour(skb, &p))
		return TC_ACT_UNSPEC;
	if (is_tunnel(&p, &here, &ends[0].there) || (skb->mark == MARK_BACK && left_is(LEFT_BACK)))
		return TC_ACT_OK;
	return TC_ACT_SHOT;
}

// The old sandbox's other devices, lo above all: what the kernel would change in one end of a
// connection between two that are being dumped is lost.
SEC("tc")
int drover_left_rest(struct __sk_buff *skb)
{
	return left_is(LEFT_BACK) ? TC_ACT_UNSPEC : TC_ACT_SHOT;
}

// What the tunnel brings back to the old sandbox.
SEC("tc")
int drover_left_back(struct __sk_buff *skb)
{
	struct packet p = read(skb);

	if (!p.known || !is_old(&p.source) || is_old(&p.destination) || !left_is(LEFT_BACK))
		return TC_ACT_SHOT;
	skb->mark = MARK_BACK;
	return bpf_redirect_neigh(uplink, 0, 0, 0);
}

// What comes to the new sandbox from outside: an old address is not to be had there.
SEC("tc")
int drover_new_in(struct __sk_buff *skb)
{
	struct packet p = read(skb);
	struct peer peer = {};
	__be32 target = 0;

	if (skb->protocol == bpf_htons(ETH_P_ARP)) {
		if (bpf_skb_load_bytes(skb, ARP_TARGET, &target, sizeof(target)))
			return TC_ACT_SHOT;
		return is_old4(target) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
	}
	if (is_tagged(skb))
		return TC_ACT_SHOT;
	if (!is_ip(skb) || is_from_end(skb, &p))
		return TC_ACT_UNSPEC;
	if (!p.known || is_old(&p.destination) || is_for_port(&p))
		return TC_ACT_SHOT;
	if (p.protocol == IPPROTO_UDP && !p.fragment) {
		// It asks the new address now, and wants its answer from there.
		peer.address = p.source;
		peer.port = p.ports[0];
		peer.own = p.ports[1];
		bpf_map_delete_elem(&drover_peers, &peer);
	}
	return TC_ACT_UNSPEC;
}

// By way of the tunnel's own route: what is learned of its width shall not make fragments, which
// cannot be told, of what the pod says from its new address.
static __always_inline int answer_v4(struct __sk_buff *skb, const struct packet *p, const volatile struct end *e)
{
	__be32 from = p->source.word[3], to = e->old4.word[3];

	if (bpf_l4_csum_replace(skb, p->payload + UDP_CHECK, from, to,
				BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0 | sizeof(to)) ||
	    bpf_l3_csum_replace(skb, ETHER + __builtin_offsetof(struct ipv4, check), from, to, sizeof(to)) ||
	    bpf_skb_store_bytes(skb, ETHER + __builtin_offsetof(struct ipv4, source), &to, sizeof(to), 0))
		return TC_ACT_SHOT;
	return bpf_redirect_neigh(e->tunnel, 0, 0, 0);
}

static __always_inline int answer_v6(struct __sk_buff *skb, const struct packet *p, const volatile struct end *e)
{
	struct address from = p->source, to;
	__s64 difference;

#pragma unroll
	for (int i = 0; i < 4; i++)
		to.word[i] = e->old6.word[i];
	difference = bpf_csum_diff(from.word, sizeof(from), to.word, sizeof(to), 0);
	if (difference < 0 ||
	    bpf_l4_csum_replace(skb, p->payload + UDP_CHECK, 0, difference, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0) ||
	    bpf_skb_store_bytes(skb, ETHER + __builtin_offsetof(struct ipv6, source), &to, sizeof(to), 0))
		return TC_ACT_SHOT;
	return bpf_redirect_neigh(e->tunnel, 0, 0, 0);
}

// What leaves the new sandbox outside of the tunnel. A socket that is bound to no address answers
// from the new one: who asked the old one gets its answer from that.
SEC("tc")
int drover_new_out(struct __sk_buff *skb)
{
	struct packet p = read(skb);
	struct peer peer = {};
	struct asked *asked;
	__be32 sender = 0;
	__u32 end;

	if (skb->protocol == bpf_htons(ETH_P_ARP)) {
		if (bpf_skb_load_bytes(skb, ARP_SENDER, &sender, sizeof(sender)))
			return TC_ACT_SHOT;
		return is_old4(sender) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
	}
	if (!is_ip(skb))
		return TC_ACT_UNSPEC;
	if (!p.known || is_old(&p.source))
		return TC_ACT_SHOT;
	if (p.protocol != IPPROTO_UDP || p.fragment)
		return TC_ACT_UNSPEC;
	peer.address = p.destination;
	peer.port = p.ports[1];
	peer.own = p.ports[0];
	asked = bpf_map_lookup_elem(&drover_peers, &peer);
	if (!asked)
		return TC_ACT_UNSPEC;
	end = asked->end;
	if (end >= ENDS || !open(end))
		return TC_ACT_UNSPEC;
	return skb->protocol == bpf_htons(ETH_P_IP) ? answer_v4(skb, &p, &ends[end]) : answer_v6(skb, &p, &ends[end]);
}

// What a tunnel brings to the new sandbox.
SEC("tc")
int drover_new_from(struct __sk_buff *skb)
{
	struct packet p = read(skb);
	struct peer peer = {};
	struct asked asked = {bpf_ktime_get_boot_ns(), old(&p.destination)};

	if (!p.known || asked.end >= ENDS || ends[asked.end].tunnel != skb->ifindex || is_old(&p.source) ||
	    is_for_port(&p) || !open(asked.end))
		return TC_ACT_SHOT;
	if (p.protocol == IPPROTO_UDP && !p.fragment) {
		peer.address = p.source;
		peer.port = p.ports[0];
		peer.own = p.ports[1];
		bpf_map_update_elem(&drover_peers, &peer, &asked, 0);
	}
	return TC_ACT_UNSPEC;
}

// What the new sandbox gives into a tunnel.
SEC("tc")
int drover_new_to(struct __sk_buff *skb)
{
	struct packet p = read(skb);
	__u32 end = old(&p.source);

	if (!p.known || end >= ENDS || ends[end].tunnel != skb->ifindex || is_old(&p.destination) || !open(end))
		return TC_ACT_SHOT;
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "GPL";
