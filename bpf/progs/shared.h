/* What programs and their user space both know. Each struct has its twin in `src/abi.rs`, whose sizes are asserted on
 * both sides; fields are ordered so that there is no padding. Next: tc.bpf.c. */
#pragma once

#define SHARED_SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), "as in abi.rs")

/* What a fault does to what it chose. */
enum mode {
    MODE_OFF = 0,
    /* Counts what it would do. */
    MODE_SHADOW = 1,
    MODE_ARMED = 2,
};

/* When a fault acts, and for how long: checked by the program itself, whoever still lives. */
struct arm {
    /* CLOCK_MONOTONIC; nothing happens from then on. */
    __u64 deadline_ns;
    /* When it was armed. */
    __u64 since_ns;
    /* Acts so many times at most; 0 for any number. */
    __u64 max_hits;
    __u32 mode;
    __u32 unused;
};
SHARED_SIZE(struct arm, 32);

#define PREFIX_MAX 16
#define SPARED_MAX 4

enum networks {
    NETWORKS_SRC = 1,
    NETWORKS_DST = 2,
    /* Either end. */
    NETWORKS_PEER = 4,
};

/* Which packets. A zero, or a full range, is any. */
struct selector {
    __u16 sport_from, sport_to;
    __u16 dport_from, dport_to;
    /* Either of the two. */
    __u16 port_from, port_to;
    /* Of the whole packet from its network header on. */
    __u16 len_from, len_to;
    /* Ports that are spared whatever else matches: the operator's own way in. */
    __u16 spared[SPARED_MAX];
    __u8 family;
    __u8 protocol;
    __u8 flags_mask, flags_value;
    /* Which maps of networks are asked. */
    __u8 networks, unused;
    __u8 prefix_len;
    __u8 without_payload;
    __u8 prefix[PREFIX_MAX];
};
SHARED_SIZE(struct selector, 48);

/* How many of the packets that match. */
enum share_kind {
    SHARE_ALL = 0,
    /* Each by chance. */
    SHARE_PACKETS = 1,
    /* All or none of a flow, by its hash. */
    SHARE_FLOWS = 2,
    SHARE_EVERY = 3,
    SHARE_FIRST = 4,
    /* For a while of each period. */
    SHARE_BURST = 5,
    /* Two states, each with its own chance: losses come in groups. */
    SHARE_GILBERT = 6,
};

struct share {
    __u32 kind;
    /* Of a million: packets, flows, or lost in the good state. */
    __u32 ppm;
    /* Every n-th, the first n. */
    __u32 n;
    /* Of flows. */
    __u32 seed;
    __u32 on_ms, period_ms;
    /* Gilbert-Elliott, each of a million: to the bad state, back, and lost in it. */
    __u32 to_bad_ppm, to_good_ppm, bad_ppm;
    __u32 unused;
};
SHARED_SIZE(struct share, 40);

/* What happens to a packet. */
enum action {
    ACTION_DROP = 0,
    /* A copy goes first. */
    ACTION_DUPLICATE = 1,
    /* One bit of the payload changes. With `value` 1 the checksum is made to fit. */
    ACTION_CORRUPT = 2,
    /* Out of the device `value` instead. */
    ACTION_REDIRECT = 3,
    /* TTL or hop limit becomes `value`. */
    ACTION_TTL = 4,
    ACTION_ECN_CE = 5,
    /* Cut to `value` bytes from the network header on. */
    ACTION_TRUNCATE = 6,
    /* A TCP segment becomes a reset: 1 for its sender, 2 for its receiver, 3 for both. */
    ACTION_RESET = 7,
    /* A DNS question comes back as an answer with the code `value`. */
    ACTION_DNS = 8,
    /* A copy goes out of the device `value`. */
    ACTION_COPY = 9,
    /* Queued with the class `value`, which the packet's priority says. */
    ACTION_CLASS = 10,
    /* Not to leave for `value` microseconds; only fq heeds it. */
    ACTION_LATER = 11,
};

