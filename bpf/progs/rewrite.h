/* Packets that become others: a copy, a changed bit, an answer sent back in place of the question.
 *
 * Included by tc.bpf.c. Invariants: checksums are kept as right, or as unfinished, as they were, except where a fault is that they are
 * not; what is sent anew carries OWN_MARK. */
#pragma once

#define L4_CHECK_AT(packet) ((packet)->l4_at + ((packet)->protocol == IPPROTO_TCP ? 16 : 6))

static __always_inline bool copy_to(struct __sk_buff *skb, __u32 ifindex, __u64 flags)
{
    __u32 mark = skb->mark;
    skb->mark = OWN_MARK;
    long failed = bpf_clone_redirect(skb, ifindex, flags);
    skb->mark = mark;
    return !failed;
}

static __always_inline bool duplicate(struct __sk_buff *skb, const struct fault *f)
{
    return copy_to(skb, skb->ifindex, f->is_ingress ? BPF_F_INGRESS : 0);
}

static __always_inline bool corrupt(struct __sk_buff *skb, const struct packet *packet, __u32 mends_checksum)
{
    if (packet->payload_at >= skb->len)
        return false;
    __u32 at = packet->payload_at + bpf_get_prandom_u32() % (skb->len - packet->payload_at);
    /* Both bytes of the checksum's word. */
    at = packet->payload_at + ((at - packet->payload_at) & ~1U);
    __u8 word[2];
    if (bpf_skb_load_bytes(skb, at, word, 1))
        return false;
    __u8 old = word[0];
    word[0] ^= 1 << (bpf_get_prandom_u32() & 7);
    if (bpf_skb_store_bytes(skb, at, word, 1, 0))
        return false;
    if (mends_checksum && packet->has_l4)
        /* In the first byte of a word of the sum. */
        bpf_l4_csum_replace(skb, L4_CHECK_AT(packet), bpf_htons((__u16)old << 8), bpf_htons((__u16)word[0] << 8), 2);
    return true;
}

static __always_inline bool set_ttl(struct __sk_buff *skb, const struct packet *packet, __u8 value)
{
    if (packet->family == AF_INET6)
        return !bpf_skb_store_bytes(skb, packet->net_at + 7, &value, 1, 0);
    __u8 old[2];
    if (bpf_skb_load_bytes(skb, packet->net_at + 8, old, 2))
        return false;
    __u16 from = bpf_htons((old[0] << 8) | old[1]), to = bpf_htons((value << 8) | old[1]);
    return !bpf_l3_csum_replace(skb, packet->net_at + 10, from, to, 2)
        && !bpf_skb_store_bytes(skb, packet->net_at + 8, &value, 1, 0);
}

/* Exchanges sender and receiver in all headers. Sums of addresses and ports stay as they are. */
static __always_inline bool turn_round(struct __sk_buff *skb, const struct fault *f, const struct packet *packet)
{
    __u8 bytes[32], turned[32];
    if (f->l2_len == ETH_HLEN) {
        if (bpf_skb_load_bytes(skb, 0, bytes, 12))
            return false;
        __builtin_memcpy(turned, bytes + 6, 6);
        __builtin_memcpy(turned + 6, bytes, 6);
        if (bpf_skb_store_bytes(skb, 0, turned, 12, 0))
            return false;
    }
    if (packet->family == AF_INET) {
        __builtin_memcpy(turned, packet->dst + 12, 4);
        __builtin_memcpy(turned + 4, packet->src + 12, 4);
        if (bpf_skb_store_bytes(skb, packet->net_at + 12, turned, 8, 0))
            return false;
    } else {
        __builtin_memcpy(turned, packet->dst, 16);
        __builtin_memcpy(turned + 16, packet->src, 16);
        if (bpf_skb_store_bytes(skb, packet->net_at + 8, turned, 32, 0))
            return false;
    }
    __be16 ports[2] = { bpf_htons(packet->dport), bpf_htons(packet->sport) };
    return !bpf_skb_store_bytes(skb, packet->l4_at, ports, 4, 0);
}

/* Back where the packet came from. */
static __always_inline int send_back(struct __sk_buff *skb, const struct fault *f)
{
    skb->mark = OWN_MARK;
    return bpf_redirect(skb->ifindex, f->is_ingress ? 0 : BPF_F_INGRESS);
}

static __always_inline __u16 folded(__u64 sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (__u16)~sum;
}

