/* Which calls a fault means: those of a process, of its children, or of all that have a name, and how many of them.
 * Invariant: process 1 and the one that injects are left alone. Next: crash.bpf.c, lsm.bpf.c. */
#pragma once

#include "kernel.h"
#include "shared.h"

#define ANCESTORS_MAX 16

static __always_inline bool is_below(struct task_struct *task, __u32 tgid)
{
    for (int i = 0; i < ANCESTORS_MAX; i++) {
        task = task->real_parent;
        if (!task || task->tgid <= 1)
            return false;
        if ((__u32)task->tgid == tgid)
            return true;
    }
    return false;
}

static __always_inline bool is_named(struct task_struct *task, const struct call_fault *f)
{
    char comm[COMM_LEN] = {};
    bpf_probe_read_kernel_str(comm, sizeof(comm), task->group_leader->comm);
    for (int i = 0; i < COMM_LEN; i++) {
        if (comm[i] != f->comm[i])
            return false;
        if (!comm[i])
            return true;
    }
    return true;
}

static __always_inline bool is_target(const struct call_fault *f)
{
    struct task_struct *task = bpf_get_current_task_btf();
    __u32 tgid = task->tgid;
    if (tgid <= 1 || tgid == f->spared)
        return false;
    if (f->tgid && tgid != f->tgid && !(f->with_children && is_below(task, f->tgid)))
        return false;
    return !f->has_comm || is_named(task, f);
}

static __always_inline bool chooses(const struct call_fault *f, struct state *s, __u64 now)
{
    const struct share *share = &f->share;
    __u64 number = __sync_fetch_and_add(&s->matched, 1) + 1;
    if (f->nth)
        return number == f->nth;
    switch (share->kind) {
    case SHARE_PACKETS:
        return bpf_get_prandom_u32() % 1000000 < share->ppm;
    case SHARE_EVERY:
        return share->n && number % share->n == 0;
    case SHARE_FIRST:
        return number <= share->n;
    case SHARE_BURST:
        return share->period_ms && (now - f->arm.since_ns) / 1000000 % share->period_ms < share->on_ms;
    default:
        return true;
    }
}
