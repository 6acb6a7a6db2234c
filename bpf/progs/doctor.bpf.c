/* Programs that do nothing, of types that no fault has yet: the doctor attaches them to see whether the kernel takes them.
 * Next: src/doctor.rs. */
#include "kernel.h"

SEC("fentry/vfs_read")
int doctor_fentry(__u64 *ctx)
{
    return 0;
}

SEC("cgroup_skb/egress")
int doctor_skb(struct __sk_buff *skb)
{
    return 1;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
