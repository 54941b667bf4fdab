/* Headers, addresses and checksums, as RFC 7915, RFC 6052 and RFC 7757 need them. */
#pragma once
#include "layout.h"

enum { PROTO_ICMP = 1, PROTO_TCP = 6, PROTO_UDP = 17, PROTO_FRAGMENT = 44, PROTO_ICMPV6 = 58 };
enum { ECHO_REPLY4 = 0, ECHO4 = 8, ECHO6 = 128, ECHO_REPLY6 = 129 };
/* Neighbour discovery (RFC 4861): from router solicitation to redirect. */
enum { ND_FIRST = 133, NEIGHBOUR_SOLICITATION = 135, ND_LAST = 137 };

struct ip4 {
	__u8 version_length, tos;
	__be16 total, id, fragment;
	__u8 ttl, protocol;
	__be16 checksum;
	__be32 source, destination;
};

struct ip6 {
	/* Version, traffic class, flow label. */
	__be32 first;
	__be16 payload;
	__u8 next, hop_limit;
	__be32 source[4], destination[4];
};

/* The fields of ip4.fragment; the offset is in units of 8 octets. */
enum { DONT_FRAGMENT = 0x4000, MORE_FRAGMENTS = 0x2000, FRAGMENT_OFFSET = 0x1fff };

/* Where its fields stand. */
enum { NEXT6_AT = 6, SOURCE6_AT = 8, DESTINATION6_AT = 24 };

/* The Fragment Header (RFC 8200 section 4.5). */
struct fragment6 {
	__u8 next, reserved;
	/* Offset in units of 8 octets, two reserved bits, and whether more fragments follow. */
	__be16 offset;
	__be32 identification;
};
enum { MORE_FRAGMENTS6 = 1, FRAGMENT_OFFSET6 = 0xfff8 };

struct solicitation {
	__u8 type, code;
	__be16 checksum;
	__be32 reserved;
	__be32 target[4];
};

/* The beginning of TCP, UDP and ICMP headers, as 16-bit words. */
struct transport {
	__be16 word[4];
};
enum { SOURCE_PORT = 0, DESTINATION_PORT = 1, UDP_LENGTH = 2, UDP_CHECKSUM = 3, ICMP_TYPE = 0, ECHO_ID = 2 };
enum { TCP_CHECKSUM_AT = 16, UDP_CHECKSUM_AT = 6, ICMP_CHECKSUM_AT = 2 };

/* An IPv6 address, or the part of it that a prefix has. */
struct address6 {
	__u64 high, low;
};

INLINE struct address6 read6(const __be32 *words)
{
	return (struct address6){
		(__u64)swap32(words[0]) << 32 | swap32(words[1]),
		(__u64)swap32(words[2]) << 32 | swap32(words[3]),
	};
}

INLINE void write6(__be32 *words, struct address6 address)
{
	words[0] = swap32((__u32)(address.high >> 32));
	words[1] = swap32((__u32)address.high);
	words[2] = swap32((__u32)(address.low >> 32));
	words[3] = swap32((__u32)address.low);
}

/* RFC 6052 section 2.2: the IPv4 address behind the prefix, around bits 64 to 71, which are zero. */
INLINE struct address6 embed(const struct clat *clat, __u32 address)
{
	struct address6 result = {clat->prefix_high, clat->prefix_low};
	__u32 shift = clat->embed_shift;

	if (shift == 0) {
		result.low |= address;
	} else if (shift >= 64) {
		result.high |= address;
	} else {
		result.high |= (__u64)address >> (64 - shift);
		result.low |= (__u64)address << shift >> 8;
	}
	return result;
}

INLINE int is_in_prefix(const struct clat *clat, struct address6 address)
{
	return (address.high & clat->mask_high) == clat->prefix_high && (address.low & clat->mask_low) == clat->prefix_low;
}

/* The reverse; what is in bits 64 to 71 and behind the address is ignored. */
INLINE __u32 extract(const struct clat *clat, struct address6 address)
{
	__u32 shift = clat->embed_shift;

	if (shift == 0)
		return address.low;
	if (shift >= 64)
		return address.high;
	return address.high << (64 - shift) | address.low << 8 >> shift;
}

