/* The networks that a selector may ask for, in maps that user space fills.
 * Invariant: no selector costs more than four look-ups of a trie. Next: match.h for packets, sock.h for sockets. */
#pragma once

#include "kern.h"
#include "shared.h"

#define NETWORKS_MAX 1024

#define NETWORKS(name)                                  \
    struct {                                            \
        __uint(type, BPF_MAP_TYPE_LPM_TRIE);            \
        __uint(max_entries, NETWORKS_MAX);              \
        __uint(map_flags, BPF_F_NO_PREALLOC);           \
        __type(key, struct network);                    \
        __type(value, __u8);                            \
    } name SEC(".maps")

NETWORKS(src_networks);
NETWORKS(dst_networks);
NETWORKS(peer_networks);

static __always_inline bool in_networks(void *map, const __u8 *address)
{
    struct network key = { .prefix_len = 128 };
    __builtin_memcpy(key.address, address, 16);
    return bpf_map_lookup_elem(map, &key) != NULL;
}

static __always_inline bool networks_match(const struct selector *selector, const __u8 *src, const __u8 *dst)
{
    if ((selector->networks & NETWORKS_SRC) && !in_networks(&src_networks, src))
        return false;
    if ((selector->networks & NETWORKS_DST) && !in_networks(&dst_networks, dst))
        return false;
    return !(selector->networks & NETWORKS_PEER) || in_networks(&peer_networks, src) || in_networks(&peer_networks, dst);
}
