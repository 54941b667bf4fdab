/* The fast path: translates plain packets (RFC 7915) in the kernel, around the engine in the daemon, which gets all
 * others by the TUN device as if there were no fast path.
 *
 *    host's IPv4 -> clat, egress: clatd_out ---- IPv6, to the next hop ---> uplink
 *                                    | not plain
 *                                    v
 *                                TUN, engine ---> clat, ingress: clatd_back ---> uplink
 *
 *    host's IPv4 <- clat <-------- IPv4 -------- uplink, ingress: clatd_in <- network
 *                   TUN, engine <-- not plain -------'
 *
 * Where the CLAT shares the host's address, flows.h tells its packets from the host's.
 *
 * "Plain" is what stages/translator/src/plain.rs calls so, and fragments of TCP and UDP; the results are the same, byte
 * for byte but for the identification of whole packets. A packet that is not ours always goes on to the next program. */
#include "flows.h"
#include "rules.h"

char terms[] SEC("license") = "MIT";

INLINE struct counters *counters_of(__u32 clat)
{
	return map_lookup(&counted, &clat);
}

/* The packet goes the way it would have gone without us. */
INLINE int leave(struct counters *seen, int direction, int reason)
{
	seen->slow[direction][reason]++;
	return NEXT;
}

/* Only for a packet that was changed already, or that nobody else can carry. */
INLINE int drop(struct counters *seen, int direction, int reason)
{
	seen->dropped[direction][reason]++;
	return TC_ACT_SHOT;
}

/* Whether flows tell whose packets of this address are. */
INLINE int is_shared(const struct clat *clat, const __be32 *address)
{
	struct address6 own = read6(address);

	return clat->flags & CLAT_FLOWS && own.high == clat->only_high && own.low == clat->only_low;
}

/* IPv6 leaves by the uplink, to its own gateway, whatever the routing tables say. */
INLINE int send(struct __sk_buff *skb, const struct clat *clat, const __be32 *destination, struct counters *seen)
{
	struct bpf_redir_neigh next = {AF_INET6, {clat->gateway[0], clat->gateway[1], clat->gateway[2], clat->gateway[3]}};

	if (!clat->uplink_head)
		return redirect(clat->uplink, 0);
	/* The helper wants a place for an Ethernet header in front, which it takes off again. */
	if (!clat->clat_head && skb_change_head(skb, ETHERNET_HEADER, 0))
		return drop(seen, V4_TO_V6, NO_MEMORY);
	if (!(next.ipv6_nh[0] | next.ipv6_nh[1] | next.ipv6_nh[2] | next.ipv6_nh[3])) {
		next.ipv6_nh[0] = destination[0];
		next.ipv6_nh[1] = destination[1];
		next.ipv6_nh[2] = destination[2];
		next.ipv6_nh[3] = destination[3];
	}
	return redirect_neigh(clat->uplink, &next, sizeof(next), 0);
}

/* Makes room for a header of this protocol. The kernel forgets the hash by which it spreads flows over processors. A TCP
 * packet gets its hash back: the flow is the same, and the kernel need not read the headers again to find it. */
INLINE int change_protocol(struct __sk_buff *skb, __be16 protocol, int class)
{
	__u32 hash = skb->hash;

	if (skb_change_proto(skb, protocol, 0))
		return -1;
	if (class == TCP && hash)
		set_hash(skb, hash);
	return 0;
}

/* Brings the checksum up to date for `difference`, whoever is to finish it, this host or a network card. */
INLINE int update_checksum(struct __sk_buff *skb, __u32 at, int class, __u64 difference)
{
	__u32 sum = fold32(difference);

	if (class == TCP)
		return l4_csum_replace(skb, at + TCP_CHECKSUM_AT, 0, sum, BPF_F_PSEUDO_HDR);
	if (class == UDP)
		return l4_csum_replace(skb, at + UDP_CHECKSUM_AT, 0, sum, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0);
	return l4_csum_replace(skb, at + ICMP_CHECKSUM_AT, 0, sum, BPF_F_PSEUDO_HDR);
}

