/* What the network stack says of itself: TCP connections, drops and queues.
 *
 * Each program is one tracepoint, and none needs a trampoline, which some kernels refuse. User space loads only those of the
 * groups that were asked for. Invariants: every map is bounded; but for new entries an event takes no lock: flows are
 * written under the lock of their socket, all else by processor. Next: probe.h; user space in src/metrics/. */
#include "probe.h"

#define FLOWS 4096
#define OWNERS 1024
#define LISTENERS 1024
#define REASONS 256
#define RESET_REASONS 64
#define SITES 1024
/* Packets between a queue and their device that find a place each; a power of two. */
#define PLACES 4096
#define SOFTIRQS 16
#define UDP_ERRORS 128

enum { TCP_ESTABLISHED = 1, TCP_SYN_SENT = 2, TCP_SYN_RECV = 3, TCP_FIN_WAIT1 = 4, TCP_CLOSE = 7, TCP_LAST_ACK = 9, TCP_LISTEN = 10 };
enum { NET_TX_SOFTIRQ = 2, NET_RX_SOFTIRQ = 3 };

#define PER_CPU(name, entries, type_of_value)     \
    struct {                                      \
        __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);  \
        __uint(max_entries, entries);             \
        __type(key, __u32);                       \
        __type(value, type_of_value);             \
    } name SEC(".maps")

PER_CPU(tcp, 1, struct tcp_totals);
PER_CPU(queues, 1, struct queue_totals);
PER_CPU(reasons, REASONS, __u64);
PER_CPU(resets_sent, RESET_REASONS, __u64);
PER_CPU(udp_failures, UDP_ERRORS, __u64);
PER_CPU(full_sockets, REASONS, __u64);
PER_CPU(softirqs, SOFTIRQS, __u64);

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, FLOWS);
    __type(key, __u64);
    __type(value, struct flow);
} flows SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, LISTENERS);
    __type(key, struct listener);
    __type(value, struct listening);
} listeners SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
    __uint(max_entries, OWNERS);
    __type(key, __u32);
    __type(value, struct tcp_owner);
} processes SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
    __uint(max_entries, OWNERS);
    __type(key, __u64);
    __type(value, struct tcp_owner);
} cgroups SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
    __uint(max_entries, SITES);
    __type(key, struct drop_site);
    __type(value, __u64);
} sites SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, PLACES);
    __type(key, __u32);
    __type(value, struct waiting);
} queued SEC(".maps");

static __always_inline struct tcp_totals *tcp_total(void)
{
    __u32 zero = 0;
    return bpf_map_lookup_elem(&tcp, &zero);
}

static __always_inline void count(void *map, __u32 index, __u32 entries)
{
    index = index < entries ? index : entries - 1;
    __u64 *counter = bpf_map_lookup_elem(map, &index);
    if (counter)
        ++*counter;
}

/* --- TCP --- */

static __always_inline void read_addresses(const struct sock *sk, struct flow *flow)
{
    flow->family = sk->__sk_common.skc_family;
    flow->local_port = sk->__sk_common.skc_num;
    flow->remote_port = bpf_ntohs(sk->__sk_common.skc_dport);
    if (flow->family == AF_INET) {
        __be32 local = sk->__sk_common.skc_rcv_saddr, remote = sk->__sk_common.skc_daddr;
        flow->local[10] = flow->local[11] = flow->remote[10] = flow->remote[11] = 0xff;
        __builtin_memcpy(flow->local + 12, &local, 4);
        __builtin_memcpy(flow->remote + 12, &remote, 4);
        return;
    }
    bpf_probe_read_kernel(flow->local, 16, &sk->__sk_common.skc_v6_rcv_saddr);
    bpf_probe_read_kernel(flow->remote, 16, &sk->__sk_common.skc_v6_daddr);
}

static __always_inline void name_owner(struct flow *flow)
{
    flow->pid = bpf_get_current_pid_tgid() >> 32;
    bpf_get_current_comm(flow->comm, sizeof(flow->comm));
}

static __always_inline struct flow *add_flow(const struct sock *sk, __u64 cookie, bool is_own)
{
    struct flow fresh = {};
    fresh.begin_ns = bpf_ktime_get_ns();
    fresh.netns = sk->__sk_common.skc_net.net->ns.inum;
    if (bpf_core_field_exists(sk->sk_cgrp_data.cgroup))
        fresh.cgroup = sk->sk_cgrp_data.cgroup->kn->id;
    read_addresses(sk, &fresh);
    if (is_own)
        name_owner(&fresh);
    bpf_map_update_elem(&flows, &cookie, &fresh, BPF_ANY);
    return bpf_map_lookup_elem(&flows, &cookie);
}

