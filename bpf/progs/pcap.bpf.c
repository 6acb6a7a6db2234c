/* Copies packets of a device, in either direction, for a file.
 *
 * Attached by tcx, or as a clsact filter on kernels before 6.6. Invariants: a packet goes on whatever comes of its copy; what
 * finds no room is counted and not waited for. Next: match.h; user space in src/metrics/pcap.rs. */
#include "match.h"

#define SNAPLEN_MAX 16384
#define RING_BYTES (4 << 20)
/* The reader is woken when so much waits for it, and looks by itself before long. */
#define WAKE_BYTES (RING_BYTES / 8)

enum { BPF_RB_NO_WAKEUP = 1, BPF_RB_FORCE_WAKEUP = 2, BPF_RB_AVAIL_DATA = 0 };

struct capture {
    struct selector selector;
    __u32 l2_len;
    __u32 snaplen;
};
SHARED_SIZE(struct capture, 56);

/* In front of the bytes of a packet. */
struct captured {
    __u64 at_ns;
    /* Bytes of the whole packet, and of those that follow. */
    __u32 len;
    __u32 kept;
};
SHARED_SIZE(struct captured, 16);

struct copy {
    struct captured head;
    __u8 bytes[SNAPLEN_MAX];
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct capture);
} capture SEC(".maps");

/* Chosen are those for which there was room. */
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct counts);
} counts SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct copy);
} copies SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, RING_BYTES);
} packets SEC(".maps");

SEC("tc")
int copy_packet(struct __sk_buff *skb)
{
    __u32 zero = 0;
    struct packet packet;
    const struct capture *c = bpf_map_lookup_elem(&capture, &zero);
    struct counts *n = bpf_map_lookup_elem(&counts, &zero);
    struct copy *copy = bpf_map_lookup_elem(&copies, &zero);
    if (!c || !n || !copy || !c->snaplen)
        return TC_ACT_UNSPEC;
    n->seen++;
    bool is_known = read_packet(skb, c->l2_len, &packet);
    if (!is_known || !matches(skb, &c->selector, c->l2_len, &packet))
        return TC_ACT_UNSPEC;
    n->matched++;
    __u32 len = skb->len, kept = len < c->snaplen ? len : c->snaplen;
    /* As in `prefix_matches`. */
    __u32 last = kept - 1;
    barrier_var(last);
    if (last >= SNAPLEN_MAX)
        return TC_ACT_UNSPEC;
    kept = last + 1;
    if (bpf_skb_load_bytes(skb, 0, copy->bytes, kept))
        return TC_ACT_UNSPEC;
    copy->head.at_ns = bpf_ktime_get_ns();
    copy->head.len = len;
    copy->head.kept = kept;
    __u64 waits = bpf_ringbuf_query(&packets, BPF_RB_AVAIL_DATA);
    __u64 flags = waits >= WAKE_BYTES ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
    if (bpf_ringbuf_output(&packets, copy, sizeof(copy->head) + kept, flags) == 0)
        n->chosen++;
    return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
