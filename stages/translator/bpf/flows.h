/* Whose a packet is where the CLAT shares the host's address: a map has the CLAT's flows, and all others are the host's.
 * A flow keeps its port, unless the host has the same flow towards the same PLAT, or another flow of the CLAT took the
 * port. Then it gets another port on the wire, which only this file knows: the translators and the host's IPv4 never
 * see it. */
#pragma once
#include "trace.h"

/* More than a port's number. */
#define NO_PORT_FREE 0x10000u
/* How long a flow may be idle: as long as a NAT keeps it (RFC 5382 REQ-5, RFC 4787 REQ-5, RFC 5508 REQ-1). After that
 * the kernel is asked again whether the host has the same flow: it may have taken the port. In the unit of now(). */
#define IDLE_TCP 7440
#define IDLE_UDP 300
#define IDLE_OTHER 60
/* How long the fragments of one datagram may be on their way (RFC 8200 section 4.5). In the unit of now(). */
#define IDLE_FRAGMENTS 60
/* Ports that Linux does not choose by itself (ip_local_port_range), so that the host takes none of them later. */
#define FIRST_PORT 61000
#define PORTS (65536 - FIRST_PORT)
#define TRIES 4

/* About seconds. */
INLINE __u32 now(void)
{
	return ktime_get_coarse_ns() >> 30;
}

INLINE __u32 idle_time(__u8 protocol)
{
	return protocol == PROTO_TCP ? IDLE_TCP : protocol == PROTO_UDP ? IDLE_UDP : IDLE_OTHER;
}

/* Writes another port into a packet, at `port` from its beginning, and corrects the checksum at `checksum`. */
INLINE int write_port(struct __sk_buff *skb, __u32 port, __u32 checksum, __u8 protocol, __be16 from, __be16 to)
{
	__u64 flags = sizeof(from) | (protocol == PROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0);

	return l4_csum_replace(skb, checksum, from, to, flags) || skb_store_bytes(skb, port, &to, sizeof(to), 0);
}

/* Whether the packet at `trace` has its checksum, which an error may have cut off. */
INLINE int has_checksum(struct __sk_buff *skb, const struct trace *trace)
{
	__u16 checksum;

	return has_ports(trace->protocol) &&
	       !load(skb, trace->at + checksum_at(trace->protocol), &checksum, sizeof(checksum)) &&
	       (checksum || trace->protocol == PROTO_TCP);
}

/* Keeps the compiler from joining two pieces of code into one that computes with the address of a socket, which the
 * verifier refuses. */
#define KEEP_APART(value) asm volatile("" : "+r"(value))

/* The flow as the host's IPv4 has it, if its port was not changed. */
INLINE struct tuple4 as_ipv4(const struct clat *clat, const struct flow_key *key)
{
	struct tuple4 four = {};

	four.source = swap32(extract(clat, read6(key->remote)));
	four.destination = swap32(clat->only_v4);
	four.source_port = key->remote_port;
	four.destination_port = key->port;
	return four;
}

/* Whether a TCP connection of the host's has this flow. */
INLINE int is_connection(struct __sk_buff *skb, void *tuple, __u32 length)
{
	struct bpf_sock *sock = skc_lookup_tcp(skb, tuple, length, BPF_F_CURRENT_NETNS, 0);
	int found;

	if (!sock)
		return 0;
	found = sock->state;
	KEEP_APART(found);
	sk_release(sock);
	/* A socket that listens has no flow of its own. */
	return found != TCP_LISTEN;
}

/* The same by IPv4; other protocols have no connections. */
NOT_INLINE int is_connection4(struct __sk_buff *skb, const struct clat *clat, const struct flow_key *key)
{
	struct tuple4 four = as_ipv4(clat, key);

	return key->protocol == PROTO_TCP && is_connection(skb, &four, sizeof(four));
}

