/* Contexts of programs that meet calls and connections, and the rule by which a fault matches and chooses them.
 * Invariants: a port or an address that a hook does not know is zero, and meets no fault that names one; the budget of hits is
 * taken last. Sources: include/uapi/linux/bpf.h, tcp.h, asm-generic/socket.h. Next: cgroup.bpf.c, sockops.bpf.c, sockets.bpf.c. */
#pragma once

#include "maps.h"
#include "networks.h"
#include "packet.h"

enum { SOCK_STREAM = 1, SOCK_DGRAM = 2 };
enum { SOL_SOCKET = 1, SO_RCVBUF = 8, SO_MAX_PACING_RATE = 47 };
enum { TCP_MAXSEG = 2, TCP_WINDOW_CLAMP = 10, TCP_CONGESTION = 13 };
enum { TCP_BPF_SNDCWND_CLAMP = 1002, TCP_BPF_RTO_MIN = 1004 };
enum { TCP_ESTABLISHED = 1, TCP_CLOSE_WAIT = 8 };

struct bpf_sock {
    __u32 bound_dev_if;
    __u32 family;
    __u32 type;
    __u32 protocol;
};

struct bpf_sock_addr {
    __u32 user_family;
    __u32 user_ip4;
    __u32 user_ip6[4];
    __u32 user_port;
    __u32 family;
    __u32 type;
    __u32 protocol;
};

/* Reads a word of a context where the source does: the verifier refuses a context's address that was computed before a branch. */
#define WORD(ctx, field) (*(volatile __u32 *)&(ctx)->field)

enum { BPF_MAP_TYPE_SK_STORAGE = 24, BPF_SK_STORAGE_GET_F_CREATE = 1 };

/* The op says which event it is. */
enum {
    BPF_SOCK_OPS_TIMEOUT_INIT = 1,
    BPF_SOCK_OPS_TCP_CONNECT_CB = 3,
    BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB = 4,
    BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB = 5,
};

struct bpf_sock_ops {
    __u32 op;
    __u32 reply;
    __u32 args[3];
    __u32 family;
    __u32 remote_ip4;
    __u32 local_ip4;
    __u32 remote_ip6[4];
    __u32 local_ip6[4];
    /* The first in network byte order, in 32 bits; the other as numbers are here. */
    __u32 remote_port;
    __u32 local_port;
    __u32 is_fullsock;
    __u32 unread[23];
    __u64 bytes_received;
    __u64 bytes_acked;
    struct bpf_sock *sk;
};

/* Kernel structures that an iterator meets. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct in6_addr {
    union {
        __u32 u6_addr32[4];
    } in6_u;
};

struct sock_common {
    __be32 skc_daddr;
    __be32 skc_rcv_saddr;
    __be16 skc_dport;
    __u16 skc_num;
    __u16 skc_family;
    volatile __u8 skc_state;
    struct in6_addr skc_v6_daddr;
    struct in6_addr skc_v6_rcv_saddr;
};

struct bpf_iter__tcp {
    void *meta;
    struct sock_common *sk_common;
};

#pragma clang attribute pop

FAULT_MAPS(struct socket_fault);

/* Both sides of a socket, as far as a hook knows them. */
struct ends {
    /* The socket's own. */
    __u8 src[16];
    __u8 dst[16];
    __u16 sport, dport;
    __u8 family, protocol;
    __u8 unused[2];
};

static __always_inline bool ends_match(const struct selector *selector, const struct ends *ends)
{
    if (selector->protocol && selector->protocol != ends->protocol)
        return false;
#pragma unroll
    for (int i = 0; i < SPARED_MAX; i++) {
        __u16 port = selector->spared[i];
        if (port && (ends->sport == port || ends->dport == port))
            return false;
    }
    if (!within(ends->sport, selector->sport_from, selector->sport_to)
        || !within(ends->dport, selector->dport_from, selector->dport_to))
        return false;
    if (!within(ends->sport, selector->port_from, selector->port_to)
        && !within(ends->dport, selector->port_from, selector->port_to))
        return false;
    return networks_match(selector, ends->src, ends->dst);
}

static __always_inline bool chooses_call(const struct socket_fault *f, struct state *s, __u64 now)
{
    const struct share *share = &f->share;
    switch (share->kind) {
    case SHARE_PACKETS:
        return by_chance(share->ppm);
    case SHARE_EVERY:
        return share->n && (__sync_fetch_and_add(&s->matched, 1) + 1) % share->n == 0;
    case SHARE_FIRST:
        return __sync_fetch_and_add(&s->matched, 1) < share->n;
    case SHARE_BURST:
        return share->period_ms && (now - f->arm.since_ns) / 1000000 % share->period_ms < share->on_ms;
    default:
        return true;
    }
}

/* The fault, if it is in force now. */
static __always_inline const struct socket_fault *in_force(void)
{
    __u32 zero = 0;
    const struct socket_fault *f = bpf_map_lookup_elem(&fault, &zero);
    if (!f || f->arm.mode == MODE_OFF || bpf_ktime_get_ns() >= f->arm.deadline_ns)
        return NULL;
    return f;
}

/* Whether it acts on this one, which is counted. */
static __always_inline bool is_chosen(const struct socket_fault *f, const struct ends *ends)
{
    __u32 zero = 0;
    struct counts *c = bpf_map_lookup_elem(&counts, &zero);
    struct state *s = bpf_map_lookup_elem(&state, &zero);
    if (!c || !s)
        return false;
    c->seen++;
    if (!ends_match(&f->selector, ends))
        return false;
    c->matched++;
    if (!chooses_call(f, s, bpf_ktime_get_ns()))
        return false;
    c->chosen++;
    if (f->arm.mode != MODE_ARMED)
        return false;
    return !f->arm.max_hits || __sync_fetch_and_add(&s->hits, 1) < f->arm.max_hits;
}

/* It did. */
static __always_inline void count_affected(void)
{
    __u32 zero = 0;
    struct counts *c = bpf_map_lookup_elem(&counts, &zero);
    if (c)
        c->affected++;
}
