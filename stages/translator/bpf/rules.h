/* What RFC 7915 and RFC 7757 say of a packet: whether it is plain, and which addresses it gets. Functions that return a
 * reason return FAST where there is none. */
#pragma once
#include "packet.h"

/* The kernel makes no room for a Fragment Header in larger packets (SKB_MAX_ALLOC with pages of 4 KiB, less a link-layer
 * header). */
#define LARGEST_FRAGMENT 16000

/* What is behind the IP headers of a packet. The transport header is apart from it: where a helper writes into a structure,
 * the verifier forgets the values beside it. */
struct payload {
	/* Where it begins, from the beginning of the frame. */
	__u32 at;
	/* Its octets, and those of the largest packet that a super-packet is cut into. */
	__u32 length, segment;
	/* Octets of the Fragment Header that the packet has as IPv6. */
	__u32 extension;
	/* Of a fragment, in units of 8 octets. */
	__u32 offset;
	int class;
};

/* Of the protocols that are plain; of all others it means nothing. */
INLINE int class_of(__u8 protocol)
{
	return protocol == PROTO_TCP ? TCP : protocol == PROTO_UDP ? UDP : ICMP;
}

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
		if (!(fragment->offset & swap16_constant(FRAGMENT_OFFSET6 | MORE_FRAGMENTS6)) || next != PROTO_TCP && next != PROTO_UDP)
			return FRAGMENT;
	} else if (next != PROTO_TCP && next != PROTO_UDP && next != PROTO_ICMPV6) {
		return OTHER_PROTOCOL;
	}
	return ip->hop_limit <= 1 ? HOP_LIMIT : FAST;
}

/* The destination is our address. The source must be in the prefix, and must not be an address of ours. */
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

/* Whether a whole TCP, UDP or ICMP packet is plain. */
INLINE int look_at_whole(struct __sk_buff *skb, struct payload *payload, struct transport *head)
{
	__u32 gso_size = skb->gso_size;
	__u32 header;
	__u8 data_offset;

	if (payload->length < sizeof(*head) || skb_load_bytes(skb, payload->at, head, sizeof(*head)))
		return MALFORMED;
	if (payload->class == TCP) {
		if (payload->length < 20)
			return MALFORMED;
		if (!gso_size)
			return FAST;
		if (skb_load_bytes(skb, payload->at + 12, &data_offset, 1))
			return MALFORMED;
		header = (data_offset >> 4) * 4;
		if (header < 20 || header > payload->length)
			return MALFORMED;
		payload->segment = header + gso_size;
	} else if (payload->class == UDP) {
		header = swap16(head->word[UDP_LENGTH]);
		if (header < 8 || header > payload->length)
			return MALFORMED;
		/* The engine makes one (RFC 7915 section 4.5). */
		if (!head->word[UDP_CHECKSUM])
			return NO_CHECKSUM;
		if (gso_size)
			payload->segment = 8 + gso_size;
	} else if (gso_size) {
		return MALFORMED;
	}
	return FAST;
}

/* The same for a fragment of TCP or UDP. Only the first fragment has a transport header. The length in a UDP header there is
 * that of the whole datagram. */
INLINE int look_at_fragment(struct __sk_buff *skb, const struct payload *payload, struct transport *head)
{
	/* No device cuts fragments. */
	if (skb->gso_size || payload->offset * 8 + payload->length > 0xffff)
		return MALFORMED;
	if (payload->offset > 0)
		return FAST;
	if (payload->length < (payload->class == TCP ? 20 : 8) || skb_load_bytes(skb, payload->at, head, sizeof(*head)))
		return MALFORMED;
	if (payload->class == TCP)
		return FAST;
	if (swap16(head->word[UDP_LENGTH]) < 8)
		return MALFORMED;
	return head->word[UDP_CHECKSUM] ? FAST : NO_CHECKSUM;
}

/* Whether a super-packet of UDP is a tunnel's: each of its segments repeats the inner headers, too, not only those of IP and
 * UDP. The length on the wire shows that. Only the kernel can cut such a packet; it does so before the engine gets it. */
INLINE int is_tunnel(const struct __sk_buff *skb, const struct payload *payload)
{
	return skb->wire_len - skb->len != (skb->gso_segs - 1) * (payload->at + 8);
}

/* Reads what is behind the header of IPv4, which check4 has passed, and checks sizes (RFC 7915 section 4.1): a packet that
 * has to be cut, or refused with "fragmentation needed", is not plain. */
INLINE int look4(struct __sk_buff *skb, const struct clat *clat, const struct ip4 *ip, struct payload *payload,
		 struct transport *head)
{
	__u32 size;
	int reason;

	payload->at = clat->clat_head + sizeof(*ip);
	payload->segment = payload->length = swap16(ip->total) - sizeof(*ip);
	payload->class = class_of(ip->protocol);
	payload->offset = swap16(ip->fragment) & FRAGMENT_OFFSET;
	payload->extension = is_fragment4(ip) ? sizeof(struct fragment6) : 0;
	reason = payload->extension ? look_at_fragment(skb, payload, head) : look_at_whole(skb, payload, head);
	if (reason != FAST)
		return reason;
	if (payload->class == UDP && payload->segment != payload->length && is_tunnel(skb, payload))
		return TUNNEL;
	size = sizeof(struct ip6) + payload->extension + payload->segment;
	if (size > clat->mtu6 || payload->extension && size > LARGEST_FRAGMENT)
		return TOO_BIG;
	if (size > clat->mtu_whole && !(ip->fragment & swap16_constant(DONT_FRAGMENT)) && !skb->gso_size)
		return TOO_BIG;
	return FAST;
}

/* The same for IPv6 (RFC 7915 section 5.1), with the Fragment Header if there is one. */
INLINE int look6(struct __sk_buff *skb, const struct clat *clat, const struct ip6 *ip, struct fragment6 *fragment,
		 struct payload *payload, struct transport *head)
{
	__u8 next = ip->next;
	int reason;

	payload->at = clat->uplink_head + sizeof(*ip);
	payload->length = swap16(ip->payload);
	/* Where the Fragment Header is cut off, `fragment` stays zero, and check6 leaves the packet to the engine. */
	if (next == PROTO_FRAGMENT && payload->length >= sizeof(*fragment) &&
	    !skb_load_bytes(skb, payload->at, fragment, sizeof(*fragment))) {
		payload->extension = sizeof(*fragment);
		payload->at += sizeof(*fragment);
		payload->length -= sizeof(*fragment);
		next = fragment->next;
	}
	payload->segment = payload->length;
	payload->class = class_of(next);
	payload->offset = swap16(fragment->offset) >> 3;
	reason = check6(skb, clat, ip, fragment, next);
	if (reason == FAST)
		reason = payload->extension ? look_at_fragment(skb, payload, head) : look_at_whole(skb, payload, head);
	if (reason == FAST && sizeof(struct ip4) + payload->segment > clat->mtu4)
		reason = TOO_BIG;
	return reason;
}
