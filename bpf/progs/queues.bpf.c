/* Waiting: of packets for their device, and of the network's soft interrupts for a processor.
 *
 * An ordinary segment meets all of these, so that each does little. Invariant: an event takes no lock. Next: probe.h; user
 * space in src/metrics/queue.rs. */
#include "probe.h"

/* Packets between a queue and their device that find a place each; a power of two. */
#define PLACES 4096
#define SOFTIRQS 16

enum { NET_TX_SOFTIRQ = 2, NET_RX_SOFTIRQ = 3 };

PER_CPU(queues, 1, struct queue_totals);
PER_CPU(softirqs, SOFTIRQS, __u64);
WAITING(queued, PLACES);

PROBE(net_dev_queue)
{
    const struct sk_buff *skb = (void *)ctx[0];
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
    struct queue_totals *q = only(&queues);
    struct waiting *w = bpf_map_lookup_elem(&queued, &place);
    if (!q || !w)
        return 0;
    q->packets++;
    q->bytes += skb->len;
    if (w->key != key) {
        q->unpaired++;
        return 0;
    }
    __u64 wait = bpf_ktime_get_ns() - w->at_ns;
    w->key = 0;
    record(&q->qdisc_ns, wait, bits(wait));
    return 0;
}

PROBE(softirq_raise)
{
    __u32 vec = ctx[0];
    if ((vec != NET_TX_SOFTIRQ && vec != NET_RX_SOFTIRQ) || !is_sampled())
        return 0;
    /* Those that raise it again before it is entered do not count. */
    __u64 *raised = bpf_map_lookup_elem(&softirqs, &vec);
    if (raised && !*raised)
        *raised = bpf_ktime_get_ns();
    return 0;
}

PROBE(softirq_entry)
{
    __u32 vec = ctx[0];
    if (vec != NET_TX_SOFTIRQ && vec != NET_RX_SOFTIRQ)
        return 0;
    __u64 *raised = bpf_map_lookup_elem(&softirqs, &vec);
    struct queue_totals *q = only(&queues);
    if (!raised || !q || !*raised)
        return 0;
    __u64 wait = bpf_ktime_get_ns() - *raised;
    *raised = 0;
    record(vec == NET_TX_SOFTIRQ ? &q->softirq_tx_ns : &q->softirq_rx_ns, wait, bits(wait));
    return 0;
}

PROBE(napi_poll)
{
    int work = ctx[1], budget = ctx[2];
    struct queue_totals *q = only(&queues);
    if (!q)
        return 0;
    q->napi_polls++;
    q->napi_packets += work;
    q->napi_full += budget > 0 && work >= budget;
    return 0;
}
