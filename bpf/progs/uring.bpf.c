/* Latency and trouble of io_uring operations, by opcode and by process.
 *
 * A request is met at its submission and at its completion, and paired by its address in a table without locks: a hash map
 * costs twice as much. Invariants: every map is bounded; what cannot be paired is counted as such.
 * Next: probe.h; user space in src/metrics/uring.rs. */
#include "probe.h"

/* Requests in flight on the whole host that find a place each; a power of two. */
#define PLACES 8192
#define OPCODES 64

WAITING(requests, PLACES);
PER_CPU(ops, OPCODES, struct uring_op);
PER_CPU(totals, 1, struct uring_totals);
BY_OWNER(owners, __u32, struct uring_owner);

static __noinline struct uring_owner *add_owner(__u32 pid)
{
    struct uring_owner fresh = {};
    bpf_get_current_comm(fresh.comm, sizeof(fresh.comm));
    return entry(&owners, &pid, &fresh);
}

static __always_inline struct uring_owner *owner(__u32 pid)
{
    struct uring_owner *found = bpf_map_lookup_elem(&owners, &pid);
    return found ? found : add_owner(pid);
}

PROBE(io_uring_submit_req)
{
    const struct io_kiocb *request = (void *)ctx[0];
    __u32 opcode = request->opcode;
    struct uring_op *op = bpf_map_lookup_elem(&ops, &opcode);
    if (!op)
        return 0;
    op->submitted++;
    __u32 key = low_half(request), place = place_of(key, PLACES);
    struct waiting *w = bpf_map_lookup_elem(&requests, &place);
    if (w)
        begin_wait(w, key, current_pid(), opcode);
    return 0;
}

PROBE(io_uring_complete)
{
    void *request = (void *)ctx[1];
    struct uring_totals *t = only(&totals);
    if (!t)
        return 0;
    t->completed++;
    __u32 key = low_half(request), place = place_of(key, PLACES);
    struct waiting *w = bpf_map_lookup_elem(&requests, &place);
    if (!w || !request || w->key != key) {
        t->unpaired++;
        return 0;
    }
    __u64 latency = bpf_ktime_get_ns() - w->at_ns;
    __u32 opcode = w->kind, pid = w->owner;
    w->key = 0;
    struct uring_op *op = bpf_map_lookup_elem(&ops, &opcode);
    if (op)
        record(&op->latency_ns, latency, bits(latency));
    struct uring_owner *o = owner(pid);
    if (o) {
        o->measured++;
        o->latency_ns += latency;
    }
    return 0;
}

PROBE(io_uring_cqe_overflow)
{
    struct uring_totals *t = only(&totals);
    struct uring_owner *o = owner(current_pid());
    if (t)
        t->overflows++;
    if (o)
        o->overflows++;
    return 0;
}

PROBE(io_uring_queue_async_work)
{
    const struct io_kiocb *request = (void *)ctx[0];
    __u32 opcode = request->opcode;
    struct uring_op *op = bpf_map_lookup_elem(&ops, &opcode);
    struct uring_owner *o = owner(current_pid());
    if (op)
        op->punted++;
    if (o)
        o->punted++;
    return 0;
}

PROBE(io_uring_fail_link)
{
    struct uring_totals *t = only(&totals);
    struct uring_owner *o = owner(current_pid());
    if (t)
        t->link_fails++;
    if (o)
        o->link_fails++;
    return 0;
}
