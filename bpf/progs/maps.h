/* The maps of a fault: what user space tells its program, what all processors change, and what each has counted.
 * User space knows them by these names. Next: shared.h for what they hold. */
#pragma once

#include "kern.h"
#include "shared.h"

/* `told` is the struct that this kind of fault is told by. */
#define FAULT_MAPS(told)                            \
    struct {                                        \
        __uint(type, BPF_MAP_TYPE_ARRAY);           \
        __uint(max_entries, 1);                     \
        __type(key, __u32);                         \
        __type(value, told);                        \
    } fault SEC(".maps");                           \
    struct {                                        \
        __uint(type, BPF_MAP_TYPE_ARRAY);           \
        __uint(max_entries, 1);                     \
        __type(key, __u32);                         \
        __type(value, struct state);                \
    } state SEC(".maps");                           \
    struct {                                        \
        __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);    \
        __uint(max_entries, 1);                     \
        __type(key, __u32);                         \
        __type(value, struct counts);               \
    } counts SEC(".maps")
