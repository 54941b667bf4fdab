/* How a plain packet is rewritten: the new headers, and what depends on them behind. */
#pragma once
#include "rules.h"

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

/* Fills the header of IPv6 that the packet gets; its addresses are there already. `difference` becomes what the change adds
 * to the checksum behind the header. Translates the type of an echo; 0 = the ICMP message is no echo. */
INLINE int head6(const struct clat *clat, const struct ip4 *ip, const struct payload *payload, struct transport *head,
		 struct ip6 *out, __u64 *difference)
{
	__be16 *type = &head->word[ICMP_TYPE];

	out->first = swap32(6u << 28 | (__u32)(clat->flags & CLAT_TRAFFIC_CLASS ? clat->traffic_class : ip->tos) << 20);
	out->payload = swap16((__u16)(payload->length + payload->extension));
	out->next = ip->protocol;
	out->hop_limit = ip->ttl - 1;
	*difference = sum6(out->source) + sum6(out->destination);
	if (payload->class != ICMP) {
		*difference += minus4(ip);
		return 1;
	}
	out->next = PROTO_ICMPV6;
	*difference += pseudo_icmp6(payload->length) + (__u16)~*type;
	if (!translate_echo(type, ECHO4, ECHO_REPLY4, ECHO6, ECHO_REPLY6))
		return 0;
	*difference += *type;
	return 1;
}

/* Identification and fragment fields (RFC 7915 sections 5.1 and 5.1.1). */
INLINE void set_fragment4(const struct fragment6 *fragment, const struct payload *payload, struct ip4 *out)
{
	if (payload->extension) {
		out->id = swap16((__u16)swap32(fragment->identification));
		out->fragment = swap16((__u16)payload->offset);
		if (fragment->offset & swap16_constant(MORE_FRAGMENTS6))
			out->fragment |= swap16_constant(MORE_FRAGMENTS);
		return;
	}
	out->id = random32();
	/* What may have been cut on the way can be cut again. */
	if (sizeof(*out) + payload->segment > 1260)
		out->fragment = swap16_constant(DONT_FRAGMENT);
}

/* Fills the header of IPv4, as head6 does that of IPv6. */
INLINE int head4(const struct clat *clat, const struct ip6 *ip, const struct fragment6 *fragment,
		 const struct payload *payload, struct transport *head, struct ip4 *out, __u64 *difference)
{
	__be16 *type = &head->word[ICMP_TYPE];

	*difference = minus6(ip);
	if (payload->class == ICMP) {
		*difference += (2 * 0xffffffffull - pseudo_icmp6(payload->length)) + (__u16)~*type;
		if (!translate_echo(type, ECHO6, ECHO_REPLY6, ECHO4, ECHO_REPLY4))
			return 0;
		*difference += *type;
	} else {
		*difference += out->source + (__u64)out->destination;
	}
	out->version_length = 0x45;
	out->tos = clat->flags & CLAT_TOS ? clat->tos : swap32(ip->first) >> 20;
	out->total = swap16((__u16)(sizeof(*out) + payload->length));
	set_fragment4(fragment, payload, out);
	out->ttl = ip->hop_limit - 1;
	out->protocol = payload->class == TCP ? PROTO_TCP : payload->class == UDP ? PROTO_UDP : PROTO_ICMP;
	out->checksum = ~header_sum4(out);
	return 1;
}

/* Puts the header of IPv6 where that of IPv4 was, at `at`, and a Fragment Header behind it if the packet is a fragment (RFC
 * 7915 section 4.1). 0 = done. */
INLINE int write_headers6(struct __sk_buff *skb, __u32 at, const struct ip4 *ip, const struct payload *payload,
			  struct ip6 *out)
{
	struct fragment6 fragment = {};

	if (payload->extension) {
		fragment.next = out->next;
		fragment.offset = swap16((__u16)(payload->offset << 3));
		if (ip->fragment & swap16_constant(MORE_FRAGMENTS))
			fragment.offset |= swap16_constant(MORE_FRAGMENTS6);
		fragment.identification = swap32(swap16(ip->id));
		out->next = PROTO_FRAGMENT;
		if (skb_adjust_room(skb, sizeof(fragment), BPF_ADJ_ROOM_NET, 0) ||
		    skb_store_bytes(skb, at + sizeof(*out), &fragment, sizeof(fragment), BPF_F_RECOMPUTE_CSUM))
			return -1;
	}
	return skb_store_bytes(skb, at, out, sizeof(*out), BPF_F_RECOMPUTE_CSUM) ? -1 : 0;
}

/* Updates the checksum of UDP. The kernel marks a packet as a whole: one of its checksums is not computed yet. With VXLAN
 * this is often the inner one, but l4_csum_replace would take the outer one for it. So a checksum that is not the value
 * `unfinished` is updated here. 0 = done. */
INLINE int update_udp(struct __sk_buff *skb, __u32 at, __u16 checksum, __u16 unfinished, __u32 difference)
{
	if (checksum == unfinished)
		return l4_csum_replace(skb, at, 0, difference, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0) ? -1 : 0;
	checksum = ~fold16((__u64)(__u16)~checksum + difference);
	if (!checksum)
		checksum = 0xffff;
	return skb_store_bytes(skb, at, &checksum, sizeof(checksum), BPF_F_RECOMPUTE_CSUM) ? -1 : 0;
}

/* Writes the type of an echo, and adds `difference` to the checksum, also where this host or a network card still has to
 * compute that. 0 = done. */
INLINE int update_payload(struct __sk_buff *skb, const struct payload *payload, const struct transport *head,
			  __u16 unfinished, __u64 difference)
{
	__u32 sum = fold32(difference);

	/* The checksum is in the first fragment. */
	if (payload->offset)
		return 0;
	if (payload->class == TCP)
		return l4_csum_replace(skb, payload->at + TCP_CHECKSUM_AT, 0, sum, BPF_F_PSEUDO_HDR) ? -1 : 0;
	if (payload->class == UDP)
		return update_udp(skb, payload->at + UDP_CHECKSUM_AT, head->word[UDP_CHECKSUM], unfinished, sum);
	if (skb_store_bytes(skb, payload->at, head, 2, BPF_F_RECOMPUTE_CSUM))
		return -1;
	return l4_csum_replace(skb, payload->at + ICMP_CHECKSUM_AT, 0, sum, BPF_F_PSEUDO_HDR) ? -1 : 0;
}