/* Whether a socket of the host's, of IPv6, has this flow. Nobody can ask for sockets of echoes. */
NOT_INLINE int is_hosts(struct __sk_buff *skb, const struct clat *clat, const struct flow_key *key)
{
	struct tuple6 six = {};
	struct tuple4 four;
	struct bpf_sock *sock;
	int found;

	six.source[0] = key->remote[0];
	six.source[1] = key->remote[1];
	six.source[2] = key->remote[2];
	six.source[3] = key->remote[3];
	write6(six.destination, (struct address6){clat->only_high, clat->only_low});
	six.source_port = key->remote_port;
	six.destination_port = key->port;
	if (key->protocol == PROTO_TCP)
		return is_connection(skb, &six, sizeof(six));
	if (key->protocol != PROTO_UDP)
		return 0;
	sock = sk_lookup_udp(skb, &six, sizeof(six), BPF_F_CURRENT_NETNS, 0);
	if (!sock)
		return 0;
	sk_release(sock);
	/* A socket of both families, which speaks IPv4 by the CLAT. */
	four = as_ipv4(clat, key);
	sock = sk_lookup_udp(skb, &four, sizeof(four), BPF_F_CURRENT_NETNS, 0);
	if (!sock)
		return 1;
	found = sock->family;
	KEEP_APART(found);
	sk_release(sock);
	return found != AF_INET6;
}

INLINE int is_idle(const struct flow *flow, const struct flow_key *key)
{
	return now() - flow->seen >= idle_time(key->protocol);
}

INLINE void touch(struct flow *flow)
{
	__u32 time = now();

	if (flow->seen != time)
		flow->seen = time;
}

/* Enters a flow of the CLAT that is not known, or was idle for long. `port` is the one that the host's IPv4 knows. The
 * key has the same one, or the one that the flow had on the wire. Returns the port on the wire. */
NOT_INLINE __u32 enter(struct __sk_buff *skb, const struct clat *clat, void *flows, struct flow_key *key, __be16 port)
{
	struct flow fresh = {.port = port, .seen = now()};
	struct flow moved = {.seen = fresh.seen};
	struct flow *found;

	UNROLL
	for (int i = 0; i < TRIES; i++) {
		if (!is_hosts(skb, clat, key)) {
			found = map_lookup(flows, key);
			if (!found && !map_update(flows, key, &fresh, BPF_NOEXIST)) {
				moved.port = key->port;
				if (moved.port == port)
					return moved.port;
				key->kind = MOVED;
				key->port = port;
				map_update(flows, key, &moved, BPF_ANY);
				return moved.port;
			}
			/* Another processor was faster. */
			if (!found)
				found = map_lookup(flows, key);
			if (found && found->port == port) {
				touch(found);
				return key->port;
			}
		}
		/* No other protocol has a port that may be changed. */
		if (!has_ports(key->protocol))
			break;
		key->port = swap16((__u16)(FIRST_PORT + random32() % PORTS));
	}
	return NO_PORT_FREE;
}

/* The port by which a packet of the CLAT leaves; `key` has its own one. A flow that begins is entered. */
INLINE __u32 port_out(struct __sk_buff *skb, const struct clat *clat, __u32 device, struct flow_key *key)
{
	void *flows = map_lookup(&flows_of, &device);
	__be16 port = key->port;
	struct flow *flow;

	if (!flows)
		return NO_PORT_FREE;
	key->kind = ON_THE_WIRE;
	flow = map_lookup(flows, key);
	if (flow && flow->port == port && !is_idle(flow, key)) {
		touch(flow);
		return port;
	}
	key->kind = MOVED;
	flow = map_lookup(flows, key);
	key->kind = ON_THE_WIRE;
	if (flow) {
		key->port = flow->port;
		flow = map_lookup(flows, key);
		if (flow && flow->port == port && !is_idle(flow, key)) {
			touch(flow);
			return key->port;
		}
	}
	return enter(skb, clat, flows, key, port);
}

/* A packet comes in for a flow that the map does not have. It may still be the CLAT's: other flows may have driven that
 * of an idle connection out of the map, and a connection outlives the daemon. The socket of the connection tells. */
INLINE __u32 port_of_socket(struct __sk_buff *skb, const struct clat *clat, void *flows, struct flow_key *key)
{
	struct flow fresh = {.port = key->port, .seen = now()};

	if (!is_connection4(skb, clat, key) || is_hosts(skb, clat, key))
		return NO_PORT_FREE;
	map_update(flows, key, &fresh, BPF_ANY);
	return fresh.port;
}

