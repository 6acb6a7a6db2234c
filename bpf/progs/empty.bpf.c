/* A program that does nothing: what the kernel's account of run times says of it is what that account costs itself.
 * Never attached. Next: src/metrics/cost.rs. */
#include "kern.h"

SEC("raw_tp")
int empty(void *ctx)
{
    return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