/* Takes what is new of the socket's own figures. */
static __always_inline void update(struct flow *flow, struct tcp_totals *t, struct tcp_sock *tp)
{
    __u64 stamp = tp->rack.mstamp;
    flow->bytes_sent = tp->bytes_acked;
    flow->bytes_received = tp->bytes_received;
    if (stamp == flow->rtt_stamp)
        return;
    __u32 rtt = tp->rack.rtt_us, bucket = bits(rtt);
    flow->rtt_stamp = stamp;
    flow->srtt_us = tp->srtt_us >> 3;
    flow->rtt_min_us = tp->rtt_min.s[0].v;
    flow->rtt_sum_us += rtt;
    flow->rtt_us[bucket < FLOW_BUCKETS - 1 ? bucket : FLOW_BUCKETS - 1]++;
    record(&t->rtt_us, rtt, bucket);
}

/* A segment was received on an established connection. */
PROBE(tcp_probe)
{
    struct sock *sk = (void *)ctx[0];
    if (!is_sampled())
        return 0;
    struct tcp_totals *t = tcp_total();
    struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
    if (!t || !tp)
        return 0;
    t->segments++;
    __u64 cookie = bpf_get_socket_cookie(sk);
    struct flow *flow = bpf_map_lookup_elem(&flows, &cookie);
    if (!flow)
        flow = add_flow(sk, cookie, false);
    if (!flow)
        return 0;
    flow->segments++;
    update(flow, t, tp);
    return 0;
}

static __always_inline struct flow *flow_of(struct sock *sk)
{
    __u64 cookie = bpf_get_socket_cookie(sk);
    return bpf_map_lookup_elem(&flows, &cookie);
}

PROBE(tcp_retransmit_skb)
{
    struct tcp_totals *t = tcp_total();
    struct flow *flow = flow_of((void *)ctx[0]);
    if (t)
        t->retransmits++;
    if (flow)
        flow->retransmits++;
    return 0;
}

PROBE(tcp_retransmit_synack)
{
    struct tcp_totals *t = tcp_total();
    if (t)
        t->synack_retransmits++;
    return 0;
}

PROBE(tcp_receive_reset)
{
    struct tcp_totals *t = tcp_total();
    struct flow *flow = flow_of((void *)ctx[0]);
    if (t)
        t->resets_received++;
    if (flow)
        flow->resets++;
    return 0;
}

/* Of kernels that say why a reset is sent, from 6.10 on. */
enum sk_rst_reason { RST_UNUSED };

PROBE(tcp_send_reset)
{
    __u32 reason = 0;
    if (bpf_core_type_exists(enum sk_rst_reason))
        reason = ctx[2];
    count(&resets_sent, reason, RESET_REASONS);
    return 0;
}

static __always_inline void charge(struct tcp_owner *owner, const struct flow *flow)
{
    owner->connections++;
    owner->bytes_sent += flow->bytes_sent;
    owner->bytes_received += flow->bytes_received;
    owner->retransmits += flow->retransmits;
}

static __noinline int end_flow(struct flow *flow)
{
    struct tcp_owner fresh = {}, *owner;
    if (!flow)
        return 0;
    __u32 pid = flow->pid;
    __u64 cgroup = flow->cgroup;
    owner = bpf_map_lookup_elem(&cgroups, &cgroup);
    if (!owner) {
        bpf_map_update_elem(&cgroups, &cgroup, &fresh, BPF_NOEXIST);
        owner = bpf_map_lookup_elem(&cgroups, &cgroup);
    }
    if (owner)
        charge(owner, flow);
    owner = bpf_map_lookup_elem(&processes, &pid);
    if (!owner) {
        __builtin_memcpy(fresh.comm, flow->comm, COMM_MAX);
        bpf_map_update_elem(&processes, &pid, &fresh, BPF_NOEXIST);
        owner = bpf_map_lookup_elem(&processes, &pid);
    }
    if (owner)
        charge(owner, flow);
    return 0;
}

static __always_inline void closed(struct sock *sk, struct tcp_totals *t, int from)
{
    struct flow *flow = flow_of(sk);
    struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
    if (from == TCP_SYN_SENT)
        t->failed++;
    else if (flow)
        t->closed++;
    if (!flow || flow->is_closed)
        return;
    if (tp)
        update(flow, t, tp);
    __u64 lifetime = (bpf_ktime_get_ns() - flow->begin_ns) / 1000;
    record(&t->lifetime_us, lifetime, bits(lifetime));
    t->bytes_sent += flow->bytes_sent;
    t->bytes_received += flow->bytes_received;
    flow->is_closed = 1;
    end_flow(flow);
}

