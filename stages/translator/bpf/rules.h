/* What RFC 7915 and RFC 7757 say of a packet: whether it is plain, and which addresses it gets. */
#pragma once
#include "packet.h"

INLINE const struct to4 *find6(__u32 uplink, const __be32 *address)
{
	struct key6 key = {32 + 128, uplink, {address[0], address[1], address[2], address[3]}};

	return map_lookup(&ours6, &key);
}

INLINE int is_fragment4(const struct ip4 *ip)
{
	return ip->fragment & swap16_constant(MORE_FRAGMENTS | FRAGMENT_OFFSET);
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
	if (ip->protocol != PROTO_TCP && ip->protocol != PROTO_UDP && ip->protocol != PROTO_ICMP)
		return OTHER_PROTOCOL;
	/* Fragmented ICMP is not translated (section 1.2). */
	if (is_fragment4(ip) && ip->protocol == PROTO_ICMP)
		return FRAGMENT;
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

/* RFC 7915 section 5.1; `next` is what comes behind the Fragment Header, if there is one. */
INLINE int check6(struct __sk_buff *skb, const struct clat *clat, const struct ip6 *ip, const struct fragment6 *fragment,
		  __u8 next)
{
	__u32 payload = swap16(ip->payload);

	if (clat->uplink_head + sizeof(*ip) + payload != skb->len || payload > 0xffff - sizeof(struct ip4))
		return MALFORMED;
	if (ip->next == 0 || ip->next == 43 || ip->next == 60)
		return OPTIONS;
	if (ip->next == PROTO_FRAGMENT) {
		/* Not a whole packet (RFC 6946), and no fragmented ICMP (section 1.2). */
		if (!(fragment->offset & swap16_constant(0xfff9)) || next != PROTO_TCP && next != PROTO_UDP)
			return FRAGMENT;
	} else if (next != PROTO_TCP && next != PROTO_UDP && next != PROTO_ICMPV6) {
		return OTHER_PROTOCOL;
	}
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

/* The same of a fragment with these octets behind the headers of IP, at `offset` in units of 8 octets. Only the first one
 * has a transport header, and what that tells of the length is about all of them. */
INLINE int look_at_fragment(struct __sk_buff *skb, __u32 at, __u32 length, __u32 offset, int class, struct transport *head)
{
	if (offset * 8 + length > 0xffff)
		return MALFORMED;
	if (offset > 0)
		return FAST;
	if (length < (class == TCP ? 20 : 8) || skb_load_bytes(skb, at, head, sizeof(*head)))
		return MALFORMED;
	if (class == TCP)
		return FAST;
	if (swap16(head->word[UDP_LENGTH]) < 8)
		return MALFORMED;
	return head->word[UDP_CHECKSUM] ? FAST : NO_CHECKSUM;
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

