/* Connections of a network namespace that are there already, met one after the other by an iterator, and ended.
 *
 * Needs Linux 6.5 for bpf_sock_destroy. Invariants: only connections that carry data either way are met, no listeners and none
 * that are being closed by both sides. Next: sock.h; user space in src/faults/kill.rs. */
#include "sock.h"

/* Optional: kernels before 6.5 load this, and are told that they cannot. */
int bpf_sock_destroy(struct sock_common *sock) __ksym __weak;

static __always_inline void copy_v6(__u8 *to, const struct in6_addr *from)
{
    __u32 words[4] = { from->in6_u.u6_addr32[0], from->in6_u.u6_addr32[1], from->in6_u.u6_addr32[2],
                       from->in6_u.u6_addr32[3] };
    __builtin_memcpy(to, words, 16);
}

SEC("iter/tcp")
int socket(struct bpf_iter__tcp *ctx)
{
    struct sock_common *sock = ctx->sk_common;
    const struct socket_fault *f = in_force();
    if (!sock || !f)
        return 0;
    if (sock->skc_state != TCP_ESTABLISHED && sock->skc_state != TCP_CLOSE_WAIT)
        return 0;
    struct ends ends = { .protocol = IPPROTO_TCP };
    ends.family = sock->skc_family;
    ends.sport = sock->skc_num;
    ends.dport = bpf_ntohs(sock->skc_dport);
    if (ends.family == AF_INET6) {
        copy_v6(ends.src, &sock->skc_v6_rcv_saddr);
        copy_v6(ends.dst, &sock->skc_v6_daddr);
    } else {
        map_v4(ends.src, sock->skc_rcv_saddr);
        map_v4(ends.dst, sock->skc_daddr);
    }
    if (is_chosen(f, &ends) && bpf_sock_destroy && bpf_sock_destroy(sock) == 0)
        count_affected();
    return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
