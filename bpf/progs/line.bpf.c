/* The two ends of a delay line's own device: what `packet` sent into it goes to user space and nothing else does, and what user
 * space writes back goes on where it was on its way to.
 *
 * Invariant: packets carry OWN_MARK on both ways, so that the kernel's own packets on a new device stay out, and `packet` leaves
 * alone what comes back. Next: src/delay_line.rs. */
#include "kern.h"
#include "shared.h"

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct line);
} line SEC(".maps");

SEC("tc")
int line_into(struct __sk_buff *skb)
{
    return skb->mark == OWN_MARK ? TC_ACT_UNSPEC : TC_ACT_SHOT;
}

SEC("tc")
int line_back(struct __sk_buff *skb)
{
    __u32 zero = 0;
    const struct line *to = bpf_map_lookup_elem(&line, &zero);
    if (!to)
        return TC_ACT_SHOT;
    skb->mark = OWN_MARK;
    /* By its Ethernet address it is for another host than this one's end of the line, and lo would leave it at that. */
    bpf_skb_change_type(skb, PACKET_HOST);
    return bpf_redirect(to->ifindex, to->flags);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
