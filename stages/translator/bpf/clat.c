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
#include "headers.h"

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

/* Whether host and CLAT share this address, so that the map of flows tells whose a packet is. */
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

/* Whether the packet belongs to a flow of the shared address, or begins one. The answer to an echo has no flow. Only the
 * first fragment of a datagram has ports. */
INLINE int leaves_by_flow(const struct clat *clat, const struct ip4 *ip, const struct payload *payload,
			  const struct transport *head)
{
	return clat->flags & CLAT_FLOWS && swap32(ip->source) == clat->only_v4 && !payload->offset &&
	       (payload->class != ICMP || *(const __u8 *)head->word == ECHO6);
}

INLINE void set_flow_out(struct flow_key *flow, const struct payload *payload, const struct transport *head,
			 const struct ip6 *out)
{
	flow->remote[0] = out->destination[0];
	flow->remote[1] = out->destination[1];
	flow->remote[2] = out->destination[2];
	flow->remote[3] = out->destination[3];
	flow->protocol = out->next;
	flow->port = head->word[SOURCE_PORT];
	flow->remote_port = head->word[DESTINATION_PORT];
	if (payload->class == ICMP) {
		flow->port = head->word[ECHO_ID];
		flow->remote_port = 0;
	}
}

/* IPv4 to IPv6, at the egress of a CLAT device. */
SEC("classifier")
int clatd_out(struct __sk_buff *skb)
{
	__u32 device = skb->ifindex, port = NO_PORT_FREE;
	struct transport head = {};
	struct payload payload = {};
	struct flow_key flow = {};
	const struct clat *clat;
	struct counters *seen;
	struct ip6 out = {};
	struct ip4 ip;
	__u64 difference;
	int reason;

	if (skb->protocol != swap16_constant(ETH_P_IP))
		return NEXT;
	clat = map_lookup(&clats, &device);
	seen = counters_of(device);
	if (!clat || !seen)
		return NEXT;
	if (skb_load_bytes_relative(skb, 0, &ip, sizeof(ip), BPF_HDR_START_NET))
		return leave(seen, V4_TO_V6, MALFORMED);
	reason = check4(skb, clat, &ip);
	if (reason == FAST)
		reason = look4(skb, clat, &ip, &payload, &head);
	if (reason == FAST && !map_to6(clat, device, &ip, &out))
		reason = ADDRESS;
	if (reason == FAST && !head6(clat, &ip, &payload, &head, &out, &difference))
		reason = NO_ECHO;
	if (reason != FAST)
		return leave(seen, V4_TO_V6, reason);
	if (leaves_by_flow(clat, &ip, &payload, &head)) {
		set_flow_out(&flow, &payload, &head, &out);
		port = port_out(skb, clat, device, &flow);
		if (port == NO_PORT_FREE)
			return drop(seen, V4_TO_V6, NO_PORT);
	}

	if (change_protocol(skb, swap16_constant(ETH_P_IPV6), payload.class))
		return leave(seen, V4_TO_V6, NO_MEMORY);
	payload.at = clat->clat_head + sizeof(out) + payload.extension;
	if (write_headers6(skb, clat->clat_head, &ip, &payload, &out) ||
	    update_payload(skb, &payload, &head, unfinished4(&ip, payload.length), difference) ||
	    payload.class != ICMP && port != NO_PORT_FREE && port != head.word[SOURCE_PORT] &&
		    write_port(skb, payload.at, payload.at + checksum_at(ip.protocol), ip.protocol,
			       head.word[SOURCE_PORT], port))
		return drop(seen, V4_TO_V6, NO_MEMORY);
	seen->fast[V4_TO_V6][payload.class]++;
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

/* The engine gets the packet as it is, but for the port that only this side knows. */
INLINE int leave_to_engine(struct __sk_buff *skb, const struct clat *clat, struct counters *seen, const struct found *flow,
			   int reason)
{
	leave(seen, V6_TO_V4, reason);
	if (flow->port_at && write_port(skb, clat->uplink_head + flow->port_at, clat->uplink_head + flow->checksum_at,
					flow->protocol, flow->from, flow->to))
		return drop(seen, V6_TO_V4, NO_MEMORY);
	return redirect(flow->clat, 0);
}

/* A packet that is ours: to IPv4, or to the engine. */
INLINE int take_in(struct __sk_buff *skb, const struct clat *clat, struct counters *seen, const struct to4 *ours,
		   const struct found *flow, const struct ip6 *ip)
{
	struct fragment6 fragment = {};
	struct transport head = {};
	struct payload payload = {};
	struct ip4 out = {};
	__u64 difference;
	int reason = look6(skb, clat, ip, &fragment, &payload, &head);

	if (reason == FAST && !map_to4(clat, ours, ip, &out))
		reason = ADDRESS;
	if (reason == FAST && !head4(clat, ip, &fragment, &payload, &head, &out, &difference))
		reason = NO_ECHO;
	if (reason != FAST)
		return leave_to_engine(skb, clat, seen, flow, reason);

	if (change_protocol(skb, swap16_constant(ETH_P_IP), payload.class))
		return leave_to_engine(skb, clat, seen, flow, NO_MEMORY);
	payload.at = clat->uplink_head + sizeof(out);
	if (payload.extension && skb_adjust_room(skb, -(int)sizeof(fragment), BPF_ADJ_ROOM_NET, 0) ||
	    skb_store_bytes(skb, clat->uplink_head, &out, sizeof(out), BPF_F_RECOMPUTE_CSUM) ||
	    update_payload(skb, &payload, &head, unfinished6(ip, payload.length), difference) ||
	    flow->port_at && write_port(skb, payload.at + 2, payload.at + checksum_at(flow->protocol), flow->protocol,
					flow->from, flow->to))
		return drop(seen, V6_TO_V4, NO_MEMORY);
	seen->fast[V6_TO_V4][payload.class]++;
	seen->bytes[V6_TO_V4] += sizeof(*ip) + payload.extension + payload.length;
	return redirect(flow->clat, BPF_F_INGRESS);
}

/* IPv6 to IPv4, at the ingress of an uplink. */
SEC("classifier")
int clatd_in(struct __sk_buff *skb)
{
	const struct to4 *ours;
	const struct clat *clat;
	struct counters *seen;
	struct found flow = {};
	struct to4 own = {};
	struct ip6 ip;
	int owner;

	/* A frame whose tag has the number 0 is in no VLAN; it only has a priority. */
	if (skb->protocol != swap16_constant(ETH_P_IPV6) || skb->vlan_present && skb->vlan_tci & VLAN_NUMBER)
		return NEXT;
	if (skb_load_bytes_relative(skb, 0, &ip, sizeof(ip), BPF_HDR_START_NET) || swap32(ip.first) >> 28 != 6)
		return NEXT;
	if (*(__u8 *)ip.destination == 0xff) {
		if (ip.next == PROTO_ICMPV6)
			answer_at_once(skb);
		return NEXT;
	}
	ours = find6(skb->ifindex, ip.destination);
	/* A network card that listens to everything also brings packets for others (no PACKET_HOST). */
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
	/* The TUN device would put the tag into the packet. */
	if (skb->vlan_present && skb_vlan_pop(skb))
		return drop(seen, V6_TO_V4, NO_MEMORY);
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
	return take_in(skb, clat, seen, ours, &flow, &ip);
}
