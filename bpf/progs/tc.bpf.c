/* Faults of packets on a device, in either direction: one program, which `fault` tells what to do.
 *
 * Attached by tcx, or as a clsact filter on kernels before 6.6. Invariants: unarmed, it looks at one map entry and no packet;
 * past its deadline it is unarmed, whoever still lives; packets that it sent itself carry its mark and are left alone.
 * Next: shared.h, match.h; user space in src/faults/packet.rs. */
#include "maps.h"
#include "match.h"

FAULT_MAPS(struct fault);

#define SEGMENTS_MAX 64

/* A packet of many segments is lost when one of them is: there is no dropping a part of it. */
static __always_inline bool any_segment_by_chance(struct __sk_buff *skb, __u32 ppm)
{
    __u32 segments = skb->gso_segs;
    if (by_chance(ppm))
        return true;
    for (__u32 i = 1; i < SEGMENTS_MAX; i++) {
        if (i >= segments)
            break;
        if (by_chance(ppm))
            return true;
    }
    return false;
}

static __always_inline bool by_gilbert(const struct share *share, struct state *s)
{
    if (s->is_bad) {
        if (by_chance(share->to_good_ppm))
            s->is_bad = 0;
    } else if (by_chance(share->to_bad_ppm)) {
        s->is_bad = 1;
    }
    return by_chance(s->is_bad ? share->bad_ppm : share->ppm);
}

static __always_inline bool chooses(struct __sk_buff *skb, const struct fault *f, struct state *s,
                                    const struct packet *packet, __u64 now)
{
    const struct share *share = &f->share;
    switch (share->kind) {
    case SHARE_PACKETS:
        return any_segment_by_chance(skb, share->ppm);
    case SHARE_FLOWS:
        return flow_hash(packet, share->seed) % 1000000 < share->ppm;
    case SHARE_EVERY:
        return share->n && (__sync_fetch_and_add(&s->matched, 1) + 1) % share->n == 0;
    case SHARE_FIRST:
        return __sync_fetch_and_add(&s->matched, 1) < share->n;
    case SHARE_BURST:
        return share->period_ms && (now - f->arm.since_ns) / 1000000 % share->period_ms < share->on_ms;
    case SHARE_GILBERT:
        return by_gilbert(share, s);
    default:
        return true;
    }
}

#include "rewrite.h"

/* Earliest departure: behind the time that TCP has paced it to, if that is later than now. */
static __always_inline bool leave_later(struct __sk_buff *skb, __u32 us)
{
    __u64 now = bpf_ktime_get_ns();
    __u64 from = skb->tstamp > now ? skb->tstamp : now;
    return bpf_skb_set_tstamp(skb, from + (__u64)us * 1000, BPF_SKB_TSTAMP_DELIVERY_MONO) == 0;
}

/* Does it; whether it could. The verdict is left in `verdict`. */
static __always_inline bool act(struct __sk_buff *skb, const struct fault *f, struct packet *packet, int *verdict)
{
    switch (f->action) {
    case ACTION_DROP:
        *verdict = TC_ACT_SHOT;
        return true;
    case ACTION_DUPLICATE:
        return duplicate(skb, f);
    case ACTION_CORRUPT:
        return corrupt(skb, packet, f->value);
    case ACTION_REDIRECT:
        skb->mark = OWN_MARK;
        *verdict = bpf_redirect(f->value, 0);
        return true;
    case ACTION_TTL:
        return set_ttl(skb, packet, f->value);
    case ACTION_ECN_CE:
        return bpf_skb_ecn_set_ce(skb) == 1;
    case ACTION_TRUNCATE:
        return skb->len > f->l2_len + f->value && bpf_skb_change_tail(skb, f->l2_len + f->value, 0) == 0;
    case ACTION_RESET:
        return reset(skb, f, packet, verdict);
    case ACTION_DNS:
        return answer_dns(skb, f, packet, verdict);
    case ACTION_COPY:
        return copy_to(skb, f->value, 0);
    case ACTION_CLASS:
        skb->priority = f->value;
        return true;
    case ACTION_LATER:
        return leave_later(skb, f->value);
    default:
        return false;
    }
}

static __always_inline int meet(struct __sk_buff *skb, const struct fault *f, __u64 now)
{
    __u32 zero = 0;
    struct packet packet;
    int verdict = TC_ACT_UNSPEC;
    struct counts *c = bpf_map_lookup_elem(&counts, &zero);
    struct state *s = bpf_map_lookup_elem(&state, &zero);
    if (!c || !s)
        return verdict;
    c->seen++;
    if (!read_packet(skb, f->l2_len, &packet) || !matches(skb, &f->selector, f->l2_len, &packet))
        return verdict;
    c->matched++;
    if (!chooses(skb, f, s, &packet, now))
        return verdict;
    c->chosen++;
    if (f->arm.mode != MODE_ARMED)
        return verdict;
    if (f->arm.max_hits && __sync_fetch_and_add(&s->hits, 1) >= f->arm.max_hits)
        return verdict;
    if (act(skb, f, &packet, &verdict))
        c->affected++;
    return verdict;
}

SEC("tc")
int packet(struct __sk_buff *skb)
{
    __u32 zero = 0;
    const struct fault *f = bpf_map_lookup_elem(&fault, &zero);
    if (!f || f->arm.mode == MODE_OFF || skb->mark == OWN_MARK)
        return TC_ACT_UNSPEC;
    __u64 now = bpf_ktime_get_ns();
    if (now >= f->arm.deadline_ns)
        return TC_ACT_UNSPEC;
    return meet(skb, f, now);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
