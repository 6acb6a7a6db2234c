/* The few fields of kernel structs that the probes read, found by CO-RE on kernels with another layout.
 * Sources: include/net/sock.h, include/linux/tcp.h, skbuff.h, netdevice.h, fs.h, include/linux/io_uring_types.h.
 * Invariant: a field that some kernels lack is asked for with `bpf_core_field_exists` first. Next: probe.h. */
#pragma once

#include "kern.h"

/* Arguments of tracepoints are words of the context. */
#define PROBE(name) SEC("tp_btf/" #name) int name(unsigned long long *ctx)

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct in6_addr {
    union {
        __u8 u6_addr8[16];
    } in6_u;
};

struct ns_common {
    unsigned int inum;
};

struct net {
    struct ns_common ns;
};

typedef struct {
    struct net *net;
} possible_net_t;

typedef struct {
    int counter;
} atomic_t;

typedef struct {
    __s64 counter;
} atomic64_t;

struct sock_common {
    __be32 skc_daddr;
    __be32 skc_rcv_saddr;
    __be16 skc_dport;
    __u16 skc_num;
    unsigned short skc_family;
    volatile unsigned char skc_state;
    possible_net_t skc_net;
    struct in6_addr skc_v6_daddr;
    struct in6_addr skc_v6_rcv_saddr;
    atomic64_t skc_cookie;
};

struct kernfs_node {
    __u64 id;
};

struct cgroup {
    struct kernfs_node *kn;
};

struct sock_cgroup_data {
    struct cgroup *cgroup;
};

struct sock {
    struct sock_common __sk_common;
    __u16 sk_protocol;
    __u32 sk_ack_backlog;
    __u32 sk_max_ack_backlog;
    atomic_t sk_drops;
    struct sock_cgroup_data sk_cgrp_data;
};

struct request_sock_queue {
    atomic_t qlen;
};

struct inet_sock {
    struct sock sk;
};

struct inet_connection_sock {
    struct inet_sock icsk_inet;
    struct request_sock_queue icsk_accept_queue;
};

struct minmax_sample {
    __u32 t;
    __u32 v;
};

struct minmax {
    struct minmax_sample s[3];
};

struct tcp_rack {
    __u64 mstamp;
    __u32 rtt_us;
};

struct tcp_sock {
    struct inet_connection_sock inet_conn;
    __u32 srtt_us;
    __u64 bytes_received;
    __u64 bytes_acked;
    struct minmax rtt_min;
    struct tcp_rack rack;
};

struct Qdisc {
    void *enqueue;
};

struct netdev_queue {
    struct Qdisc *qdisc;
};

struct net_device {
    struct netdev_queue *_tx;
};

struct sk_buff {
    struct net_device *dev;
    unsigned int len;
    __be16 protocol;
};

/* What an iterator meets: at its end, no socket. */
struct seq_file {
    void *private;
};

struct bpf_iter_meta {
    struct seq_file *seq;
};

struct bpf_iter__tcp {
    struct bpf_iter_meta *meta;
    struct sock_common *sk_common;
};

struct io_kiocb {
    __u8 opcode;
};

/* Of a process, and set when it is being killed. */
enum { SIGNAL_GROUP_EXIT = 4 };

struct signal_struct {
    atomic_t live;
    unsigned int flags;
};

struct task_struct {
    int tgid;
    struct signal_struct *signal;
    struct task_struct *real_parent;
    struct task_struct *group_leader;
    char comm[16];
};

struct qstr {
    const unsigned char *name;
};

struct dentry {
    struct qstr d_name;
};

struct path {
    struct dentry *dentry;
};

struct file {
    struct path f_path;
};

#pragma clang attribute pop

#include <bpf/bpf_core_read.h>