/* IPv4 to IPv6, at the egress of a CLAT device. */
SEC("classifier")
int clatd_out(struct __sk_buff *skb)
{
	__u32 device = skb->ifindex;
	const struct clat *clat;
	struct counters *seen;
	struct transport head = {};
	struct fragment6 fragment = {};
	struct ip6 out = {};
	struct ip4 ip;
	struct flow_key flow = {};
	__u32 at, length, segment, offset, extension, port = NO_PORT_FREE;
	__u64 difference;
	int class, reason;

	if (skb->protocol != swap16_constant(ETH_P_IP))
		return NEXT;
	clat = map_lookup(&clats, &device);
	seen = counters_of(device);
	if (!clat || !seen)
		return NEXT;
	if (skb_load_bytes_relative(skb, 0, &ip, sizeof(ip), BPF_HDR_START_NET))
		return leave(seen, V4_TO_V6, MALFORMED);
	reason = check4(skb, clat, &ip);
	if (reason != FAST)
		return leave(seen, V4_TO_V6, reason);
	class = ip.protocol == PROTO_TCP ? TCP : ip.protocol == PROTO_UDP ? UDP : ICMP;
	length = swap16(ip.total) - sizeof(ip);
	at = clat->clat_head + sizeof(ip);
	offset = swap16(ip.fragment) & FRAGMENT_OFFSET;
	segment = length;
	extension = is_fragment4(&ip) ? sizeof(fragment) : 0;
	reason = extension ? look_at_fragment(skb, at, length, offset, class, &head)
			   : look(skb, at, length, class, &head, &segment);
	if (reason != FAST)
		return leave(seen, V4_TO_V6, reason);
	/* A packet that has to be cut, or refused with "fragmentation needed" (RFC 7915 section 4.1). */
	if (sizeof(out) + extension + segment > clat->mtu6)
		return leave(seen, V4_TO_V6, TOO_BIG);
	if (sizeof(out) + extension + segment > clat->mtu_whole && !(ip.fragment & swap16_constant(DONT_FRAGMENT)) &&
	    !skb->gso_size)
		return leave(seen, V4_TO_V6, TOO_BIG);
	if (!map_to6(clat, device, &ip, &out))
		return leave(seen, V4_TO_V6, ADDRESS);

	out.first = swap32(6u << 28 | (__u32)(clat->flags & CLAT_TRAFFIC_CLASS ? clat->traffic_class : ip.tos) << 20);
	out.payload = swap16((__u16)(length + extension));
	out.next = ip.protocol;
	out.hop_limit = ip.ttl - 1;
	difference = sum6(out.source) + sum6(out.destination);
	flow.port = head.word[SOURCE_PORT];
	flow.remote_port = head.word[DESTINATION_PORT];
	if (class == ICMP) {
		flow.port = head.word[ECHO_ID];
		flow.remote_port = 0;
		difference += pseudo_icmp6(length) + (__u16)~head.word[ICMP_TYPE];
		if (!translate_echo(&head.word[ICMP_TYPE], ECHO4, ECHO_REPLY4, ECHO6, ECHO_REPLY6))
			return leave(seen, V4_TO_V6, NO_ECHO);
		difference += head.word[ICMP_TYPE];
		out.next = PROTO_ICMPV6;
	} else {
		difference += minus4(&ip);
	}
	/* The other fragments follow the first one. */
	if (clat->flags & CLAT_FLOWS && swap32(ip.source) == clat->only_v4 && !offset &&
	    (class != ICMP || *(__u8 *)head.word == ECHO6)) {
		flow.remote[0] = out.destination[0];
		flow.remote[1] = out.destination[1];
		flow.remote[2] = out.destination[2];
		flow.remote[3] = out.destination[3];
		flow.protocol = out.next;
		port = port_out(skb, clat, device, &flow);
		if (port == NO_PORT_FREE)
			return drop(seen, V4_TO_V6, NO_PORT);
	}

	if (change_protocol(skb, swap16_constant(ETH_P_IPV6), class))
		return leave(seen, V4_TO_V6, NO_MEMORY);
	at = clat->clat_head + sizeof(out);
	if (extension) {
		fragment.next = ip.protocol;
		fragment.offset = swap16((__u16)(offset << 3)) |
				  (ip.fragment & swap16_constant(MORE_FRAGMENTS) ? swap16_constant(1) : 0);
		fragment.identification = swap32(swap16(ip.id));
		out.next = PROTO_FRAGMENT;
		if (skb_adjust_room(skb, sizeof(fragment), BPF_ADJ_ROOM_NET, 0) ||
		    skb_store_bytes(skb, at, &fragment, sizeof(fragment), BPF_F_RECOMPUTE_CSUM))
			return drop(seen, V4_TO_V6, NO_MEMORY);
		at += sizeof(fragment);
	}
	if (skb_store_bytes(skb, clat->clat_head, &out, sizeof(out), BPF_F_RECOMPUTE_CSUM) ||
	    class == ICMP && skb_store_bytes(skb, at, &head, 2, BPF_F_RECOMPUTE_CSUM) ||
	    !offset && update_checksum(skb, at, class, difference) ||
	    class != ICMP && port != NO_PORT_FREE && port != head.word[SOURCE_PORT] &&
		    write_port(skb, at, at + checksum_at(ip.protocol), ip.protocol, head.word[SOURCE_PORT], port))
		return drop(seen, V4_TO_V6, NO_MEMORY);
	seen->fast[V4_TO_V6][class]++;
	seen->bytes[V4_TO_V6] += swap16(ip.total);
	return send(skb, clat, out.destination, seen);
}

