/* Calls that the kernel's security modules are asked about are refused: of files, sockets, memory and processes.
 *
 * io_uring asks them too. A program is asked last, and only where no other module refused. Invariants: unarmed, or past the
 * deadline, nothing is refused; process 1 and the one that injects are left alone; what is returned is 0 or an error number,
 * in a range that the verifier can see. Next: call.h; user space in src/faults/refuse.rs. */
#include "call.h"
#include "maps.h"

FAULT_MAPS(struct refusal);

enum { ERRNO_MAX = 4095 };

static __always_inline bool is_file(const struct refusal *f, struct dentry *dentry)
{
    char name[NAME_LEN] = {};
    if (!dentry || !f->name_len)
        return true;
    bpf_probe_read_kernel_str(name, sizeof(name), dentry->d_name.name);
    for (int i = 0; i < NAME_LEN; i++) {
        if (name[i] != f->name[i])
            return false;
        if (!name[i])
            return true;
    }
    return true;
}

static __always_inline int refuse(const struct refusal *f)
{
    int error = -(int)f->errno;
    /* The verifier knows no range of a negation: the compiler is not to leave out the look at it. */
    barrier_var(error);
    return error < 0 && error >= -ERRNO_MAX ? error : 0;
}

/* What the call is to return. `dentry` is only looked at where the fault names a file. */
static __always_inline int meet(struct dentry *dentry, __u32 mask, int others)
{
    __u32 zero = 0;
    const struct refusal *f = bpf_map_lookup_elem(&fault, &zero);
    struct counts *c = bpf_map_lookup_elem(&counts, &zero);
    struct state *s = bpf_map_lookup_elem(&state, &zero);
    if (others || !f || !c || !s || f->call.arm.mode == MODE_OFF)
        return others;
    __u64 now = bpf_ktime_get_ns();
    if (now >= f->call.arm.deadline_ns)
        return 0;
    c->seen++;
    if ((f->mask && !(f->mask & mask)) || !is_target(&f->call) || !is_file(f, dentry))
        return 0;
    c->matched++;
    if (!chooses(&f->call, s, now))
        return 0;
    c->chosen++;
    if (f->call.arm.mode != MODE_ARMED)
        return 0;
    if (f->call.arm.max_hits && __sync_fetch_and_add(&s->hits, 1) >= f->call.arm.max_hits)
        return 0;
    c->affected++;
    return refuse(f);
}

/* Arguments of a hook are words of the context, and behind them is what those before said. */
#define HOOK(hook) SEC("lsm/" #hook) int lsm_##hook(__u64 *ctx)
#define CALL(hook, args)                       \
    HOOK(hook)                                 \
    {                                          \
        return meet(NULL, 0, (int)ctx[args]);  \
    }

HOOK(file_open)
{
    struct file *file = (struct file *)ctx[0];
    return meet(file->f_path.dentry, 0, (int)ctx[1]);
}

HOOK(file_permission)
{
    struct file *file = (struct file *)ctx[0];
    return meet(file->f_path.dentry, ctx[1], (int)ctx[2]);
}

HOOK(inode_create)
{
    return meet((struct dentry *)ctx[1], 0, (int)ctx[3]);
}

HOOK(inode_mkdir)
{
    return meet((struct dentry *)ctx[1], 0, (int)ctx[3]);
}

HOOK(inode_unlink)
{
    return meet((struct dentry *)ctx[1], 0, (int)ctx[2]);
}

/* By the name that the file has. */
HOOK(inode_rename)
{
    return meet((struct dentry *)ctx[1], 0, (int)ctx[4]);
}

CALL(mmap_file, 4)
CALL(task_alloc, 2)
CALL(bprm_check_security, 1)
CALL(socket_create, 4)
CALL(socket_bind, 3)
CALL(socket_connect, 3)
CALL(socket_listen, 2)
CALL(socket_accept, 2)
CALL(socket_sendmsg, 3)
CALL(socket_recvmsg, 4)

char LICENSE[] SEC("license") = "Dual MIT/GPL";
