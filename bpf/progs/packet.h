/* A packet's headers, found in any buffer layout, and the rule by which a fault matches and chooses.
 * Invariants: each header is copied by one helper call and never read past its end; a fragment that is not the first has no
 * ports. Next: tc.bpf.c. */
#pragma once

#include "kern.h"
#include "shared.h"

struct packet {
    __u8 src[16], dst[16];
    __u32 net_at, l4_at, payload_at;
    __u16 sport, dport;
    __u8 family, protocol, flags, has_l4;
};

#define EXTENSIONS_MAX 4

static __always_inline void map_v4(__u8 *to, __be32 address)
{
    __builtin_memset(to, 0, 10);
    to[10] = 0xff;
    to[11] = 0xff;
    __builtin_memcpy(to + 12, &address, 4);
}

static __always_inline bool read_l4(struct __sk_buff *skb, struct packet *packet)
{
    if (packet->protocol == IPPROTO_TCP) {
        struct tcphdr tcp;
        if (bpf_skb_load_bytes(skb, packet->l4_at, &tcp, sizeof(tcp)))
            return false;
        packet->sport = bpf_ntohs(tcp.source);
        packet->dport = bpf_ntohs(tcp.dest);
        packet->flags = tcp.flags;
        packet->payload_at = packet->l4_at + (tcp.doff_res >> 4) * 4;
    } else if (packet->protocol == IPPROTO_UDP) {
        struct udphdr udp;
        if (bpf_skb_load_bytes(skb, packet->l4_at, &udp, sizeof(udp)))
            return false;
        packet->sport = bpf_ntohs(udp.source);
        packet->dport = bpf_ntohs(udp.dest);
        packet->payload_at = packet->l4_at + sizeof(udp);
    } else {
        packet->payload_at = packet->l4_at;
        return true;
    }
    packet->has_l4 = 1;
    return true;
}

static __always_inline bool read_v4(struct __sk_buff *skb, struct packet *packet)
{
    struct iphdr ip;
    if (bpf_skb_load_bytes(skb, packet->net_at, &ip, sizeof(ip)))
        return false;
    packet->family = AF_INET;
    packet->protocol = ip.protocol;
    map_v4(packet->src, ip.saddr);
    map_v4(packet->dst, ip.daddr);
    packet->l4_at = packet->net_at + (ip.version_ihl & 15) * 4;
    packet->payload_at = packet->l4_at;
    /* Behind the first fragment there is no header to read. */
    return (bpf_ntohs(ip.frag_off) & 0x1fff) ? true : read_l4(skb, packet);
}

static __always_inline bool read_v6(struct __sk_buff *skb, struct packet *packet)
{
    struct ipv6hdr ip;
    if (bpf_skb_load_bytes(skb, packet->net_at, &ip, sizeof(ip)))
        return false;
    packet->family = AF_INET6;
    __builtin_memcpy(packet->src, ip.saddr, 16);
    __builtin_memcpy(packet->dst, ip.daddr, 16);
    __u8 next = ip.nexthdr;
    __u32 at = packet->net_at + sizeof(ip);
#pragma unroll
    for (int i = 0; i < EXTENSIONS_MAX; i++) {
        __u8 head[4];
        if (next != NEXTHDR_HOP && next != NEXTHDR_ROUTING && next != NEXTHDR_DEST && next != NEXTHDR_FRAGMENT)
            break;
        if (bpf_skb_load_bytes(skb, at, head, sizeof(head)))
            return false;
        if (next == NEXTHDR_FRAGMENT) {
            if (((head[2] << 8) | head[3]) & 0xfff8) {
                packet->protocol = head[0];
                packet->l4_at = packet->payload_at = at + 8;
                return true;
            }
            at += 8;
        } else {
            at += (head[1] + 1) * 8;
        }
        next = head[0];
    }
    packet->protocol = next;
    packet->l4_at = at;
    return read_l4(skb, packet);
}

/* Whether it is of a protocol that is known. */
static __always_inline bool read_packet(struct __sk_buff *skb, __u32 l2_len, struct packet *packet)
{
    __builtin_memset(packet, 0, sizeof(*packet));
    packet->net_at = l2_len;
    if (skb->protocol == bpf_htons(ETH_P_IP))
        return read_v4(skb, packet);
    if (skb->protocol == bpf_htons(ETH_P_IPV6))
        return read_v6(skb, packet);
    return false;
}

static __always_inline bool within(__u16 value, __u16 from, __u16 to)
{
    return value >= from && value <= to;
}

static __always_inline bool is_spared(const struct selector *selector, const struct packet *packet)
{
#pragma unroll
    for (int i = 0; i < SPARED_MAX; i++) {
        __u16 port = selector->spared[i];
        if (port && (packet->sport == port || packet->dport == port))
            return true;
    }
    return false;
}

static __always_inline bool is_any(__u16 from, __u16 to)
{
    return from == 0 && to == 0xffff;
}

static __always_inline bool ports_match(const struct selector *selector, const struct packet *packet)
{
    if (!packet->has_l4)
        /* Faults that name a port do not meet what has none. */
        return is_any(selector->sport_from, selector->sport_to) && is_any(selector->dport_from, selector->dport_to)
            && is_any(selector->port_from, selector->port_to);
    return within(packet->sport, selector->sport_from, selector->sport_to)
        && within(packet->dport, selector->dport_from, selector->dport_to)
        && (within(packet->sport, selector->port_from, selector->port_to)
            || within(packet->dport, selector->port_from, selector->port_to));
}

static __always_inline bool prefix_matches(struct __sk_buff *skb, const struct selector *selector,
                                           const struct packet *packet)
{
    __u8 bytes[PREFIX_MAX] = {};
    __u32 len = selector->prefix_len;
    if (!len)
        return true;
    /* Verifiers before Linux 6.4 learn nothing from a comparison with zero. */
    __u32 last = len - 1;
    barrier_var(last);
    if (last >= PREFIX_MAX || packet->payload_at + last >= skb->len)
        return false;
    if (bpf_skb_load_bytes(skb, packet->payload_at, bytes, last + 1))
        return false;
#pragma unroll
    for (int i = 0; i < PREFIX_MAX; i++)
        if (i < len && bytes[i] != selector->prefix[i])
            return false;
    return true;
}

static __always_inline __u32 mix(__u32 hash, __u32 value)
{
    hash ^= value * 0xcc9e2d51;
    hash = (hash << 13) | (hash >> 19);
    return hash * 5 + 0xe6546b64;
}

/* The same for both directions of a flow. */
static __always_inline __u32 flow_hash(const struct packet *packet, __u32 seed)
{
    const __u32 *src = (const __u32 *)packet->src, *dst = (const __u32 *)packet->dst;
    __u32 hash = mix(seed, packet->protocol);
    hash = mix(hash, src[0] ^ dst[0]);
    hash = mix(hash, src[1] ^ dst[1]);
    hash = mix(hash, src[2] ^ dst[2]);
    hash = mix(hash, src[3] ^ dst[3]);
    hash = mix(hash, src[3] + dst[3]);
    hash = mix(hash, packet->sport ^ packet->dport);
    hash = mix(hash, (__u32)packet->sport + packet->dport);
    hash ^= hash >> 16;
    hash *= 0x85ebca6b;
    hash ^= hash >> 13;
    hash *= 0xc2b2ae35;
    return hash ^ (hash >> 16);
}

static __always_inline bool by_chance(__u32 ppm)
{
    return bpf_get_prandom_u32() % 1000000 < ppm;
}