/* What the engine made of a packet comes out of the TUN device. */
SEC("classifier")
int clatd_back(struct __sk_buff *skb)
{
	__u32 device = skb->ifindex;
	const struct clat *clat;
	struct counters *seen;
	const struct to4 *ours;
	struct ip6 ip;

	/* All that clatd_in translated comes this way, too. */
	if (skb->protocol != swap16_constant(ETH_P_IPV6))
		return NEXT;
	clat = map_lookup(&clats, &device);
	seen = counters_of(device);
	if (!clat || !seen)
		return NEXT;
	if (skb_load_bytes_relative(skb, 0, &ip, sizeof(ip), BPF_HDR_START_NET))
		return drop(seen, V4_TO_V6, MALFORMED);
	/* To one of our own addresses: through the translator again (RFC 7757 section 4). */
	ours = find6(clat->uplink, ip.destination);
	if (ours)
		return redirect(ours->clat == SHARED ? device : ours->clat, 0);
	if (!(clat->flags & CLAT_READY))
		return drop(seen, V4_TO_V6, NO_NEXT_HOP);
	if (is_shared(clat, ip.source) && !leave_by_flow(skb, clat, device, &ip))
		return drop(seen, V4_TO_V6, NO_PORT);
	seen->sent_for_engine++;
	return send(skb, clat, ip.destination, seen);
}

/* The kernel waits up to 0.8 s before it answers for an anycast address (RFC 4861 section 7.2.7), unless it is asked
 * directly. Nobody else answers for ours, so there is nobody to wait for. */
NOT_INLINE void answer_at_once(struct __sk_buff *skb)
{
	struct solicitation message;
	const struct to4 *ours;

	if (skb_load_bytes_relative(skb, sizeof(struct ip6), &message, sizeof(message), BPF_HDR_START_NET))
		return;
	if (message.type != NEIGHBOUR_SOLICITATION)
		return;
	ours = find6(skb->ifindex, message.target);
	/* The host answers for its own address as ever. */
	if (ours && ours->clat != SHARED)
		skb_change_type(skb, PACKET_HOST);
}

INLINE int is_neighbour_discovery(struct __sk_buff *skb, const struct ip6 *ip)
{
	__u8 type;

	if (ip->next != PROTO_ICMPV6 ||
	    skb_load_bytes_relative(skb, sizeof(*ip), &type, sizeof(type), BPF_HDR_START_NET))
		return 0;
	return type >= ND_FIRST && type <= ND_LAST;
}

