/* Whether a packet is one that a selector means, with the networks that it may ask for.
 * Invariant: no selector costs more than four look-ups of a trie. Next: tc.bpf.c, pcap.bpf.c. */
#pragma once

#include "networks.h"
#include "packet.h"

static __always_inline bool matches(struct __sk_buff *skb, const struct selector *selector, __u32 l2_len,
                                    const struct packet *packet)
{
    __u32 len = skb->len - l2_len;
    if (selector->family && selector->family != packet->family)
        return false;
    if (selector->protocol && selector->protocol != packet->protocol)
        return false;
    if ((packet->flags & selector->flags_mask) != selector->flags_value)
        return false;
    if (len < selector->len_from || (len > selector->len_to && selector->len_to != 0xffff))
        return false;
    if (selector->without_payload && packet->payload_at < skb->len)
        return false;
    if (is_spared(selector, packet) || !ports_match(selector, packet))
        return false;
    if (!networks_match(selector, packet->src, packet->dst))
        return false;
    return prefix_matches(skb, selector, packet);
}