struct fault {
    struct arm arm;
    struct selector selector;
    struct share share;
    __u32 action;
    __u32 value;
    /* Bytes before the network header: 14 with Ethernet, 0 on a device without. */
    __u32 l2_len;
    /* Packets come in through the device, and do not leave by it. */
    __u32 is_ingress;
};
SHARED_SIZE(struct fault, 136);

/* What happens to a call, or to a connection. */
enum socket_action {
    /* The call fails with the error number `value`. */
    SOCKET_ERRNO = 0,
    /* It goes to `to` and `to_port` instead. */
    SOCKET_REDIRECT = 1,
    /* The connection sends at most `value` bytes a second. */
    SOCKET_PACE = 2,
    /* Has at most `value` segments under way. */
    SOCKET_CWND = 3,
    /* Announces a window of at most `value` bytes. */
    SOCKET_WINDOW = 4,
    /* Is controlled by the algorithm whose name is in `to`. */
    SOCKET_CONGESTION = 5,
    /* Waits at least `value` microseconds before it sends again. */
    SOCKET_RTO = 6,
    /* Is gone. */
    SOCKET_KILL = 7,
    /* Has segments of at most `value` bytes. */
    SOCKET_MSS = 8,
    /* Sends its first segment again after `value` ticks of the kernel. */
    SOCKET_SYN_RTO = 9,
};

/* A fault of calls and connections: `fault`, for programs that meet no packets. The sender is the socket's own side. */
struct socket_fault {
    struct arm arm;
    struct selector selector;
    struct share share;
    __u32 action;
    __u32 value;
    __u8 to[16];
    __u32 to_port;
    __u32 unused;
};
SHARED_SIZE(struct socket_fault, 152);

/* What all processors change. */
struct state {
    __u64 hits;
    /* Packets that matched, for every n-th and the first n. */
    __u64 matched;
    __u64 is_bad;
};
SHARED_SIZE(struct state, 24);

/* By processor. */
struct counts {
    __u64 seen;
    __u64 matched;
    /* The share of those. */
    __u64 chosen;
    /* Acted on. */
    __u64 affected;
};
SHARED_SIZE(struct counts, 32);

#define COMM_LEN 16

/* Which calls of which processes, and what becomes of the caller. */
struct call_fault {
    struct arm arm;
    struct share share;
    /* Only the n-th that matches; 0 for those of the share. */
    __u64 nth;
    /* Of the system call, or of the io_uring operation. */
    __u32 number;
    /* Process; 0 for any. */
    __u32 tgid;
    /* Process that is left alone: the one that injects. */
    __u32 spared;
    /* Sent to the caller; 0 for none. */
    __u32 signal;
    /* The caller is kept busy so long. */
    __u32 stall_us;
    /* Children of the process, and theirs, count too. */
    __u32 with_children;
    /* The signal waits until the call is done. */
    __u32 at_exit;
    __u32 has_comm;
    /* Name of the process, zeros behind. */
    char comm[COMM_LEN];
};
SHARED_SIZE(struct call_fault, 128);

#define NAME_LEN 32

/* Which calls are refused, and how: `call` without what it does to the caller. */
struct refusal {
    struct call_fault call;
    /* The error number that they return. */
    __u32 errno;
    /* Bytes of `name` that are compared; 0 for any file. */
    __u32 name_len;
    /* Of a read or a write: which of the two. */
    __u32 mask;
    __u32 unused;
    /* Of the file, without its directories. */
    char name[NAME_LEN];
};
SHARED_SIZE(struct refusal, 176);

/* Key of a network: addresses of version 4 are mapped (::ffff:a.b.c.d). */
struct network {
    __u32 prefix_len;
    __u8 address[16];
};
SHARED_SIZE(struct network, 20);

/* Where packets go that leave a delay line. */
struct line {
    __u32 ifindex;
    /* BPF_F_INGRESS to come in through the device. */
    __u32 flags;
};
SHARED_SIZE(struct line, 8);

/* Set on packets that a program sends itself, so that it leaves them alone. */
#define OWN_MARK 0xC4A05
