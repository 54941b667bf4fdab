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
 * "Plain" is what stages/translator/src/plain.rs calls so; the results are the same, byte for byte but for the
 * identification. A packet that is not ours always goes on to the next program. */
#include "flows.h"

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

INLINE const struct to4 *find6(__u32 uplink, const __be32 *address)
{
	struct key6 key = {32 + 128, uplink, {address[0], address[1], address[2], address[3]}};

	return map_lookup(&ours6, &key);
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

/* Whether a TCP, UDP or ICMP packet of `length` octets is plain. `segment` becomes the size of the largest packet that
 * a super-packet is cut into, without IP header. */
INLINE int look(struct __sk_buff *skb, __u32 at, __u32 length, int class, struct transport *head, __u32 *segment)
{
	__u32 gso_size = skb->gso_size;
	__u32 header;
	__u8 data_offset;

	*segment = length;
	if (length < sizeof(*head) || skb_load_bytes(skb, at, head, sizeof(*head)))
		return MALFORMED;
	if (class == TCP) {
		if (length < 20)
			return MALFORMED;
		if (!gso_size)
			return FAST;
		if (skb_load_bytes(skb, at + 12, &data_offset, 1))
			return MALFORMED;
		header = (data_offset >> 4) * 4;
		if (header < 20 || header > length)
			return MALFORMED;
		*segment = header + gso_size;
	} else if (class == UDP) {
		header = swap16(head->word[UDP_LENGTH]);
		if (header < 8 || header > length)
			return MALFORMED;
		/* The engine makes one (RFC 7915 section 4.5). */
		if (!head->word[UDP_CHECKSUM])
			return NO_CHECKSUM;
		if (gso_size)
			*segment = 8 + gso_size;
	} else if (gso_size) {
		return MALFORMED;
	}
	return FAST;
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

/* The first two octets of an echo message, with the type of the other side (RFC 7915 sections 4.2 and 5.2). */
INLINE int translate_echo(__be16 *type_and_code, int from_request, int from_reply, int to_request, int to_reply)
{
	__u8 *type = (__u8 *)type_and_code;

	if (*type == from_request)
		*type = to_request;
	else if (*type == from_reply)
		*type = to_reply;
	else
		return 0;
	return 1;
}

/* RFC 7915 section 4.1, and 4.4 for what may not be translated. */
INLINE int check4(struct __sk_buff *skb, const struct clat *clat, const struct ip4 *ip)
{
	__u32 total = swap16(ip->total);

	if (ip->version_length >> 4 != 4 || header_sum4(ip) != 0xffff && ip->version_length == 0x45)
		return MALFORMED;
	if (ip->version_length != 0x45)
		return OPTIONS;
	if (total < sizeof(*ip) || clat->clat_head + total != skb->len)
		return MALFORMED;
	if (ip->fragment & swap16_constant(0x3fff))
		return FRAGMENT;
	if (ip->protocol != PROTO_TCP && ip->protocol != PROTO_UDP && ip->protocol != PROTO_ICMP)
		return OTHER_PROTOCOL;
	if (!is_forwarded4(swap32(ip->source)) || !is_forwarded4(swap32(ip->destination)))
		return ADDRESS;
	if (swap32(ip->destination) == clat->own_v4)
		return ADDRESS;
	if (ip->ttl <= 1)
		return HOP_LIMIT;
	return clat->flags & CLAT_READY ? FAST : NO_NEXT_HOP;
}

/* Our address becomes what its mapping says, the other one gets the prefix. A packet between two of our addresses is
 * left to the engine (RFC 7757 section 4). */
INLINE int map_to6(const struct clat *clat, __u32 device, const struct ip4 *ip, struct ip6 *out)
{
	__u32 source = swap32(ip->source), destination = swap32(ip->destination);
	struct key4 key = {32 + 32, device, ip->source};
	const struct to6 *map;

	if (clat->flags & CLAT_ONLY) {
		if (destination == clat->only_v4)
			return 0;
		if (source == clat->only_v4) {
			write6(out->source, (struct address6){clat->only_high, clat->only_low});
			goto far_side;
		}
	} else {
		map = map_lookup(&ours4, &key);
		key.address = ip->destination;
		if (map_lookup(&ours4, &key))
			return 0;
		if (map) {
			write6(out->source, mapped6(map, source));
			goto far_side;
		}
	}
	if (!(clat->flags & CLAT_BY_PREFIX) || clat->flags & CLAT_STRICT && !is_global4(source))
		return 0;
	write6(out->source, embed(clat, source));
far_side:
	if (clat->flags & CLAT_STRICT && !is_global4(destination))
		return 0;
	write6(out->destination, embed(clat, destination));
	return 1;
}

/* IPv4 to IPv6, at the egress of a CLAT device. */
SEC("classifier")
int clatd_out(struct __sk_buff *skb)
{
	__u32 device = skb->ifindex;
	const struct clat *clat;
	struct counters *seen;
	struct transport head;
	struct ip6 out = {};
	struct ip4 ip;
	struct flow_key flow = {};
	__u32 at, length, segment, port = NO_PORT_FREE;
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
	reason = look(skb, at, length, class, &head, &segment);
	if (reason != FAST)
		return leave(seen, V4_TO_V6, reason);
	/* A packet that has to be cut, or refused with "fragmentation needed" (RFC 7915 section 4.1). */
	if (sizeof(out) + segment > clat->mtu6)
		return leave(seen, V4_TO_V6, TOO_BIG);
	if (sizeof(out) + segment > clat->mtu_whole && !(ip.fragment & swap16_constant(0x4000)) && !skb->gso_size)
		return leave(seen, V4_TO_V6, TOO_BIG);
	if (!map_to6(clat, device, &ip, &out))
		return leave(seen, V4_TO_V6, ADDRESS);

	out.first = swap32(6u << 28 | (__u32)(clat->flags & CLAT_TRAFFIC_CLASS ? clat->traffic_class : ip.tos) << 20);
	out.payload = swap16((__u16)length);
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
	if (clat->flags & CLAT_FLOWS && swap32(ip.source) == clat->only_v4 &&
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
	if (skb_store_bytes(skb, clat->clat_head, &out, sizeof(out), BPF_F_RECOMPUTE_CSUM) ||
	    class == ICMP && skb_store_bytes(skb, at, &head, 2, BPF_F_RECOMPUTE_CSUM) ||
	    update_checksum(skb, at, class, difference) ||
	    class != ICMP && port != NO_PORT_FREE && port != head.word[SOURCE_PORT] &&
		    write_port(skb, at, at + checksum_at(out.next), out.next, head.word[SOURCE_PORT], port))
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

/* RFC 7915 section 5.1. */
INLINE int check6(struct __sk_buff *skb, const struct clat *clat, const struct ip6 *ip)
{
	__u32 payload = swap16(ip->payload);

	if (clat->uplink_head + sizeof(*ip) + payload != skb->len || payload > 0xffff - sizeof(struct ip4))
		return MALFORMED;
	if (ip->next == 44)
		return FRAGMENT;
	if (ip->next == 0 || ip->next == 43 || ip->next == 60)
		return OPTIONS;
	if (ip->next != PROTO_TCP && ip->next != PROTO_UDP && ip->next != PROTO_ICMPV6)
		return OTHER_PROTOCOL;
	return ip->hop_limit <= 1 ? HOP_LIMIT : FAST;
}

/* The other one has the prefix, and is none of ours. */
INLINE int map_to4(const struct clat *clat, const struct to4 *ours, const struct ip6 *ip, struct ip4 *out)
{
	struct address6 other = read6(ip->source);
	__u32 source, destination;

	if (ours->shift == NO_MAPPING || !is_in_prefix(clat, other))
		return 0;
	if (clat->flags & CLAT_ONLY ? other.high == clat->only_high && other.low == clat->only_low
				    : !!find6(clat->uplink, ip->source))
		return 0;
	source = extract(clat, other);
	destination = mapped4(ours, read6(ip->destination));
	if (!is_forwarded4(source) || !is_forwarded4(destination))
		return 0;
	if (clat->flags & CLAT_STRICT && !is_global4(source))
		return 0;
	out->source = swap32(source);
	out->destination = swap32(destination);
	return 1;
}

/* IPv6 to IPv4, at the ingress of an uplink. */
SEC("classifier")
int clatd_in(struct __sk_buff *skb)
{
	const struct to4 *ours;
	const struct clat *clat;
	struct counters *seen;
	struct transport head;
	struct found flow = {};
	struct to4 own = {};
	struct ip4 out = {};
	struct ip6 ip;
	__u32 at, length, segment;
	__u64 difference;
	int class, reason, owner;

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
	class = ip.next == PROTO_TCP ? TCP : ip.next == PROTO_UDP ? UDP : ICMP;
	reason = check6(skb, clat, &ip);
	if (reason == FAST)
		reason = look(skb, at, length, class, &head, &segment);
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
	out.id = random32();
	/* RFC 7915 section 5.1: what may have been cut on the way can be cut again. */
	out.fragment = sizeof(out) + segment > 1260 ? swap16_constant(0x4000) : 0;
	out.ttl = ip.hop_limit - 1;
	out.protocol = class == ICMP ? PROTO_ICMP : ip.next;
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
	if (skb_store_bytes(skb, clat->uplink_head, &out, sizeof(out), BPF_F_RECOMPUTE_CSUM) ||
	    class == ICMP && skb_store_bytes(skb, at, &head, 2, BPF_F_RECOMPUTE_CSUM) ||
	    update_checksum(skb, at, class, difference) ||
	    flow.port_at && write_port(skb, at + 2, at + checksum_at(flow.protocol), flow.protocol, flow.from, flow.to))
		return drop(seen, V6_TO_V4, NO_MEMORY);
	seen->fast[V6_TO_V4][class]++;
	seen->bytes[V6_TO_V4] += sizeof(ip) + length;
	return redirect(flow.clat, BPF_F_INGRESS);
}