/* Cuts a segment to bare headers, with these numbers and flags and a checksum of its own. */
static __always_inline bool write_reset(struct __sk_buff *skb, struct packet *packet, const struct tcphdr *old,
                                        __be32 seq, __be32 ack_seq, __u8 flags)
{
    struct tcphdr tcp = {
        .source = old->source, .dest = old->dest, .seq = seq, .ack_seq = ack_seq, .doff_res = 5 << 4, .flags = flags,
    };
    __u32 end = packet->l4_at + sizeof(tcp);
    if (bpf_skb_change_tail(skb, end, 0))
        return false;
    /* The sum of the pseudo-header and the header, which has no payload. */
    struct { __u8 src[16], dst[16]; __be32 len; __be32 protocol; } pseudo = {
        .len = bpf_htonl(sizeof(tcp)), .protocol = bpf_htonl(IPPROTO_TCP),
    };
    __s64 sum;
    if (packet->family == AF_INET) {
        __builtin_memcpy(pseudo.src + 12, packet->src + 12, 4);
        __builtin_memcpy(pseudo.dst + 12, packet->dst + 12, 4);
        struct iphdr ip;
        if (bpf_skb_load_bytes(skb, packet->net_at, &ip, sizeof(ip)))
            return false;
        __be16 len = bpf_htons(end - packet->net_at);
        if (bpf_l3_csum_replace(skb, packet->net_at + 10, ip.tot_len, len, 2)
            || bpf_skb_store_bytes(skb, packet->net_at + 2, &len, 2, 0))
            return false;
    } else {
        __builtin_memcpy(pseudo.src, packet->src, 16);
        __builtin_memcpy(pseudo.dst, packet->dst, 16);
        __be16 len = bpf_htons(end - packet->net_at - sizeof(struct ipv6hdr));
        if (bpf_skb_store_bytes(skb, packet->net_at + 4, &len, 2, 0))
            return false;
    }
    sum = bpf_csum_diff(NULL, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);
    sum = bpf_csum_diff(NULL, 0, (__be32 *)&tcp, sizeof(tcp), sum);
    tcp.check = folded(sum);
    return !bpf_skb_store_bytes(skb, packet->l4_at, &tcp, sizeof(tcp), 0);
}

enum { FLAG_SYN = 2, FLAG_RST = 4, FLAG_ACK = 16, RESET_SENDER = 1, RESET_RECEIVER = 2 };

static __always_inline bool reset(struct __sk_buff *skb, const struct fault *f, struct packet *packet, int *verdict)
{
    struct tcphdr old;
    if (packet->protocol != IPPROTO_TCP || !packet->has_l4 || (packet->flags & FLAG_RST))
        return false;
    if (bpf_skb_load_bytes(skb, packet->l4_at, &old, sizeof(old)))
        return false;
    __u32 payload = skb->len - packet->payload_at + !!(packet->flags & FLAG_SYN);
    if (!write_reset(skb, packet, &old, old.seq, old.ack_seq, FLAG_RST | (packet->flags & FLAG_ACK)))
        return false;
    if (!(f->value & RESET_SENDER))
        return true;
    if ((f->value & RESET_RECEIVER) && !duplicate(skb, f))
        return false;
    /* RFC 9293 3.5.2: from the acknowledgement, or acknowledging what came where there was none. */
    __be32 ack = bpf_htonl(bpf_ntohl(old.seq) + payload);
    if (!write_reset(skb, packet, &old, old.ack_seq, ack, FLAG_RST | FLAG_ACK) || !turn_round(skb, f, packet))
        return false;
    *verdict = send_back(skb, f);
    return true;
}

enum { DNS_HEADER = 12, DNS_RESPONSE = 0x80 };

/* RFC 1035 4.1.1: the question itself, with the bit of answers and a code. */
static __always_inline bool answer_dns(struct __sk_buff *skb, const struct fault *f, struct packet *packet, int *verdict)
{
    __u8 flags[2];
    if (packet->protocol != IPPROTO_UDP || packet->payload_at + DNS_HEADER > skb->len)
        return false;
    if (bpf_skb_load_bytes(skb, packet->payload_at + 2, flags, 2) || (flags[0] & DNS_RESPONSE))
        return false;
    __u16 from, to;
    __builtin_memcpy(&from, flags, 2);
    flags[0] |= DNS_RESPONSE;
    /* Recursion is available. */
    flags[1] = (flags[1] & 0x70) | 0x80 | (f->value & 15);
    __builtin_memcpy(&to, flags, 2);
    if (bpf_skb_store_bytes(skb, packet->payload_at + 2, flags, 2, 0))
        return false;
    bpf_l4_csum_replace(skb, L4_CHECK_AT(packet), from, to, 2);
    if (!turn_round(skb, f, packet))
        return false;
    *verdict = send_back(skb, f);
    return true;
}
