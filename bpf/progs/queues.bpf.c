/* Waiting: of packets for their device, and of the network's soft interrupts for a processor.
 *
 * An ordinary segment meets all of these, so that each does little. Invariant: an event takes no lock. Next: probe.h; user
 * space in src/metrics/queue.rs. */
#include "probe.h"

/* Packets between a queue and their device that find a place each; a power of two. */
#define PLACES 4096

enum { NET_TX_SOFTIRQ = 2, NET_RX_SOFTIRQ = 3 };

/* User space reads the first part. */
struct queues {
    struct queue_totals totals;
    /* When the soft interrupt was raised, of sending and of receiving, or 0. */
    __u64 tx_raised_ns;
    __u64 rx_raised_ns;
};

PER_CPU(queues, 1, struct queues);
WAITING(queued, PLACES);

/* The tracepoint is there for devices without a queue too, such as lo, veth and bridges: nothing waits for those, and two looks
 * at the clock are most of what a packet costs. */
static __always_inline bool has_queue(const struct sk_buff *skb)
{
    return skb->dev->_tx->qdisc->enqueue;
}

PROBE(net_dev_queue)
{
    const struct sk_buff *skb = (void *)ctx[0];
    if (!has_queue(skb))
        return 0;
    __u32 key = low_half(skb), place = place_of(key, PLACES);
    struct waiting *w = bpf_map_lookup_elem(&queued, &place);
    if (w)
        begin_wait(w, key, 0, 0);
    return 0;
}

PROBE(net_dev_start_xmit)
{
    const struct sk_buff *skb = (void *)ctx[0];
    __u32 key = low_half(skb), place = place_of(key, PLACES);
    struct queues *q = only(&queues);
    struct waiting *w = bpf_map_lookup_elem(&queued, &place);
    if (!q || !w)
        return 0;
    q->totals.packets++;
    q->totals.bytes += skb->len;
    if (w->key != key) {
        q->totals.unpaired++;
        return 0;
    }
    __u64 wait = bpf_ktime_get_ns() - w->at_ns;
    w->key = 0;
    record(&q->totals.qdisc_ns, wait, bits(wait));
    return 0;
}

PROBE(softirq_raise)
{
    __u32 vec = ctx[0];
    if ((vec != NET_TX_SOFTIRQ && vec != NET_RX_SOFTIRQ) || !is_sampled())
        return 0;
    struct queues *q = only(&queues);
    if (!q)
        return 0;
    __u64 *raised = vec == NET_TX_SOFTIRQ ? &q->tx_raised_ns : &q->rx_raised_ns;
    /* Those that raise it again before it is entered do not count. */
    if (!*raised)
        *raised = bpf_ktime_get_ns();
    return 0;
}

PROBE(softirq_entry)
{
    __u32 vec = ctx[0];
    if (vec != NET_TX_SOFTIRQ && vec != NET_RX_SOFTIRQ)
        return 0;
    struct queues *q = only(&queues);
    if (!q)
        return 0;
    __u64 *raised = vec == NET_TX_SOFTIRQ ? &q->tx_raised_ns : &q->rx_raised_ns;
    if (!*raised)
        return 0;
    __u64 wait = bpf_ktime_get_ns() - *raised;
    *raised = 0;
    record(vec == NET_TX_SOFTIRQ ? &q->totals.softirq_tx_ns : &q->totals.softirq_rx_ns, wait, bits(wait));
    return 0;
}

PROBE(napi_poll)
{
    int work = ctx[1], budget = ctx[2];
    struct queues *q = only(&queues);
    if (!q)
        return 0;
    q->totals.napi_polls++;
    q->totals.napi_packets += work;
    q->totals.napi_full += budget > 0 && work >= budget;
    return 0;
}
