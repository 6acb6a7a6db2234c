/* Packets that were dropped: why, and where.
 *
 * Each program is one tracepoint, and none needs a trampoline, which some kernels refuse. Invariant: an event takes no lock,
 * but for a place that is new. Next: probe.h; user space in src/metrics/drop.rs. */
#include "probe.h"

#define REASONS 256
#define UDP_ERRORS 128
#define PROTOCOLS 256

PER_CPU(reasons, REASONS, __u64);
PER_CPU(udp_failures, UDP_ERRORS, __u64);
PER_CPU(full_sockets, PROTOCOLS, __u64);
BY_OWNER(sites, struct drop_site, __u64);

PROBE(kfree_skb)
{
    const struct sk_buff *skb = (void *)ctx[0];
    struct drop_site site = { .address = ctx[1], .reason = ctx[2] };
    site.protocol = bpf_ntohs(skb->protocol);
    /* The high half says whose reasons they are; those that are not the core's are counted as one. */
    count(&reasons, site.reason, REASONS);
    __u64 *counter, none = 0;
    counter = entry(&sites, &site, &none);
    if (counter)
        ++*counter;
    return 0;
}

/* A datagram had its socket, and did not get into it; the result is a negated errno. */
PROBE(udp_fail_queue_rcv_skb)
{
    count(&udp_failures, -(int)ctx[0], UDP_ERRORS);
    return 0;
}

PROBE(sock_rcvqueue_full)
{
    const struct sock *sk = (void *)ctx[0];
    count(&full_sockets, sk->sk_protocol, PROTOCOLS);
    return 0;
}