/* Finds the flow of a packet that comes in, by its port on the wire. Returns the port that the host's IPv4 knows;
 * NO_PORT_FREE = it is no flow of the CLAT. */
INLINE __u32 port_in(struct __sk_buff *skb, const struct clat *clat, void *flows, struct flow_key *key, int begins)
{
	struct flow *flow = map_lookup(flows, key);
	__u32 port;

	if (!flow)
		return port_of_socket(skb, clat, flows, key);
	if ((begins || is_idle(flow, key)) && is_hosts(skb, clat, key)) {
		map_delete(flows, key);
		return NO_PORT_FREE;
	}
	port = flow->port;
	touch(flow);
	return port;
}

enum whose { HOSTS, CLATS, NOBODY_KNOWS };

/* Of a packet that came in. */
struct found {
	__u32 clat;
	/* The port to be written, and where: from the network header. 0 = none. */
	__u32 port_at, checksum_at;
	__be16 from, to;
	__u8 protocol;
};

/* An error at `trace`: reads where the packet in it went, which must have come from this address of ours. */
INLINE int read_error(struct __sk_buff *skb, const struct trace *trace, const __be32 *ours, __be32 *remote, __u8 *next)
{
	__u32 at = trace->at + 8;

	return !load(skb, at + SOURCE6_AT, remote, 16) && remote[0] == ours[0] && remote[1] == ours[1] &&
	       remote[2] == ours[2] && remote[3] == ours[3] && !load(skb, at + DESTINATION6_AT, remote, 16) &&
	       !load(skb, at + NEXT6_AT, next, 1);
}

/* The flow that a packet answers, or that the packet in an error has; 0 = none. */
INLINE int set_flow(struct flow_key *key, const struct trace *trace, int in_error)
{
	if (trace->protocol == PROTO_ICMPV6 && trace->type != (in_error ? ECHO6 : ECHO_REPLY6))
		return 0;
	key->port = in_error ? trace->source : trace->destination;
	key->remote_port = in_error ? trace->destination : trace->source;
	if (trace->protocol == PROTO_ICMPV6)
		key->remote_port = 0;
	key->protocol = trace->protocol;
	return 1;
}

/* Whether the packet answers a SYN: the connection is accepted (SYN, ACK) or refused (RST, ACK). */
INLINE int answers_syn(struct __sk_buff *skb, const struct trace *trace)
{
	__u8 flags;

	return trace->protocol == PROTO_TCP && !load(skb, trace->at + 13, &flags, sizeof(flags)) && flags & 0x10 &&
	       flags & 0x06;
}

INLINE void set_fragments(struct fragments_key *key, __u32 clat, const __be32 *remote, const struct trace *trace)
{
	key->clat = clat;
	key->remote[0] = remote[0];
	key->remote[1] = remote[1];
	key->remote[2] = remote[2];
	key->remote[3] = remote[3];
	key->identification = trace->identification;
}

/* Where the first fragment went. */
INLINE int find_fragments(__u32 clat, const __be32 *remote, const struct trace *trace)
{
	struct fragments_key key;
	struct fragments *known;

	set_fragments(&key, clat, remote, trace);
	known = map_lookup(&fragmented, &key);
	/* An older entry is of another datagram: senders use an identification again. */
	if (!known || now() - known->seen >= IDLE_FRAGMENTS)
		return NOBODY_KNOWS;
	return known->is_ours ? CLATS : HOSTS;
}

INLINE void remember_fragments(__u32 clat, const __be32 *remote, const struct trace *trace, int is_ours)
{
	struct fragments value = {is_ours, now()};
	struct fragments_key key;

	set_fragments(&key, clat, remote, trace);
	map_update(&fragmented, &key, &value, BPF_ANY);
}

