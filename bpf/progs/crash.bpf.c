/* Crash points and stalls: a process is killed at exactly the n-th of its calls, or kept busy at some.
 *
 * At the entry of a system call, and when io_uring takes a request up, before it is issued. What a signal at entry means:
 * the kernel still runs the call with the signal pending. Calls that look for it do nothing (write and its kin, whatever
 * waits); others (rename, openat, unlink, a send that need not wait) are carried out though the caller never learns of it.
 * Whoever wants the n-th done for certain asks for the exit. Invariants: unarmed, or past the deadline, nothing happens;
 * process 1 and the one that injects are left alone. Next: shared.h; user space in src/faults/crash.rs. */
#include "call.h"
#include "maps.h"

/* `is_bad` of the state is the thread whose call is to be its last, when that waits for the exit. */
FAULT_MAPS(struct call_fault);

struct stall {
    __u64 until_ns;
};

/* Of 5 ms, at a few nanoseconds each. */
#define STALL_LOOPS_MAX (1 << 20)

static long is_over(__u32 index, void *context)
{
    const struct stall *stall = context;
    return bpf_ktime_get_ns() >= stall->until_ns;
}

static __always_inline bool wait_until(__u64 until_ns)
{
    struct stall stall = { .until_ns = until_ns };
    return bpf_loop(STALL_LOOPS_MAX, is_over, &stall, 0) > 0;
}

/* Whether the process is being killed, and no thread of it but this one is left. */
static long is_alone(__u32 index, void *context)
{
    const struct stall *stall = context;
    struct signal_struct *signal = bpf_get_current_task_btf()->signal;
    if ((signal->flags & SIGNAL_GROUP_EXIT) && signal->live.counter <= 1)
        return 1;
    return bpf_ktime_get_ns() >= stall->until_ns;
}

#define ALONE_NS 5000000

/* The signal is sent by an interrupt, as tracepoints cannot be preempted, and may come late; other threads, and io_uring's
 * workers above all, would do the call meanwhile. So they are waited for: with them gone, nobody does. */
static __always_inline bool kill(__u32 signal)
{
    struct stall stall = { .until_ns = bpf_ktime_get_ns() + ALONE_NS };
    bool is_sent = bpf_send_signal(signal) == 0;
    bpf_loop(STALL_LOOPS_MAX, is_alone, &stall, 0);
    return is_sent;
}

static __always_inline bool act(const struct call_fault *f, struct state *s, __u64 now)
{
    if (f->stall_us)
        return wait_until(now + (__u64)f->stall_us * 1000);
    if (f->at_exit) {
        s->is_bad = bpf_get_current_pid_tgid();
        return true;
    }
    return kill(f->signal);
}

static __always_inline int meet(const struct call_fault *f, __u32 number)
{
    __u32 zero = 0;
    if (number != f->number)
        return 0;
    __u64 now = bpf_ktime_get_ns();
    struct counts *c = bpf_map_lookup_elem(&counts, &zero);
    struct state *s = bpf_map_lookup_elem(&state, &zero);
    if (!c || !s || now >= f->arm.deadline_ns)
        return 0;
    c->seen++;
    if (!is_target(f))
        return 0;
    c->matched++;
    if (!chooses(f, s, now))
        return 0;
    c->chosen++;
    if (f->arm.mode != MODE_ARMED)
        return 0;
    if (f->arm.max_hits && __sync_fetch_and_add(&s->hits, 1) >= f->arm.max_hits)
        return 0;
    if (act(f, s, now))
        c->affected++;
    return 0;
}

SEC("tp_btf/sys_enter")
int crash_enter(__u64 *ctx)
{
    __u32 zero = 0;
    const struct call_fault *f = bpf_map_lookup_elem(&fault, &zero);
    if (!f || f->arm.mode == MODE_OFF)
        return 0;
    return meet(f, ctx[1]);
}

SEC("tp_btf/sys_exit")
int crash_exit(__u64 *ctx)
{
    __u32 zero = 0;
    const struct call_fault *f = bpf_map_lookup_elem(&fault, &zero);
    struct state *s = bpf_map_lookup_elem(&state, &zero);
    if (!f || !s || !s->is_bad || s->is_bad != bpf_get_current_pid_tgid())
        return 0;
    s->is_bad = 0;
    if (f->arm.mode == MODE_ARMED)
        kill(f->signal);
    return 0;
}

static __always_inline int submitted(const struct io_kiocb *request)
{
    __u32 zero = 0;
    const struct call_fault *f = bpf_map_lookup_elem(&fault, &zero);
    if (!f || f->arm.mode == MODE_OFF)
        return 0;
    return meet(f, request->opcode);
}

SEC("tp_btf/io_uring_submit_req")
int crash_uring(__u64 *ctx)
{
    return submitted((struct io_kiocb *)ctx[0]);
}

/* What kernels before 6.4 call it. */
SEC("tp_btf/io_uring_submit_sqe")
int crash_sqe(__u64 *ctx)
{
    return submitted((struct io_kiocb *)ctx[0]);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
