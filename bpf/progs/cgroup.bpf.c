/* Faults of calls that processes of a control group make: connect, bind, sendto and socket, which fail or go elsewhere.
 *
 * io_uring passes the same hooks. Invariants: unarmed, a program looks at one map entry and allows the call; past its deadline
 * it is unarmed, whoever still lives. Next: sock.h; user space in src/faults/socket.rs. */
#include "sock.h"

enum { REFUSE = 0, ALLOW = 1 };

static __always_inline void read_address(struct bpf_sock_addr *ctx, bool is_v6, __u8 *to)
{
    if (is_v6) {
        __u32 words[4] = { WORD(ctx, user_ip6[0]), WORD(ctx, user_ip6[1]), WORD(ctx, user_ip6[2]),
                           WORD(ctx, user_ip6[3]) };
        __builtin_memcpy(to, words, 16);
    } else {
        map_v4(to, WORD(ctx, user_ip4));
    }
}

static __always_inline bool is_v4(const __u8 *mapped)
{
    __u32 words[3];
    __builtin_memcpy(words, mapped, 12);
    return words[0] == 0 && words[1] == 0 && words[2] == bpf_htonl(0xffff);
}

/* Whether a socket of this version can go there. */
static __always_inline bool redirect(struct bpf_sock_addr *ctx, const struct socket_fault *f, bool is_v6)
{
    __u32 words[4];
    __builtin_memcpy(words, f->to, 16);
    if (is_v6) {
        ctx->user_ip6[0] = words[0];
        ctx->user_ip6[1] = words[1];
        ctx->user_ip6[2] = words[2];
        ctx->user_ip6[3] = words[3];
    } else {
        if (!is_v4(f->to))
            return false;
        ctx->user_ip4 = words[3];
    }
    ctx->user_port = bpf_htons(f->to_port);
    return true;
}

static __always_inline int refuse(const struct socket_fault *f)
{
    bpf_set_retval(-(int)f->value);
    count_affected();
    return REFUSE;
}

/* A call that names an address: the other side's, or for bind the own. */
static __always_inline int call(struct bpf_sock_addr *ctx, bool is_v6, bool is_bind)
{
    const struct socket_fault *f = in_force();
    if (!f)
        return ALLOW;
    struct ends ends = { .family = is_v6 ? AF_INET6 : AF_INET };
    __u16 port = bpf_ntohs(ctx->user_port);
    ends.protocol = ctx->protocol;
    read_address(ctx, is_v6, is_bind ? ends.src : ends.dst);
    if (is_bind)
        ends.sport = port;
    else
        ends.dport = port;
    if (!is_chosen(f, &ends))
        return ALLOW;
    if (f->action == SOCKET_ERRNO)
        return refuse(f);
    if (f->action == SOCKET_REDIRECT && redirect(ctx, f, is_v6))
        count_affected();
    return ALLOW;
}

SEC("cgroup/connect4")
int call_connect4(struct bpf_sock_addr *ctx)
{
    return call(ctx, false, false);
}

SEC("cgroup/connect6")
int call_connect6(struct bpf_sock_addr *ctx)
{
    return call(ctx, true, false);
}

SEC("cgroup/sendmsg4")
int call_sendmsg4(struct bpf_sock_addr *ctx)
{
    return call(ctx, false, false);
}

SEC("cgroup/sendmsg6")
int call_sendmsg6(struct bpf_sock_addr *ctx)
{
    return call(ctx, true, false);
}

SEC("cgroup/bind4")
int call_bind4(struct bpf_sock_addr *ctx)
{
    return call(ctx, false, true);
}

SEC("cgroup/bind6")
int call_bind6(struct bpf_sock_addr *ctx)
{
    return call(ctx, true, true);
}

SEC("cgroup/sock_create")
int call_socket(struct bpf_sock *ctx)
{
    const struct socket_fault *f = in_force();
    if (!f)
        return ALLOW;
    struct ends ends = {};
    ends.family = ctx->family;
    ends.protocol = ctx->protocol;
    return is_chosen(f, &ends) ? refuse(f) : ALLOW;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
