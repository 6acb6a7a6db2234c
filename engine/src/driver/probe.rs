//! What the running kernel offers, found by trying each feature; `shardd doctor` prints it.

use io_uring::{IoUring, Probe, opcode};

use super::uring;
use super::{Driver, ListenOptions, Op, Ring, Setup, Siblings};
use crate::buf::PoolConfig;

/// One feature.
#[derive(Clone, Debug)]
pub struct Feature {
    /// Its name in the kernel.
    pub name: &'static str,
    /// First kernel that has it.
    pub since: &'static str,
    /// Whether this one does.
    pub present: bool,
    /// The engine cannot run without it.
    pub required: bool,
    /// What it is used for, and what happens without it.
    pub purpose: &'static str,
}

type Builder = io_uring::Builder;
type SetupRow = (&'static str, &'static str, bool, &'static str, fn(&mut Builder));

const SETUP: &[SetupRow] = &[
    (
        "SINGLE_ISSUER + DEFER_TASKRUN",
        "6.1",
        true,
        "completions run when the shard asks, not by interrupting it",
        |builder| {
            builder.setup_single_issuer().setup_defer_taskrun();
        },
    ),
    ("TASKRUN_FLAG", "5.19", true, "spinning without system calls", |builder| {
        builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
    }),
    ("NO_SQARRAY", "6.6", false, "one array less per submission; used where present", |builder| {
        builder.setup_no_sqarray();
    }),
];

type OpRow = (&'static str, &'static str, bool, u8, &'static str);

const OPS: &[OpRow] = &[
    ("ACCEPT", "5.5", true, opcode::AcceptMulti::CODE, "multishot accept (5.19)"),
    ("RECV", "5.6", true, opcode::RecvMulti::CODE, "multishot receive (6.0) into shared buffers"),
    ("SEND", "5.6", true, opcode::Send::CODE, "replies"),
    ("SENDMSG", "5.3", true, opcode::SendMsg::CODE, "replies with values by reference"),
    ("ASYNC_CANCEL", "5.5", true, opcode::AsyncCancel::CODE, "ending operations"),
    ("MSG_RING", "5.18", true, opcode::MsgRingData::CODE, "waking another shard"),
    ("SPLICE", "5.7", false, opcode::Splice::CODE, "file ranges that are not cached"),
    (
        "SEND_ZC",
        "6.0",
        false,
        opcode::SendZc::CODE,
        "large values without a copy; plain sends without it",
    ),
];

/// Tries every feature.
#[must_use]
pub fn features() -> Vec<Feature> {
    let mut found: Vec<Feature> = SETUP
        .iter()
        .map(|&(name, since, required, purpose, apply)| {
            let mut builder = IoUring::builder();
            apply(&mut builder);
            Feature { name, since, present: builder.build(8).is_ok(), required, purpose }
        })
        .collect();
    let mut probe = Probe::new();
    if let Ok(ring) = IoUring::new(8) {
        // An old kernel that cannot be asked supports nothing we need.
        let _ = ring.submitter().register_probe(&mut probe);
    }
    found.extend(OPS.iter().map(|&(name, since, required, code, purpose)| Feature {
        name,
        since,
        present: probe.is_supported(code),
        required,
        purpose,
    }));
    found.extend(ring_features());
    found
}

fn ring_features() -> Vec<Feature> {
    let pool = PoolConfig { buffers: 4, buffer_len_bytes: 4096, incremental: true };
    let fallback = PoolConfig { incremental: false, ..pool };
    let setup = Setup { pool, pool_fallback: fallback, sq_entries: 8, ..Setup::default() };
    let ring = Ring::start(&Setup { cq_entries: 16, ..setup }, 0, Siblings::new(1)).ok();
    let registered = ring.as_ref().is_some_and(Ring::has_registered_ring);
    let pool = ring.as_ref().map(|ring| *ring.pool().config());
    let accepts = ring.is_some_and(multishot_accept_works);
    vec![
        Feature {
            name: "REGISTER_RING_FDS",
            since: "5.18",
            present: registered,
            required: false,
            purpose: "a look-up less per enter; plain descriptor without it",
        },
        Feature {
            name: "REGISTER_PBUF_RING",
            since: "5.19",
            present: pool.is_some(),
            required: true,
            purpose: "receive buffers shared by all connections of a shard",
        },
        Feature {
            name: "IOU_PBUF_RING_INC",
            since: "6.12",
            present: pool.is_some_and(|pool| pool.incremental),
            required: false,
            purpose: "large receive buffers filled in slices; many small buffers without it",
        },
        Feature {
            name: "multishot accept",
            since: "5.19",
            present: accepts,
            required: true,
            purpose: "one operation per listener instead of one per connection",
        },
    ]
}

fn multishot_accept_works(ring: Ring) -> bool {
    let mut driver = Driver::Uring(Box::new(ring));
    let Ok(any_port) = "127.0.0.1:0".parse() else { return false };
    let Ok(listener) = driver.listen(any_port, &ListenOptions::default()) else { return false };
    let op = driver.submit(0, Op::AcceptMulti { listener });
    driver.submit(1, Op::Cancel { target: op });
    let mut cancelled = false;
    for _ in 0..4 {
        driver.turn(true, Some(100_000_000));
        while let Some(completion) = driver.next_completion() {
            cancelled |= completion.token == 1 && completion.result.is_ok();
        }
    }
    uring::close(listener);
    cancelled
}
