/* TCP connections: round-trip times, what was sent again, resets, and who they belonged to.
 *
 * Each program is one tracepoint, and none needs a trampoline, which some kernels refuse. Connections are kept in a table of
 * sets: the cookie of a socket says which, and a segment looks at the few of its set. A hash map that knows which was used
 * last, and the call that asks for a cookie, cost a segment 60 ns more. Invariant: but for owners that are new, an event takes no lock: flows are written under
 * the lock of their socket, all else by processor. Next: probe.h; user space in src/metrics/flow.rs. */
#include "probe.h"

/* Powers of two; times WAYS, so many connections are kept. */
#define SETS 1024
#define LISTENERS 1024
#define RESET_REASONS 64

enum { TCP_ESTABLISHED = 1, TCP_SYN_SENT = 2, TCP_FIN_WAIT1 = 4, TCP_CLOSE = 7, TCP_LAST_ACK = 9, TCP_LISTEN = 10 };

PER_CPU(tcp, 1, struct tcp_totals);
PER_CPU(resets_sent, RESET_REASONS, __u64);
BY_OWNER(processes, __u32, struct tcp_owner);
BY_OWNER(cgroups, __u64, struct tcp_owner);

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, SETS);
    __type(key, __u32);
    __type(value, struct flow_set);
} flows SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, LISTENERS);
    __type(key, struct listener);
    __type(value, struct listening);
} listeners SEC(".maps");

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
    flow->pid = current_pid();
    bpf_get_current_comm(flow->comm, sizeof(flow->comm));
}

/* Serial numbers, in blocks by processor: read where the socket has one, since a call costs more. */
static __always_inline __u64 cookie_of(struct sock *sk)
{
    __u64 cookie = sk->__sk_common.skc_cookie.counter;
    return cookie ? cookie : bpf_get_socket_cookie(sk);
}

static __always_inline struct flow_set *set_of(__u64 cookie)
{
    __u32 index = (cookie ^ cookie >> 12) & (SETS - 1);
    return bpf_map_lookup_elem(&flows, &index);
}

static __always_inline struct flow *find_flow(struct flow_set *set, __u64 cookie)
{
#pragma unroll
    for (int way = 0; way < WAYS; way++)
        if (set->cookies[way] == cookie)
            return &set->flows[way];
    return NULL;
}

static __always_inline struct flow *flow_of(struct sock *sk)
{
    __u64 cookie = cookie_of(sk);
    struct flow_set *set = set_of(cookie);
    return set ? find_flow(set, cookie) : NULL;
}

/* Which one makes room: one that is none, then the oldest that has ended, then the one with the fewest segments. */
static __always_inline __u32 least_of(const struct flow_set *set)
{
    __u32 victim = 0;
    __u64 least = ~0ULL;
#pragma unroll
    for (int way = 0; way < WAYS; way++) {
        const struct flow *flow = &set->flows[way];
        __u64 weight = flow->is_closed ? flow->begin_ns : flow->segments | 1ULL << 63;
        weight = set->cookies[way] ? weight : 0;
        if (weight < least) {
            least = weight;
            victim = way;
        }
    }
    return victim;
}

static __noinline struct flow *add_flow(struct sock *sk, bool is_own)
{
    __u64 cookie = cookie_of(sk);
    struct flow_set *set = set_of(cookie);
    if (!set)
        return NULL;
    __u32 way = least_of(set) & (WAYS - 1);
    __u64 was = set->cookies[way];
    /* Another processor was first: the next segment tries again. */
    if (__sync_val_compare_and_swap(&set->cookies[way], was, cookie) != was)
        return NULL;
    struct flow *flow = &set->flows[way];
    __builtin_memset(flow, 0, sizeof(*flow));
    flow->begin_ns = bpf_ktime_get_ns();
    flow->netns = sk->__sk_common.skc_net.net->ns.inum;
    if (bpf_core_field_exists(sk->sk_cgrp_data.cgroup))
        flow->cgroup = sk->sk_cgrp_data.cgroup->kn->id;
    read_addresses(sk, flow);
    if (is_own)
        name_owner(flow);
    return flow;
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
    struct tcp_totals *t = only(&tcp);
    struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
    if (!t || !tp)
        return 0;
    t->segments++;
    struct flow *flow = flow_of(sk);
    if (!flow)
        flow = add_flow(sk, false);
    if (!flow)
        return 0;
    flow->segments++;
    update(flow, t, tp);
    return 0;
}

PROBE(tcp_retransmit_skb)
{
    struct tcp_totals *t = only(&tcp);
    struct flow *flow = flow_of((void *)ctx[0]);
    if (t)
        t->retransmits++;
    if (flow)
        flow->retransmits++;
    return 0;
}

PROBE(tcp_retransmit_synack)
{
    struct tcp_totals *t = only(&tcp);
    if (t)
        t->synack_retransmits++;
    return 0;
}

PROBE(tcp_receive_reset)
{
    struct tcp_totals *t = only(&tcp);
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
    owner = entry(&cgroups, &cgroup, &fresh);
    if (owner)
        charge(owner, flow);
    __builtin_memcpy(fresh.comm, flow->comm, COMM_MAX);
    owner = entry(&processes, &pid, &fresh);
    if (owner)
        charge(owner, flow);
    return 0;
}

static __always_inline void closed(struct sock *sk, struct tcp_totals *t, int from)
{
    struct flow *flow = flow_of(sk);
    struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
    bool has_failed = from == TCP_SYN_SENT;
    if (has_failed)
        t->failed++;
    else if (flow)
        t->closed++;
    if (!flow || flow->is_closed)
        return;
    flow->is_closed = 1;
    if (has_failed)
        return;
    if (tp)
        update(flow, t, tp);
    __u64 lifetime = (bpf_ktime_get_ns() - flow->begin_ns) / 1000;
    record(&t->lifetime_us, lifetime, bits(lifetime));
    t->bytes_sent += flow->bytes_sent;
    t->bytes_received += flow->bytes_received;
    end_flow(flow);
}

static __always_inline void listens(const struct sock *sk)
{
    struct listener key = { .netns = sk->__sk_common.skc_net.net->ns.inum, .port = sk->__sk_common.skc_num };
    struct listening value = { .pid = current_pid() };
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
    struct tcp_totals *t = only(&tcp);
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
            flow = add_flow(sk, false);
        if (from == TCP_SYN_SENT) {
            t->opened++;
        } else {
            t->accepted++;
            accepted(sk, flow);
        }
    } else if (to == TCP_SYN_SENT) {
        add_flow(sk, true);
    } else if (flow && (to == TCP_FIN_WAIT1 || to == TCP_LAST_ACK)) {
        name_owner(flow);
    }
    return 0;
}