/* IPv6 to IPv4, at the ingress of an uplink. */
SEC("classifier")
int clatd_in(struct __sk_buff *skb)
{
	const struct to4 *ours;
	const struct clat *clat;
	struct counters *seen;
	struct transport head = {};
	struct fragment6 fragment = {};
	struct found flow = {};
	struct to4 own = {};
	struct ip4 out = {};
	struct ip6 ip;
	__u32 at, length, segment, offset, extension = 0;
	__u64 difference;
	int class, reason, owner;
	__u8 next;

	if (skb->protocol != swap16_constant(ETH_P_IPV6) || skb->vlan_present)
		return NEXT;
	if (skb_load_bytes_relative(skb, 0, &ip, sizeof(ip), BPF_HDR_START_NET) || swap32(ip.first) >> 28 != 6)
		return NEXT;
	if (*(__u8 *)ip.destination == 0xff) {
		if (ip.next == PROTO_ICMPV6)
			answer_at_once(skb);
		return NEXT;
	}
	ours = find6(skb->ifindex, ip.destination);
	/* Not what a network card that listens to everything brings for others. */
	if (!ours || skb->pkt_type != PACKET_HOST || is_neighbour_discovery(skb, &ip))
		return NEXT;
	flow.clat = ours->clat;
	owner = ours->clat == SHARED ? find_owner(skb, &ip, &flow) : CLATS;
	if (owner == HOSTS)
		return NEXT;
	clat = map_lookup(&clats, &flow.clat);
	seen = counters_of(flow.clat);
	if (!clat || !seen)
		return NEXT;
	if (owner == NOBODY_KNOWS) {
		/* A fragment that came before the first one. Either side can wait for that, and only one will get it. */
		leave(seen, V6_TO_V4, FRAGMENT);
		clone_redirect(skb, flow.clat, 0);
		return NEXT;
	}
	if (ours->clat == SHARED) {
		own.base = clat->only_v4;
		ours = &own;
	}

	length = swap16(ip.payload);
	at = clat->uplink_head + sizeof(ip);
	next = ip.next;
	/* Without it there is no fragment to be seen, and check6 says so. */
	if (next == PROTO_FRAGMENT && length >= sizeof(fragment) && !skb_load_bytes(skb, at, &fragment, sizeof(fragment))) {
		extension = sizeof(fragment);
		next = fragment.next;
		length -= extension;
		at += extension;
	}
	class = next == PROTO_TCP ? TCP : next == PROTO_UDP ? UDP : ICMP;
	offset = swap16(fragment.offset) >> 3;
	segment = length;
	reason = check6(skb, clat, &ip, &fragment, next);
	if (reason == FAST)
		reason = extension ? look_at_fragment(skb, at, length, offset, class, &head)
				   : look(skb, at, length, class, &head, &segment);
	if (reason == FAST && sizeof(out) + segment > clat->mtu4)
		reason = TOO_BIG;
	if (reason == FAST && !map_to4(clat, ours, &ip, &out))
		reason = ADDRESS;
	if (reason == FAST && class == ICMP) {
		difference = (__u16)~head.word[ICMP_TYPE];
		if (!translate_echo(&head.word[ICMP_TYPE], ECHO6, ECHO_REPLY6, ECHO4, ECHO_REPLY4))
			reason = NO_ECHO;
	}
	if (reason != FAST) {
		leave(seen, V6_TO_V4, reason);
		if (flow.port_at && write_port(skb, clat->uplink_head + flow.port_at, clat->uplink_head + flow.checksum_at,
					       flow.protocol, flow.from, flow.to))
			return drop(seen, V6_TO_V4, NO_MEMORY);
		return redirect(flow.clat, 0);
	}

	out.version_length = 0x45;
	out.tos = clat->flags & CLAT_TOS ? clat->tos : swap32(ip.first) >> 20;
	out.total = swap16((__u16)(sizeof(out) + length));
	if (extension) {
		/* RFC 7915 section 5.1.1. */
		out.id = swap16((__u16)swap32(fragment.identification));
		out.fragment = swap16((__u16)offset) |
			       (fragment.offset & swap16_constant(1) ? swap16_constant(MORE_FRAGMENTS) : 0);
	} else {
		out.id = random32();
		/* RFC 7915 section 5.1: what may have been cut on the way can be cut again. */
		out.fragment = sizeof(out) + segment > 1260 ? swap16_constant(DONT_FRAGMENT) : 0;
	}
	out.ttl = ip.hop_limit - 1;
	out.protocol = class == ICMP ? PROTO_ICMP : next;
	out.checksum = ~header_sum4(&out);
	if (class == ICMP)
		difference += head.word[ICMP_TYPE] + minus6(&ip) + (2 * 0xffffffffull - pseudo_icmp6(length));
	else
		difference = minus6(&ip) + out.source + (__u64)out.destination;

	if (change_protocol(skb, swap16_constant(ETH_P_IP), class)) {
		leave(seen, V6_TO_V4, NO_MEMORY);
		return redirect(flow.clat, 0);
	}
	at = clat->uplink_head + sizeof(out);
	if (extension && skb_adjust_room(skb, -(int)sizeof(fragment), BPF_ADJ_ROOM_NET, 0) ||
	    skb_store_bytes(skb, clat->uplink_head, &out, sizeof(out), BPF_F_RECOMPUTE_CSUM) ||
	    class == ICMP && skb_store_bytes(skb, at, &head, 2, BPF_F_RECOMPUTE_CSUM) ||
	    !offset && update_checksum(skb, at, class, difference) ||
	    flow.port_at && write_port(skb, at + 2, at + checksum_at(flow.protocol), flow.protocol, flow.from, flow.to))
		return drop(seen, V6_TO_V4, NO_MEMORY);
	seen->fast[V6_TO_V4][class]++;
	seen->bytes[V6_TO_V4] += sizeof(ip) + extension + length;
	return redirect(flow.clat, BPF_F_INGRESS);
}
