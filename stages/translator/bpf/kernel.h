/* What the programs use of the kernel's interface for BPF programs (linux/bpf.h), and no more, so that nothing but
 * clang is needed to build them. All of it is stable: the kernel promises not to change it. */
#pragma once

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
/* Numbers in network byte order. */
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
/* Its own frame on the stack. Those of a chain of calls have 512 octets together. */
#define NOT_INLINE static __attribute__((noinline))
/* The compiler is to make no loop of it. */
#define UNROLL _Pragma("unroll")
/* For the description of a map in BTF. */
#define NUMBER(name, value) int(*name)[value]
#define TYPE(name, type) type *name
#define MAPS(name, type) type *name[]

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define swap16(value) __builtin_bswap16(value)
#define swap32(value) __builtin_bswap32(value)
#define swap64(value) __builtin_bswap64(value)
#define swap16_constant(value) ((__u16)((value) << 8 | (value) >> 8))
#else
#define swap16(value) (value)
#define swap32(value) (value)
#define swap64(value) (value)
#define swap16_constant(value) (value)
#endif

/* struct __sk_buff, as far as it is read. */
struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol;
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto;
	__u32 priority;
	__u32 ingress_ifindex;
	__u32 ifindex;
	__u32 tc_index;
	__u32 cb[5];
	__u32 hash;
	__u32 tc_classid;
	__u32 data;
	__u32 data_end;
	__u32 napi_id;
	__u32 family;
	__u32 remote_ip4;
	__u32 local_ip4;
	__u32 remote_ip6[4];
	__u32 local_ip6[4];
	__u32 remote_port;
	__u32 local_port;
	__u32 data_meta;
	__u64 flow_keys;
	__u64 tstamp;
	__u32 wire_len;
	__u32 gso_segs;
	__u64 sk;
	__u32 gso_size;
};

struct bpf_redir_neigh {
	__u32 nh_family;
	__be32 ipv6_nh[4];
};

/* struct bpf_sock, as far as it is read. */
struct bpf_sock {
	__u32 bound_dev_if;
	__u32 family;
	__u32 type;
	__u32 protocol;
	__u32 mark;
	__u32 priority;
	__u32 src_ip4;
	__u32 src_ip6[4];
	__u32 src_port;
	__be16 dst_port;
	__u16 unused;
	__u32 dst_ip4;
	__u32 dst_ip6[4];
	__u32 state;
};

/* struct bpf_sock_tuple: a packet's addresses and ports, of either family; its length tells which. */
struct tuple4 {
	__be32 source, destination;
	__be16 source_port, destination_port;
};
struct tuple6 {
	__be32 source[4], destination[4];
	__be16 source_port, destination_port;
};

enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_PERCPU_HASH = 5,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_LPM_TRIE = 11,
	BPF_MAP_TYPE_HASH_OF_MAPS = 13,
	BPF_F_NO_PREALLOC = 1,
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
};

enum {
	/* The next program decides: TCX_NEXT, and TC_ACT_UNSPEC of older kernels. */
	NEXT = -1,
	TC_ACT_SHOT = 2,
	PACKET_HOST = 0,
	BPF_F_INGRESS = 1,
	BPF_F_RECOMPUTE_CSUM = 1,
	BPF_F_PSEUDO_HDR = 1 << 4,
	BPF_F_MARK_MANGLED_0 = 1 << 5,
	BPF_HDR_START_NET = 1,
	BPF_ADJ_ROOM_NET = 0,
	BPF_F_CURRENT_NETNS = -1,
	TCP_LISTEN = 10,
	AF_INET6 = 10,
	ETHERNET_HEADER = 14,
	/* In the tag of a VLAN (IEEE 802.1Q), beside the priority. */
	VLAN_NUMBER = 0xfff,
	ETH_P_IP = 0x0800,
	ETH_P_IPV6 = 0x86dd,
};

static void *(*map_lookup)(void *map, const void *key) = (void *)1;
static long (*map_update)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*map_delete)(void *map, const void *key) = (void *)3;
static __u32 (*random32)(void) = (void *)7;
static long (*skb_store_bytes)(struct __sk_buff *, __u32 offset, const void *from, __u32 length, __u64 flags) = (void *)9;
static long (*l4_csum_replace)(struct __sk_buff *, __u32 offset, __u64 from, __u64 to, __u64 flags) = (void *)11;
static long (*clone_redirect)(struct __sk_buff *, __u32 ifindex, __u64 flags) = (void *)13;
static long (*skb_vlan_pop)(struct __sk_buff *) = (void *)19;
static long (*redirect)(__u32 ifindex, __u64 flags) = (void *)23;
static long (*skb_load_bytes)(const struct __sk_buff *, __u32 offset, void *to, __u32 length) = (void *)26;
static long (*skb_change_proto)(struct __sk_buff *, __be16 protocol, __u64 flags) = (void *)31;
static long (*skb_change_type)(struct __sk_buff *, __u32 type) = (void *)32;
static long (*skb_change_head)(struct __sk_buff *, __u32 length, __u64 flags) = (void *)43;
static long (*skb_adjust_room)(struct __sk_buff *, int length, __u32 mode, __u64 flags) = (void *)50;
static long (*set_hash)(struct __sk_buff *, __u32 hash) = (void *)48;
static long (*skb_load_bytes_relative)(const void *skb, __u32 offset, void *to, __u32 length, __u32 start) = (void *)68;
static struct bpf_sock *(*sk_lookup_udp)(void *skb, void *tuple, __u32 length, __u64 netns, __u64 flags) = (void *)85;
static long (*sk_release)(void *sock) = (void *)86;
static struct bpf_sock *(*skc_lookup_tcp)(void *skb, void *tuple, __u32 length, __u64 netns, __u64 flags) = (void *)99;
static long (*redirect_neigh)(__u32 ifindex, struct bpf_redir_neigh *, int length, __u64 flags) = (void *)152;
static __u64 (*ktime_get_coarse_ns)(void) = (void *)160;
