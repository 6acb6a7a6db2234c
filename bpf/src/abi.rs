//! Structs that programs and this process share: the twins of `progs/shared.h`, whose sizes both sides assert.
//!
//! Invariants: no padding, so that each is bytes and back without unsafe code; multi-byte fields in the machine's order.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! shared {
    ($(#[$doc:meta])* $name:ident: $bytes:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
        const _: () = assert!(size_of::<$name>() == $bytes, "as in shared.h");
    };
}

pub(crate) use shared;

/// Does nothing.
pub const MODE_OFF: u32 = 0;
/// Counts what it would do.
pub const MODE_SHADOW: u32 = 1;
/// Acts.
pub const MODE_ARMED: u32 = 2;

/// Payload bytes that can be compared.
pub const PREFIX_MAX: usize = 16;
/// Ports that are spared.
pub const SPARED_MAX: usize = 4;

shared! {
    /// When a fault acts, and for how long.
    Arm: 32 {
        /// Of CLOCK_MONOTONIC; nothing happens from then on.
        deadline_ns: u64,
        /// When it was armed.
        since_ns: u64,
        /// Acts so many times at most; 0 for any number.
        max_hits: u64,
        /// [`MODE_OFF`], [`MODE_SHADOW`] or [`MODE_ARMED`].
        mode: u32,
        /// Zero.
        unused: u32,
    }
}

shared! {
    /// Which packets; a zero, or a full range, is any.
    Selector: 48 {
        /// Ports of the sender.
        sport: [u16; 2],
        /// Of the receiver.
        dport: [u16; 2],
        /// Of either.
        port: [u16; 2],
        /// Bytes from the network header on.
        len: [u16; 2],
        /// Spared whatever else matches.
        spared: [u16; SPARED_MAX],
        /// `AF_INET`, `AF_INET6` or 0.
        family: u8,
        /// IP protocol number.
        protocol: u8,
        /// TCP flags that are looked at.
        flags_mask: u8,
        /// And how they are.
        flags_value: u8,
        /// Which maps of networks are asked: 1 of senders, 2 of receivers, 4 of either.
        networks: u8,
        /// Zero.
        unused: u8,
        /// Bytes of `prefix`.
        prefix_len: u8,
        /// Only packets without payload.
        without_payload: u8,
        /// The payload begins with.
        prefix: [u8; PREFIX_MAX],
    }
}

shared! {
    /// How many of the packets that match; see `enum share_kind`.
    Share: 40 {
        /// Which of the others are used.
        kind: u32,
        /// Of a million.
        ppm: u32,
        /// Every n-th, the first n.
        n: u32,
        /// Of the hash of flows.
        seed: u32,
        /// Milliseconds of each period.
        on_ms: u32,
        /// The period.
        period_ms: u32,
        /// Gilbert-Elliott: chance of the bad state.
        to_bad_ppm: u32,
        /// Of the good one, in the bad.
        to_good_ppm: u32,
        /// Of a loss in the bad one.
        bad_ppm: u32,
        /// Zero.
        unused: u32,
    }
}

shared! {
    /// All that a program of packets is told.
    Fault: 136 {
        /// When.
        arm: Arm,
        /// Which.
        selector: Selector,
        /// How many.
        share: Share,
        /// What; see `enum action`.
        action: u32,
        /// Its argument.
        value: u32,
        /// Bytes before the network header.
        l2_len: u32,
        /// Packets come in through the device.
        is_ingress: u32,
    }
}

shared! {
    /// All that a program of calls and connections is told.
    SocketFault: 152 {
        /// When.
        arm: Arm,
        /// Which; the sender is the socket's own side.
        selector: Selector,
        /// How many.
        share: Share,
        /// What; see `enum socket_action`.
        action: u32,
        /// Its argument.
        value: u32,
        /// An address, version 4 mapped, or the name of an algorithm.
        to: [u8; 16],
        /// The port that belongs to the address.
        to_port: u32,
        /// Zero.
        unused: u32,
    }
}

shared! {
    /// What a program has met, of one processor.
    Counts: 32 {
        /// Packets or calls while it was in force.
        seen: u64,
        /// That the selector matched.
        matched: u64,
        /// The share of those.
        chosen: u64,
        /// Acted on.
        affected: u64,
    }
}

/// Bytes of a process's name.
pub const COMM_LEN: usize = 16;

shared! {
    /// All that a program of calls is told.
    CallFault: 128 {
        /// When.
        arm: Arm,
        /// How many.
        share: Share,
        /// Only the n-th that matches; 0 for those of the share.
        nth: u64,
        /// Of the system call, or of the io_uring operation.
        number: u32,
        /// Process; 0 for any.
        tgid: u32,
        /// Process that is left alone: the one that injects.
        spared: u32,
        /// Sent to the caller; 0 for none.
        signal: u32,
        /// The caller is kept busy so long.
        stall_us: u32,
        /// Children of the process, and theirs, count too.
        with_children: u32,
        /// The signal waits until the call is done.
        at_exit: u32,
        /// Whether `comm` is looked at.
        has_comm: u32,
        /// Name of the process, zeros behind.
        comm: [u8; COMM_LEN],
    }
}

/// Bytes of a file's name.
pub const NAME_LEN: usize = 32;

shared! {
    /// All that a program is told that refuses calls.
    Refusal: 176 {
        /// Which, without what it does to the caller.
        call: CallFault,
        /// The error number that they return.
        errno: u32,
        /// Bytes of `name` that are compared; 0 for any file.
        name_len: u32,
        /// 2 for writes, 4 for reads.
        mask: u32,
        /// Zero.
        unused: u32,
        /// Of the file, without its directories.
        name: [u8; NAME_LEN],
    }
}

shared! {
    /// Key of a network; addresses of version 4 are mapped.
    Network: 20 {
        /// Bits that count.
        prefix_len: u32,
        /// Version 6.
        address: [u8; 16],
    }
}

shared! {
    /// Where packets go that leave a delay line.
    Line: 8 {
        /// The device.
        ifindex: u32,
        /// `BPF_F_INGRESS` to come in through it.
        flags: u32,
    }
}

impl Counts {
    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            seen: self.seen + other.seen,
            matched: self.matched + other.matched,
            chosen: self.chosen + other.chosen,
            affected: self.affected + other.affected,
        }
    }
}