/* Whether a packet to a shared address belongs to the host or to the CLAT. */
NOT_INLINE int find_owner(struct __sk_buff *skb, const struct ip6 *ip, struct found *found)
{
	struct key6 far = {32 + 128, skb->ifindex, {ip->source[0], ip->source[1], ip->source[2], ip->source[3]}};
	__u32 *device = map_lookup(&theirs6, &far), port = NO_PORT_FREE;
	struct flow_key key = {};
	struct trace trace;
	struct clat *clat;
	int in_error;
	void *flows;
	__u8 next;

	/* Nearly all of the host's own packets. */
	if (!device && has_ports(ip->next))
		return HOSTS;
	if (!read_trace(skb, 0, ip->next, &trace))
		return HOSTS;
	in_error = is_error6(&trace);
	if (in_error) {
		if (!read_error(skb, &trace, ip->destination, far.address, &next))
			return HOSTS;
		found->checksum_at = trace.at + ICMP_CHECKSUM_AT;
		device = map_lookup(&theirs6, &far);
		if (!read_trace(skb, trace.at + 8, next, &trace) || trace.is_fragment && !trace.is_first)
			return HOSTS;
	}
	clat = device ? map_lookup(&clats, device) : 0;
	if (!clat)
		return HOSTS;
	found->clat = *device;
	if (!(clat->flags & CLAT_FLOWS))
		return CLATS;
	flows = map_lookup(&flows_of, device);
	if (!flows)
		return HOSTS;
	if (trace.is_fragment && !trace.is_first)
		return find_fragments(found->clat, far.address, &trace);

	key.remote[0] = far.address[0];
	key.remote[1] = far.address[1];
	key.remote[2] = far.address[2];
	key.remote[3] = far.address[3];
	if (set_flow(&key, &trace, in_error)) {
		found->from = key.port;
		port = port_in(skb, clat, flows, &key, !in_error && answers_syn(skb, &trace));
	}
	if (trace.is_fragment && !in_error)
		remember_fragments(found->clat, far.address, &trace, port != NO_PORT_FREE);
	if (port == NO_PORT_FREE)
		return HOSTS;
	found->to = port;
	if (found->to == found->from)
		return CLATS;
	found->port_at = trace.at + (in_error ? 0 : 2);
	found->protocol = PROTO_ICMPV6;
	/* If the packet in an error has a checksum, only that one is corrected. The packet then adds the same as before
	 * to the checksum of the error, which stays. */
	if (!in_error || has_checksum(skb, &trace)) {
		found->protocol = trace.protocol;
		found->checksum_at = trace.at + checksum_at(trace.protocol);
	}
	return CLATS;
}

/* Enters the flow of a packet that the engine made, and writes its port on the wire; 0 = that cannot be done. */
NOT_INLINE int leave_by_flow(struct __sk_buff *skb, const struct clat *clat, __u32 device, const struct ip6 *ip)
{
	struct flow_key key = {.remote = {ip->destination[0], ip->destination[1], ip->destination[2], ip->destination[3]}};
	__u32 head = clat->clat_head, inner_at = 0, port, checksum;
	struct trace trace;
	__u8 inner_next = 0;
	__be16 own;

	if (!read_trace(skb, 0, ip->next, &trace) || trace.is_fragment && !trace.is_first)
		return 1;
	checksum = trace.at + checksum_at(trace.protocol);
	if (is_error6(&trace)) {
		/* About a packet that came in. */
		inner_at = trace.at + 8;
		if (load(skb, inner_at + SOURCE6_AT, key.remote, sizeof(key.remote)) ||
		    load(skb, inner_at + NEXT6_AT, &inner_next, sizeof(inner_next)) ||
		    !read_trace(skb, inner_at, inner_next, &trace) || trace.is_fragment && !trace.is_first ||
		    !has_ports(trace.protocol))
			return 1;
		key.port = trace.destination;
		key.remote_port = trace.source;
	} else {
		if (trace.protocol == PROTO_ICMPV6 && trace.type != ECHO6)
			return 1;
		key.port = trace.source;
		key.remote_port = trace.protocol == PROTO_ICMPV6 ? 0 : trace.destination;
	}
	key.protocol = trace.protocol;
	own = key.port;
	port = port_out(skb, clat, device, &key);
	if (port == NO_PORT_FREE)
		return 0;
	if (port == own)
		return 1;
	if (inner_at && !has_checksum(skb, &trace))
		return !write_port(skb, head + trace.at + 2, head + checksum, PROTO_ICMPV6, own, port);
	if (inner_at)
		return !write_port(skb, head + trace.at + 2, head + trace.at + checksum_at(trace.protocol),
				   trace.protocol, own, port);
	return !write_port(skb, head + trace.at, head + checksum, trace.protocol, own, port);
}
