/* Settings of TCP connections of a control group, made when they are opened or established while the fault is in force.
 *
 * Invariants: past its deadline no connection is set; what a connection had before is kept with it, and the iterator `unset`,
 * which user space runs at the end, gives it back. Next: sock.h; user space in src/faults/pace.rs. */
#include "sock.h"

#define NEXT_PROGRAMS 1

/* What a connection had before. */
struct setting {
    __u32 action;
    __u32 value;
    char name[16];
};

struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct setting);
} settings SEC(".maps");

/* As a connection has it whose application asked for nothing. */
#define CWND_ANY 0x7fffffff
#define RTO_MIN_US 200000

/* All words are read, whatever the version: the verifier refuses the address arithmetic that branches would share. */
static __always_inline void read_ends(struct bpf_sock_ops *ctx, struct ends *ends)
{
    __u32 src[4] = { WORD(ctx, local_ip6[0]), WORD(ctx, local_ip6[1]), WORD(ctx, local_ip6[2]), WORD(ctx, local_ip6[3]) };
    __u32 dst[4] = { WORD(ctx, remote_ip6[0]), WORD(ctx, remote_ip6[1]), WORD(ctx, remote_ip6[2]),
                     WORD(ctx, remote_ip6[3]) };
    __u32 src4 = WORD(ctx, local_ip4), dst4 = WORD(ctx, remote_ip4);
    ends->family = WORD(ctx, family);
    ends->protocol = IPPROTO_TCP;
    ends->sport = WORD(ctx, local_port);
    ends->dport = bpf_ntohl(WORD(ctx, remote_port));
    if (ends->family == AF_INET6) {
        __builtin_memcpy(ends->src, src, 16);
        __builtin_memcpy(ends->dst, dst, 16);
    } else {
        map_v4(ends->src, src4);
        map_v4(ends->dst, dst4);
    }
}

/* By the buffer, of which Linux keeps twice as much as is asked for: the clamp alone is forgotten when it measures the size of
 * segments anew. */
static __always_inline long set_window(struct bpf_sock_ops *ctx, __u32 value)
{
    __u32 half = value / 2;
    long failed = bpf_setsockopt(ctx, SOL_SOCKET, SO_RCVBUF, &half, sizeof(half));
    return failed ? failed : bpf_setsockopt(ctx, IPPROTO_TCP, TCP_WINDOW_CLAMP, &value, sizeof(value));
}

static __always_inline long set(struct bpf_sock_ops *ctx, const struct socket_fault *f)
{
    __u32 value = f->value;
    char name[16];
    switch (f->action) {
    case SOCKET_PACE:
        return bpf_setsockopt(ctx, SOL_SOCKET, SO_MAX_PACING_RATE, &value, sizeof(value));
    case SOCKET_CWND:
        return bpf_setsockopt(ctx, IPPROTO_TCP, TCP_BPF_SNDCWND_CLAMP, &value, sizeof(value));
    case SOCKET_WINDOW:
        return set_window(ctx, value);
    case SOCKET_MSS:
        return bpf_setsockopt(ctx, IPPROTO_TCP, TCP_MAXSEG, &value, sizeof(value));
    case SOCKET_SYN_RTO:
        ctx->reply = value;
        return 0;
    case SOCKET_RTO:
        return bpf_setsockopt(ctx, IPPROTO_TCP, TCP_BPF_RTO_MIN, &value, sizeof(value));
    case SOCKET_CONGESTION:
        __builtin_memcpy(name, f->to, sizeof(name));
        return bpf_setsockopt(ctx, IPPROTO_TCP, TCP_CONGESTION, name, sizeof(name));
    default:
        return -1;
    }
}

/* Of the events of a connection, the one to set it at: the size of segments is agreed upon when it is opened. */
static __always_inline bool is_time(__u32 op, __u32 action)
{
    if (action == SOCKET_MSS)
        return op == BPF_SOCK_OPS_TCP_CONNECT_CB;
    if (action == SOCKET_SYN_RTO)
        return op == BPF_SOCK_OPS_TIMEOUT_INIT;
    return op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB || op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB;
}

static __always_inline bool keep(struct bpf_sock_ops *ctx, const struct socket_fault *f)
{
    /* What both sides have agreed upon stays; the first time-out is over when they have. */
    if (f->action == SOCKET_MSS || f->action == SOCKET_SYN_RTO)
        return true;
    struct bpf_sock *sock = ctx->sk;
    if (!sock)
        return false;
    struct setting *was = bpf_sk_storage_get(&settings, sock, NULL, BPF_SK_STORAGE_GET_F_CREATE);
    if (!was)
        return false;
    was->action = f->action;
    switch (f->action) {
    case SOCKET_PACE:
        return bpf_getsockopt(ctx, SOL_SOCKET, SO_MAX_PACING_RATE, &was->value, sizeof(was->value)) == 0;
    case SOCKET_WINDOW:
        return bpf_getsockopt(ctx, SOL_SOCKET, SO_RCVBUF, &was->value, sizeof(was->value)) == 0;
    case SOCKET_CONGESTION:
        return bpf_getsockopt(ctx, IPPROTO_TCP, TCP_CONGESTION, was->name, sizeof(was->name)) == 0;
    case SOCKET_CWND:
        was->value = CWND_ANY;
        return true;
    case SOCKET_RTO:
        was->value = RTO_MIN_US;
        return true;
    default:
        return false;
    }
}

SEC("sockops")
int pace(struct bpf_sock_ops *ctx)
{
    const struct socket_fault *f = in_force();
    if (!f || !is_time(ctx->op, f->action))
        return NEXT_PROGRAMS;
    struct ends ends = {};
    read_ends(ctx, &ends);
    if (is_chosen(f, &ends) && keep(ctx, f) && set(ctx, f) == 0)
        count_affected();
    return NEXT_PROGRAMS;
}

static __always_inline void give_back(struct sock_common *sock, struct setting *was)
{
    __u32 half = was->value / 2;
    switch (was->action) {
    case SOCKET_PACE:
        bpf_setsockopt(sock, SOL_SOCKET, SO_MAX_PACING_RATE, &was->value, sizeof(was->value));
        break;
    case SOCKET_CWND:
        bpf_setsockopt(sock, IPPROTO_TCP, TCP_BPF_SNDCWND_CLAMP, &was->value, sizeof(was->value));
        break;
    case SOCKET_WINDOW:
        bpf_setsockopt(sock, SOL_SOCKET, SO_RCVBUF, &half, sizeof(half));
        bpf_setsockopt(sock, IPPROTO_TCP, TCP_WINDOW_CLAMP, &was->value, sizeof(was->value));
        break;
    case SOCKET_CONGESTION:
        bpf_setsockopt(sock, IPPROTO_TCP, TCP_CONGESTION, was->name, sizeof(was->name));
        break;
    case SOCKET_RTO:
        /* What Linux has learned below the least, it keeps until the times of segments vary by more. */
        bpf_setsockopt(sock, IPPROTO_TCP, TCP_BPF_RTO_MIN, &was->value, sizeof(was->value));
        break;
    }
}

SEC("iter/tcp")
int unset(struct bpf_iter__tcp *ctx)
{
    struct sock_common *sock = ctx->sk_common;
    if (!sock)
        return 0;
    struct setting *was = bpf_sk_storage_get(&settings, sock, NULL, 0);
    if (!was)
        return 0;
    give_back(sock, was);
    bpf_sk_storage_delete(&settings, sock);
    return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