/* RFC 7757 section 3.3.1. */
INLINE struct address6 mapped6(const struct to6 *map, __u32 address)
{
	struct address6 result = {map->base_high, map->base_low};
	__u64 suffix = address & map->suffix;
	__u32 shift = map->shift;

	if (shift >= 64) {
		result.high |= suffix << (shift - 64 & 63);
	} else {
		result.low |= suffix << shift;
		if (shift > 0)
			result.high |= suffix >> (64 - shift);
	}
	return result;
}

/* RFC 7757 section 3.3.2. */
INLINE __u32 mapped4(const struct to4 *map, struct address6 address)
{
	__u64 suffix;
	__u32 shift = map->shift;

	if (shift >= 64)
		suffix = address.high >> (shift - 64 & 63);
	else if (shift > 0)
		suffix = address.low >> shift | address.high << (64 - shift);
	else
		suffix = address.low;
	return map->base | (suffix & map->suffix);
}

/* Unicast that routers forward: not "this network", loopback, link-local, multicast, class E (RFC 1812). */
INLINE int is_forwarded4(__u32 address)
{
	__u32 first = address >> 24;

	return first >= 1 && first < 224 && first != 127 && address >> 16 != 0xa9fe;
}

/* RFC 6052 section 3.1: what must not be in the Well-Known Prefix. */
INLINE int is_global4(__u32 a)
{
	return a >> 24 != 0 && a >> 24 != 10 && a >> 22 != 0x6440 >> 6 /* 100.64/10 */ && a >> 24 != 127 &&
	       a >> 16 != 0xa9fe && a >> 20 != 0xac10 >> 4 /* 172.16/12 */ && a >> 8 != 0xc00000 && a >> 8 != 0xc00002 &&
	       a >> 8 != 0xc05863 /* 192.88.99/24 */ && a >> 16 != 0xc0a8 && a >> 17 != 0xc612 >> 1 /* 198.18/15 */ &&
	       a >> 8 != 0xc63364 && a >> 8 != 0xcb0071 && a >> 28 < 14;
}

/* Sums of 16-bit words in ones' complement (RFC 1071); wider words do as well, and byte order does not matter. */
INLINE __u64 sum6(const __be32 *words)
{
	return (__u64)words[0] + words[1] + words[2] + words[3];
}

INLINE __u32 fold32(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (sum & 0xffffffff) + (sum >> 32);
}

INLINE __u16 fold16(__u64 sum)
{
	__u32 half = fold32(sum);

	half = (half & 0xffff) + (half >> 16);
	return (half & 0xffff) + (half >> 16);
}

INLINE __u16 header_sum4(const struct ip4 *ip)
{
	const __u32 *words = (const void *)ip;

	return fold16((__u64)words[0] + words[1] + words[2] + words[3] + words[4]);
}

/* What replacing the addresses does to a sum: the new words, and the complement of the old ones. */
INLINE __u64 minus4(const struct ip4 *ip)
{
	return (__u64)(__u32)~ip->source + (__u32)~ip->destination;
}

INLINE __u64 minus6(const struct ip6 *ip)
{
	/* Eight times 0xffffffff is nothing to a sum. */
	return 8 * 0xffffffffull - sum6(ip->source) - sum6(ip->destination);
}

/* What the checksum field of UDP holds as long as this host or a network card still has to compute the checksum: the sum of
 * the pseudo-header (RFC 768, RFC 8200 section 8.1). */
INLINE __u16 unfinished4(const struct ip4 *ip, __u32 length)
{
	return fold16((__u64)ip->source + ip->destination + swap32(length) + swap32(PROTO_UDP));
}

INLINE __u16 unfinished6(const struct ip6 *ip, __u32 length)
{
	return fold16(sum6(ip->source) + sum6(ip->destination) + swap32(length) + swap32(PROTO_UDP));
}

/* The part of ICMPv6's pseudo-header that is no address (RFC 8200 section 8.1); ICMPv4 has none. */
INLINE __u64 pseudo_icmp6(__u32 length)
{
	return (__u64)swap32(length) + swap32(PROTO_ICMPV6);
}
