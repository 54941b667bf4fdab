/* Reads from a packet of IPv6 which flow it belongs to, behind its extension headers. */
#pragma once
#include "packet.h"

INLINE int has_ports(__u8 protocol)
{
	return protocol == PROTO_TCP || protocol == PROTO_UDP;
}

/* Where the checksum of TCP, UDP and ICMPv6 stands in their headers. */
INLINE __u32 checksum_at(__u8 protocol)
{
	return protocol == PROTO_TCP ? TCP_CHECKSUM_AT : protocol == PROTO_UDP ? UDP_CHECKSUM_AT : ICMP_CHECKSUM_AT;
}

/* What a packet says of its flow. */
struct trace {
	/* Offset of the transport header from the network header. */
	__u32 at;
	/* An echo has its identifier as either port, other protocols have zeros. */
	__be16 source, destination;
	__u8 protocol;
	/* Of an ICMPv6 message. */
	__u8 type;
	/* Of a fragment: its identification, and whether it is the first one. */
	__u8 is_fragment, is_first;
	__be32 identification;
};

INLINE int load(struct __sk_buff *skb, __u32 at, void *to, __u32 length)
{
	return skb_load_bytes_relative(skb, at, to, length, BPF_HDR_START_NET);
}

/* Steps over an extension header; 1 = another one may follow, 0 = this was none or the last, -1 = it is cut off. */
INLINE int step(struct __sk_buff *skb, __u32 *at, __u8 *next, struct trace *trace)
{
	struct {
		__u8 next, length;
		__be16 fragment;
		__be32 identification;
	} extension;

	if (*next != 0 && *next != 43 && *next != PROTO_FRAGMENT && *next != 60)
		return 0;
	if (load(skb, *at, &extension, sizeof(extension)))
		return -1;
	*at += 8;
	if (*next == PROTO_FRAGMENT) {
		trace->is_fragment = 1;
		trace->identification = extension.identification;
		/* A whole packet may have a Fragment Header, too (RFC 6946). */
		trace->is_first = !(extension.fragment & swap16_constant(FRAGMENT_OFFSET6));
	} else {
		*at += extension.length * 8;
	}
	*next = extension.next;
	return !trace->is_fragment || trace->is_first;
}

/* Reads behind the IPv6 header at `at`; 0 = there is no transport header, and it is no later fragment. */
NOT_INLINE int read_trace(struct __sk_buff *skb, __u32 at, __u8 next, struct trace *trace)
{
	__be16 ports[2];
	__u8 message[8];
	int more;

	__builtin_memset(trace, 0, sizeof(*trace));
	at += sizeof(struct ip6);
	/* No loop: kernels before Linux 6.3 refuse some, depending on how the compiler puts them. */
	more = step(skb, &at, &next, trace);
	if (more > 0)
		more = step(skb, &at, &next, trace);
	if (more > 0)
		more = step(skb, &at, &next, trace);
	if (more < 0)
		return 0;
	trace->at = at;
	trace->protocol = next;
	if (trace->is_fragment && !trace->is_first)
		return 1;
	if (next == PROTO_ICMPV6) {
		if (load(skb, at, message, sizeof(message)))
			return 0;
		trace->type = message[0];
		trace->source = trace->destination = *(__be16 *)&message[4];
	} else if (has_ports(next) || next == 33 /* DCCP */ || next == 132 /* SCTP */ || next == 136 /* UDP-Lite */) {
		if (load(skb, at, ports, sizeof(ports)))
			return 0;
		trace->source = ports[0];
		trace->destination = ports[1];
	}
	return 1;
}

INLINE int is_error6(const struct trace *trace)
{
	return trace->protocol == PROTO_ICMPV6 && trace->type >= 1 && trace->type <= 4 && !trace->is_fragment;
}
