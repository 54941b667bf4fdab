/* What the daemon tells the programs, and what they count. src/kernel/fastpath/layout.rs writes and reads the same:
 * keep the two together. Numbers are in host byte order unless they are __be*. */
#pragma once
#include "kernel.h"

enum {
	/* The next hop is known. */
	CLAT_READY = 1,
	/* The CLAT's own mapping, of two addresses, is the only one (only_*). */
	CLAT_ONLY = 2,
	/* Our addresses without a mapping are translated by the prefix (unmapped-source=prefix). */
	CLAT_BY_PREFIX = 4,
	/* No non-global IPv4 address in the Well-Known Prefix (RFC 6052 section 3.1). */
	CLAT_STRICT = 8,
	/* Not as received, but always so. */
	CLAT_TRAFFIC_CLASS = 16,
	CLAT_TOS = 32,
};

/* One instance. */
struct clat {
	/* The PLAT's prefix (RFC 6052), and the bits that belong to it. */
	__u64 prefix_high, prefix_low;
	__u64 mask_high, mask_low;
	__u64 only_high, only_low;
	__u32 only_v4;
	/* The translator's own address, for which the engine answers. */
	__u32 own_v4;
	__u32 mtu4, mtu6;
	/* The largest IPv6 packet that needs no fragmentation where IPv4 allows it (RFC 7915 section 4.1). */
	__u32 mtu_whole;
	__u32 uplink;
	/* All zero = the destination is a neighbour. */
	__be32 gateway[4];
	/* 96 less the length of the prefix. */
	__u8 embed_shift;
	/* Length of the link-layer header of each device. */
	__u8 clat_head;
	__u8 uplink_head;
	__u8 flags;
	__u8 traffic_class;
	__u8 tos;
	__u8 unused[2];
};

/* Instances by the index of their CLAT device. */
struct {
	NUMBER(type, BPF_MAP_TYPE_HASH);
	NUMBER(map_flags, BPF_F_NO_PREALLOC);
	NUMBER(max_entries, 4096);
	TYPE(key, __u32);
	TYPE(value, struct clat);
} clats SEC(".maps");

/* An IPv4 prefix of ours that is mapped explicitly (RFC 7757), by instance. */
struct key4 {
	__u32 length;
	__u32 clat;
	__be32 address;
};

/* IPv6 address = base | (IPv4 address & suffix) << shift. */
struct to6 {
	__u64 base_high, base_low;
	__u32 suffix;
	__u32 shift;
};

struct {
	NUMBER(type, BPF_MAP_TYPE_LPM_TRIE);
	NUMBER(map_flags, BPF_F_NO_PREALLOC);
	NUMBER(max_entries, 1 << 20);
	TYPE(key, struct key4);
	TYPE(value, struct to6);
} ours4 SEC(".maps");

/* An IPv6 prefix that is an instance's, by uplink. */
struct key6 {
	__u32 length;
	__u32 uplink;
	__be32 address[4];
};

/* IPv4 address = base | (IPv6 address >> shift & suffix). */
struct to4 {
	/* The CLAT device. */
	__u32 clat;
	__u32 base;
	__u32 suffix;
	/* NO_MAPPING = only the engine knows what to do with it. */
	__u32 shift;
};

enum { NO_MAPPING = 255 };

struct {
	NUMBER(type, BPF_MAP_TYPE_LPM_TRIE);
	NUMBER(map_flags, BPF_F_NO_PREALLOC);
	NUMBER(max_entries, 1 << 20);
	TYPE(key, struct key6);
	TYPE(value, struct to4);
} ours6 SEC(".maps");

enum direction { V4_TO_V6, V6_TO_V4, DIRECTIONS };

enum protocol_class { TCP, UDP, ICMP, CLASSES };

/* Why a packet is left to the engine, or dropped. */
enum reason {
	FAST, /* it is not */
	OTHER_PROTOCOL,
	FRAGMENT,
	OPTIONS,
	NO_ECHO,
	NO_CHECKSUM,
	HOP_LIMIT,
	TOO_BIG,
	ADDRESS,
	MALFORMED,
	NO_NEXT_HOP,
	NO_MEMORY,
	REASONS,
};

struct counters {
	__u64 fast[DIRECTIONS][CLASSES];
	__u64 bytes[DIRECTIONS];
	__u64 slow[DIRECTIONS][REASONS];
	__u64 dropped[DIRECTIONS][REASONS];
	/* IPv6 packets of the engine that left by the uplink. */
	__u64 sent_for_engine;
};

/* By the index of the CLAT device. */
struct {
	NUMBER(type, BPF_MAP_TYPE_PERCPU_HASH);
	NUMBER(map_flags, BPF_F_NO_PREALLOC);
	NUMBER(max_entries, 4096);
	TYPE(key, __u32);
	TYPE(value, struct counters);
} counted SEC(".maps");
