/* What the probes and their user space both know: the twins of `src/metrics/abi.rs`, whose sizes both sides assert.
 * Invariants: every map is bounded; no padding; each counter is written by one processor, or under the lock of the socket
 * that it belongs to. An event that is met often looks up entries of arrays, which costs no call; hash maps are for what
 * is rare, and for the one owner of an operation. Next: tcp.bpf.c, drops.bpf.c, queues.bpf.c, uring.bpf.c, listen.bpf.c. */
#pragma once

#include "kernel.h"
#include "shared.h"

/* Set before the programs are loaded, so that the verifier drops what is not asked for. */
struct probe_config {
    /* One event of so many is looked at. */
    __u32 sample_every;
    __u32 unused;
};
SHARED_SIZE(struct probe_config, 8);

const volatile struct probe_config config SEC(".rodata.config") = { .sample_every = 1 };

/* Bucket i counts values of i bits: 0, 1, 2 to 3, 4 to 7 and so on; the last one all that is larger. */
#define BUCKETS 32

struct histogram {
    __u64 sum;
    __u64 buckets[BUCKETS];
};
SHARED_SIZE(struct histogram, 264);

/* The number of bits of a value below 2^63, by halves. A comparison would be a jump, and of a latency nobody can guess it:
 * the sign of a difference says the same. */
static __always_inline __u32 bits(__u64 value)
{
    __u64 n = 0, step;
#define HALVE(most, shift)                      \
    step = ((most) - value) >> 63 << (shift);   \
    value >>= step;                             \
    n += step
    HALVE(0xffffffffULL, 5);
    HALVE(0xffffULL, 4);
    HALVE(0xffULL, 3);
    HALVE(0xfULL, 2);
    HALVE(3ULL, 1);
    HALVE(1ULL, 0);
#undef HALVE
    __u32 all = n + value;
    /* The compiler knows a bound that the verifier does not: it is to compare all the same. */
    asm volatile("" : "+r"(all));
    return all;
}

static __always_inline void record(struct histogram *to, __u64 value, __u32 bucket)
{
    to->sum += value;
    to->buckets[bucket < BUCKETS - 1 ? bucket : BUCKETS - 1]++;
}

/* Whether this event is one of the sampled. */
static __always_inline bool is_sampled(void)
{
    return config.sample_every <= 1 || bpf_get_prandom_u32() % config.sample_every == 0;
}

/* The low half of an address, as a number: the verifier refuses arithmetic on a trusted pointer, and lets a 32-bit move of
 * one be a number. Two objects alike in it are 4 GiB apart. */
static __always_inline __u32 low_half(const void *pointer)
{
    __u64 number;
    asm volatile("r0 = %1; w0 = w0; %0 = r0" : "=r"(number) : "r"(pointer) : "r0");
    return number;
}

/* One that waits for its end, in a table where each has one place by its address: no lock, no chain, no removal.
 * Two that share a place cost the earlier one its measurement, which is then counted as unpaired. */
struct waiting {
    __u64 at_ns;
    __u32 key;
    __u32 owner;
    __u64 kind;
};
SHARED_SIZE(struct waiting, 24);

/* Objects of a kernel cache lie at multiples of 64 at least; the high bits tell pages apart. */
static __always_inline __u32 place_of(__u32 key, __u32 places)
{
    return ((key >> 6) ^ (key >> 18)) & (places - 1);
}

/* A table of them; `places` is a power of two. */
#define WAITING(name, places)             \
    struct {                              \
        __uint(type, BPF_MAP_TYPE_ARRAY); \
        __uint(max_entries, places);      \
        __type(key, __u32);               \
        __type(value, struct waiting);    \
    } name SEC(".maps")

/* Puts one at its place, if it is sampled. If it is not, an earlier one at its address must not be taken for it. */
static __always_inline void begin_wait(struct waiting *w, __u32 key, __u32 owner, __u32 kind)
{
    if (!is_sampled()) {
        if (w->key == key)
            w->key = 0;
        return;
    }
    w->owner = owner;
    w->kind = kind;
    w->at_ns = bpf_ktime_get_ns();
    w->key = key;
}

/* One value for each processor. */
#define PER_CPU(name, entries, type_of_value)    \
    struct {                                     \
        __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); \
        __uint(max_entries, entries);            \
        __type(key, __u32);                      \
        __type(value, type_of_value);            \
    } name SEC(".maps")

/* The same by a key that is not known before; the least recently met go first. */
#define OWNERS 1024
#define BY_OWNER(name, type_of_key, type_of_value)  \
    struct {                                        \
        __uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH); \
        __uint(max_entries, OWNERS);                \
        __type(key, type_of_key);                   \
        __type(value, type_of_value);               \
    } name SEC(".maps")

/* The entry of an array that has one. */
static __always_inline void *only(void *map)
{
    __u32 zero = 0;
    return bpf_map_lookup_elem(map, &zero);
}

