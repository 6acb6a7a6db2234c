/* Latency and trouble of io_uring operations, by opcode and by process.
 *
 * A request is met at its submission and at its completion, and paired by its address in a table without locks: a hash map
 * costs twice as much. Invariants: every map is bounded; what cannot be paired is counted as such.
 * Next: probe.h; user space in src/metrics/uring.rs. */
#include "probe.h"

/* Requests in flight on the whole host that find a place each; a power of two. */
#define PLACES 8192
#define OPCODES 64
#define OWNERS 1024

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, PLACES);
    __type(key, __u32);
    __type(value, struct waiting);
} requests SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, OPCODES);
    __type(key, __u32);
    __type(value, struct uring_op);
} ops SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct uring_totals);
} totals SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
    __uint(max_entries, OWNERS);
    __type(key, __u32);
    __type(value, struct uring_owner);
} owners SEC(".maps");

static __always_inline __u32 current_pid(void)
{
    return bpf_get_current_pid_tgid() >> 32;
}

static __always_inline struct uring_totals *total(void)
{
    __u32 zero = 0;
    return bpf_map_lookup_elem(&totals, &zero);
}

static __noinline void add_owner(__u32 pid)
{
    struct uring_owner fresh = {};
    bpf_get_current_comm(fresh.comm, sizeof(fresh.comm));
    bpf_map_update_elem(&owners, &pid, &fresh, BPF_NOEXIST);
}

static __always_inline struct uring_owner *owner(__u32 pid)
{
    struct uring_owner *found = bpf_map_lookup_elem(&owners, &pid);
    if (found)
        return found;
    add_owner(pid);
    return bpf_map_lookup_elem(&owners, &pid);
}

PROBE(io_uring_submit_req)
{
    const struct io_kiocb *request = (void *)ctx[0];
    __u32 opcode = request->opcode;
    struct uring_op *op = bpf_map_lookup_elem(&ops, &opcode);
    if (!op)
        return 0;
    op->submitted++;
    __u32 key = low_half(request);
    __u32 place = place_of(key, PLACES);
    struct waiting *w = bpf_map_lookup_elem(&requests, &place);
    if (!w)
        return 0;
    if (!is_sampled()) {
        /* An earlier one at this address must not be taken for it. */
        if (w->key == key)
            w->key = 0;
        return 0;
    }
    w->owner = current_pid();
    w->kind = opcode;
    w->at_ns = bpf_ktime_get_ns();
    w->key = key;
    return 0;
}

PROBE(io_uring_complete)
{
    void *request = (void *)ctx[1];
    struct uring_totals *t = total();
    if (!t)
        return 0;
    t->completed++;
    __u32 key = low_half(request);
    __u32 place = place_of(key, PLACES);
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
    struct uring_totals *t = total();
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
    struct uring_totals *t = total();
    struct uring_owner *o = owner(current_pid());
    if (t)
        t->link_fails++;
    if (o)
        o->link_fails++;
    return 0;
}
