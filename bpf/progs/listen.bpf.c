/* Sockets that listen in a network namespace: how long their queues are, and what they dropped.
 *
 * No tracepoint tells of a full accept queue, and the reason that its drops give is none; the socket counts them itself.
 * The iterator meets those that listen first: user space reads no further than the record that says so. Invariant: nothing is
 * changed. Next: probe.h; user space in src/metrics/listen.rs. */
#include "probe.h"

enum { TCP_LISTEN = 10 };

static __always_inline void read_local(const struct sock_common *sock, struct backlog *to)
{
    if (to->family == AF_INET) {
        __be32 local = sock->skc_rcv_saddr;
        to->local[10] = to->local[11] = 0xff;
        __builtin_memcpy(to->local + 12, &local, 4);
        return;
    }
    bpf_probe_read_kernel(to->local, 16, &sock->skc_v6_rcv_saddr);
}

SEC("iter/tcp")
int backlog(struct bpf_iter__tcp *ctx)
{
    struct sock_common *sock = ctx->sk_common;
    struct seq_file *seq = ctx->meta->seq;
    struct backlog now = {};
    if (!sock)
        return 0;
    if (sock->skc_state == TCP_LISTEN) {
        struct tcp_sock *tp = bpf_skc_to_tcp_sock(sock);
        if (!tp)
            return 0;
        now.family = sock->skc_family;
        now.port = sock->skc_num;
        read_local(sock, &now);
        now.accept_queue = tp->inet_conn.icsk_inet.sk.sk_ack_backlog;
        now.accept_limit = tp->inet_conn.icsk_inet.sk.sk_max_ack_backlog;
        now.syn_queue = tp->inet_conn.icsk_accept_queue.qlen.counter;
        now.dropped = tp->inet_conn.icsk_inet.sk.sk_drops.counter;
    } else {
        now.is_end = 1;
    }
    bpf_seq_write(seq, &now, sizeof(now));
    return 0;
}