static __always_inline void listens(const struct sock *sk)
{
    struct listener key = { .netns = sk->__sk_common.skc_net.net->ns.inum, .port = sk->__sk_common.skc_num };
    struct listening value = { .pid = bpf_get_current_pid_tgid() >> 32 };
    bpf_get_current_comm(value.comm, sizeof(value.comm));
    bpf_map_update_elem(&listeners, &key, &value, BPF_ANY);
}

/* Until it closes the connection itself, the process that listens is taken for the owner. */
static __always_inline void accepted(const struct sock *sk, struct flow *flow)
{
    struct listener key = { .netns = sk->__sk_common.skc_net.net->ns.inum, .port = sk->__sk_common.skc_num };
    struct listening *found = bpf_map_lookup_elem(&listeners, &key);
    if (!found || !flow)
        return;
    flow->pid = found->pid;
    __builtin_memcpy(flow->comm, found->comm, COMM_MAX);
}

/* States that a process brings about itself, by connect, listen and close: then the running process is the owner. */
PROBE(inet_sock_set_state)
{
    struct sock *sk = (void *)ctx[0];
    int from = ctx[1], to = ctx[2];
    struct tcp_totals *t = tcp_total();
    if (!t || sk->sk_protocol != IPPROTO_TCP)
        return 0;
    if (to == TCP_CLOSE) {
        closed(sk, t, from);
        return 0;
    }
    if (to == TCP_LISTEN) {
        listens(sk);
        return 0;
    }
    struct flow *flow = flow_of(sk);
    if (to == TCP_ESTABLISHED) {
        /* The addresses of a connection to be were not all known yet. */
        if (flow)
            read_addresses(sk, flow);
        else
            flow = add_flow(sk, bpf_get_socket_cookie(sk), false);
        if (from == TCP_SYN_SENT) {
            t->opened++;
        } else {
            t->accepted++;
            accepted(sk, flow);
        }
    } else if (to == TCP_SYN_SENT) {
        add_flow(sk, bpf_get_socket_cookie(sk), true);
    } else if (flow && (to == TCP_FIN_WAIT1 || to == TCP_LAST_ACK)) {
        name_owner(flow);
    }
    return 0;
}

/* --- Drops --- */

PROBE(kfree_skb)
{
    const struct sk_buff *skb = (void *)ctx[0];
    struct drop_site site = { .address = ctx[1], .reason = ctx[2] };
    site.protocol = bpf_ntohs(skb->protocol);
    /* The high half says whose reasons they are; those that are not the core's are counted as one. */
    count(&reasons, site.reason, REASONS);
    __u64 *counter = bpf_map_lookup_elem(&sites, &site), one = 1;
    if (counter)
        ++*counter;
    else
        bpf_map_update_elem(&sites, &site, &one, BPF_ANY);
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
    count(&full_sockets, sk->sk_protocol, REASONS);
    return 0;
}

/* --- Queues --- */

PROBE(net_dev_queue)
{
    const struct sk_buff *skb = (void *)ctx[0];
    __u32 key = low_half(skb);
    __u32 place = place_of(key, PLACES);
    struct waiting *w = bpf_map_lookup_elem(&queued, &place);
    if (!w)
        return 0;
    if (!is_sampled()) {
        if (w->key == key)
            w->key = 0;
        return 0;
    }
    w->at_ns = bpf_ktime_get_ns();
    w->key = key;
    return 0;
}

PROBE(net_dev_start_xmit)
{
    const struct sk_buff *skb = (void *)ctx[0];
    __u32 key = low_half(skb);
    __u32 zero = 0, place = place_of(key, PLACES);
    struct queue_totals *q = bpf_map_lookup_elem(&queues, &zero);
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
    __u32 vec = ctx[0], zero = 0;
    if (vec != NET_TX_SOFTIRQ && vec != NET_RX_SOFTIRQ)
        return 0;
    __u64 *raised = bpf_map_lookup_elem(&softirqs, &vec);
    struct queue_totals *q = bpf_map_lookup_elem(&queues, &zero);
    if (!raised || !q || !*raised)
        return 0;
    __u64 wait = bpf_ktime_get_ns() - *raised;
    *raised = 0;
    record(vec == NET_TX_SOFTIRQ ? &q->softirq_tx_ns : &q->softirq_rx_ns, wait, bits(wait));
    return 0;
}

PROBE(napi_poll)
{
    __u32 zero = 0;
    int work = ctx[1], budget = ctx[2];
    struct queue_totals *q = bpf_map_lookup_elem(&queues, &zero);
    if (!q)
        return 0;
    q->napi_polls++;
    q->napi_packets += work;
    q->napi_full += budget > 0 && work >= budget;
    return 0;
}
