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
	/* The field has a fixed value. Without the flag it is copied from the packet. */
	CLAT_TRAFFIC_CLASS = 16,
	CLAT_TOS = 32,
	/* The address of the CLAT's own mapping is the host's, too: flows tell whose a packet is (flows.h). */
	CLAT_FLOWS = 64,
};

/* One instance. */
struct clat {
	/* The PLAT's prefix (RFC 6052), and the bits that belong to it. */
	__u64 prefix_high, prefix_low;
	__u64 mask_high, mask_low;
	/* The CLAT's own mapping, where it is the only one or shared. */
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
	/* The CLAT device; SHARED = the address is the host's, too, and instances are found by `theirs6`. */
	__u32 clat;
	__u32 base;
	__u32 suffix;
	/* NO_MAPPING = only the engine knows what to do with it. */
	__u32 shift;
};

enum { NO_MAPPING = 255, SHARED = 0 };

struct {
	NUMBER(type, BPF_MAP_TYPE_LPM_TRIE);
	NUMBER(map_flags, BPF_F_NO_PREALLOC);
	NUMBER(max_entries, 1 << 20);
	TYPE(key, struct key6);
	TYPE(value, struct to4);
} ours6 SEC(".maps");

/* CLAT devices whose address is shared, by uplink and by the prefix of the other side. */
struct {
	NUMBER(type, BPF_MAP_TYPE_LPM_TRIE);
	NUMBER(map_flags, BPF_F_NO_PREALLOC);
	NUMBER(max_entries, 4096);
	TYPE(key, struct key6);
	TYPE(value, __u32);
} theirs6 SEC(".maps");

/* What an entry of `flows` is about. */
enum flow_kind {
	/* A flow, by our port on the wire; its value has the port that the host's IPv4 knows. */
	ON_THE_WIRE,
	/* A flow with another port on the wire, by the port that the host's IPv4 knows; the reverse. */
	MOVED,
};

struct flow_key {
	__be32 remote[4];
	/* Our port, and the other one's; of an echo the identifier and 0. */
	__be16 port, remote_port;
	__u8 protocol;
	__u8 kind;
	__u16 unused;
};

struct flow {
	__be16 port;
	__u16 unused;
	/* When there was the last packet; about seconds. */
	__u32 seen;
};

/* The flows of one instance; the least recently used ones go when it is full. The daemon makes it, and says how many it
 * holds. */
struct flows {
	NUMBER(type, BPF_MAP_TYPE_LRU_HASH);
	NUMBER(max_entries, 1);
	NUMBER(key_size, sizeof(struct flow_key));
	NUMBER(value_size, sizeof(struct flow));
};

/* By the index of the CLAT device. */
struct {
	NUMBER(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	NUMBER(map_flags, BPF_F_NO_PREALLOC);
	NUMBER(max_entries, 4096);
	TYPE(key, __u32);
	NUMBER(value_size, 4);
	MAPS(values, struct flows);
} flows_of SEC(".maps");

/* A datagram that came in, in fragments. */
struct fragments_key {
	/* The CLAT device. */
	__u32 clat;
	__be32 remote[4];
	__be32 identification;
};

struct fragments {
	__u32 is_ours;
	/* As of a flow. */
	__u32 seen;
};

/* A map of its own, so that nobody can drive flows out by fragments. */
struct {
	NUMBER(type, BPF_MAP_TYPE_LRU_HASH);
	NUMBER(max_entries, 4096);
	TYPE(key, struct fragments_key);
	TYPE(value, struct fragments);
} fragmented SEC(".maps");

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
	NO_PORT,
	TUNNEL,
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