/* Counts in an array of numbers, whose last one is for all that is larger. */
static __always_inline void count(void *map, __u32 index, __u32 entries)
{
    index = index < entries ? index : entries - 1;
    __u64 *counter = bpf_map_lookup_elem(map, &index);
    if (counter)
        ++*counter;
}

/* The entry of a key, which is added if there is none. */
static __always_inline void *entry(void *map, const void *key, const void *fresh)
{
    void *found = bpf_map_lookup_elem(map, key);
    if (found)
        return found;
    bpf_map_update_elem(map, key, fresh, BPF_NOEXIST);
    return bpf_map_lookup_elem(map, key);
}

static __always_inline __u32 current_pid(void)
{
    return bpf_get_current_pid_tgid() >> 32;
}

#define COMM_MAX 16
#define FLOW_BUCKETS 24

/* A TCP connection, by the cookie of its socket. */
struct flow {
    __u64 begin_ns;
    __u64 cgroup;
    /* Segments received and looked at. */
    __u64 segments;
    __u64 bytes_sent;
    __u64 bytes_received;
    /* When the segment was sent that gave the last sample of the round-trip time. */
    __u64 rtt_stamp;
    __u64 rtt_sum_us;
    __u8 local[16];
    __u8 remote[16];
    __u16 local_port;
    __u16 remote_port;
    __u32 netns;
    __u32 pid;
    __u32 srtt_us;
    __u32 rtt_min_us;
    __u32 retransmits;
    __u32 resets;
    __u8 family;
    __u8 is_closed;
    __u8 unused[2];
    __u32 rtt_us[FLOW_BUCKETS];
    __u8 comm[COMM_MAX];
};
SHARED_SIZE(struct flow, 232);

/* Connections that share an entry of their table: whose each is stands in front, in one cache line. */
#define WAYS 4

struct flow_set {
    __u64 cookies[WAYS];
    struct flow flows[WAYS];
};
SHARED_SIZE(struct flow_set, 960);

/* A socket that listens, as it is now. */
struct backlog {
    __u8 local[16];
    __u16 port;
    __u16 family;
    /* Connections that wait to be accepted, and how many may. */
    __u32 accept_queue;
    __u32 accept_limit;
    /* Openings that wait for the third packet; as many may. */
    __u32 syn_queue;
    /* Openings that were dropped, here most often for want of room. */
    __u32 dropped;
    /* There are no more that listen. */
    __u32 is_end;
};
SHARED_SIZE(struct backlog, 40);

/* Who listens at a port, for the connections that are accepted there. */
struct listener {
    __u32 netns;
    __u32 port;
};

struct listening {
    __u32 pid;
    __u8 comm[COMM_MAX];
};

struct tcp_totals {
    __u64 segments;
    __u64 retransmits;
    __u64 synack_retransmits;
    __u64 resets_received;
    __u64 opened;
    __u64 accepted;
    __u64 failed;
    __u64 closed;
    __u64 bytes_sent;
    __u64 bytes_received;
    struct histogram rtt_us;
    struct histogram lifetime_us;
};
SHARED_SIZE(struct tcp_totals, 608);

/* Connections that ended, of a process or a control group. */
struct tcp_owner {
    __u64 connections;
    __u64 bytes_sent;
    __u64 bytes_received;
    __u64 retransmits;
    __u8 comm[COMM_MAX];
};
SHARED_SIZE(struct tcp_owner, 48);

/* Where packets were dropped. */
struct drop_site {
    /* In the kernel's code. */
    __u64 address;
    __u32 reason;
    /* EtherType. */
    __u32 protocol;
};
SHARED_SIZE(struct drop_site, 16);

struct queue_totals {
    /* Packets given to devices, and their bytes. */
    __u64 packets;
    __u64 bytes;
    /* Those that were not seen when they were queued: their device has no queue, they are segments of larger ones, or two were
     * at one place. */
    __u64 unpaired;
    __u64 napi_polls;
    __u64 napi_packets;
    /* Polls that left packets behind. */
    __u64 napi_full;
    struct histogram qdisc_ns;
    struct histogram softirq_tx_ns;
    struct histogram softirq_rx_ns;
};
SHARED_SIZE(struct queue_totals, 840);

struct uring_op {
    __u64 submitted;
    /* Given to a worker thread. */
    __u64 punted;
    struct histogram latency_ns;
};
SHARED_SIZE(struct uring_op, 280);

struct uring_totals {
    __u64 completed;
    /* Completions whose submission was not seen, or that are not its first. */
    __u64 unpaired;
    __u64 overflows;
    __u64 link_fails;
};
SHARED_SIZE(struct uring_totals, 32);

struct uring_owner {
    /* Operations whose latency was measured, and the sum. */
    __u64 measured;
    __u64 latency_ns;
    __u64 overflows;
    __u64 punted;
    __u64 link_fails;
    __u8 comm[COMM_MAX];
};
SHARED_SIZE(struct uring_owner, 56);

char LICENSE[] SEC("license") = "Dual MIT/GPL";
