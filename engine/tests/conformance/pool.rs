//! Receives into the shard's pool.

use engine::buf::PoolConfig;
use engine::driver::{Errno, Op, Payload};

use crate::arm::{Arm, inline, lease, pattern};

const ENOBUFS: Errno = Errno(libc::ENOBUFS);

fn small_pool(arm: &Arm, incremental: bool) -> Arm {
    let pool = PoolConfig { buffers: 4, buffer_len_bytes: 4096, incremental };
    arm.with_setup(|setup| (setup.pool, setup.pool_fallback) = (pool, pool))
}

fn one_receive_takes_one_slice(arm: &mut Arm) {
    let pair = arm.connect();
    let (token, _) = arm.submit(Op::RecvSelect { fd: pair.server, len: 0 });
    arm.settle();
    assert!(arm.take(token).is_none(), "nothing was sent");
    arm.send_all(pair.client, inline(&pattern(0, 3000)));
    let first = arm.wait(token);
    assert!(!first.more);
    let mut received = lease(first.payload).to_vec();
    while received.len() < 3000 {
        let next = arm.run(Op::RecvSelect { fd: pair.server, len: 700 });
        let lease = lease(next.payload);
        assert!(lease.len() <= 700);
        received.extend_from_slice(&lease);
    }
    assert_eq!(received, pattern(0, 3000));
    arm.driver.close_now(pair.client);
    let end = arm.run(Op::RecvSelect { fd: pair.server, len: 0 });
    assert_eq!(end.result, Ok(0));
    assert!(matches!(end.payload, Payload::Empty), "{end:?}");
    arm.driver.close_now(pair.server);
}

fn an_exhausted_pool_ends_a_receive_until_leases_drop(arm: &mut Arm) {
    exhaust(&mut small_pool(arm, false));
}

fn an_exhausted_incremental_pool_ends_a_receive_until_leases_drop(arm: &mut Arm) {
    exhaust(&mut small_pool(arm, true));
}

fn exhaust(arm: &mut Arm) {
    let pair = arm.connect();
    let (mut token, _) = arm.submit(Op::RecvMulti { fd: pair.server });
    let total = 5 * 4096 + 100;
    arm.send_all(pair.client, inline(&pattern(0, total)));
    let (mut leases, mut received, mut exhausted) = (Vec::new(), Vec::new(), 0);
    while received.len() < total {
        let completion = arm.wait(token);
        match completion.result {
            Err(errno) => {
                assert_eq!((errno, completion.more), (ENOBUFS, false));
                assert_eq!(arm.driver.pool().available(), 0);
                exhausted += 1;
                // Still none: the next receive ends the same way, at once.
                let again = arm.submit(Op::RecvMulti { fd: pair.server }).0;
                assert_eq!(arm.wait(again).result, Err(ENOBUFS));
                leases.clear();
                assert_eq!(arm.driver.pool().available(), 4);
                token = arm.submit(Op::RecvMulti { fd: pair.server }).0;
            }
            Ok(_) => {
                let lease = lease(completion.payload);
                received.extend_from_slice(&lease);
                leases.push(lease);
            }
        }
    }
    assert_eq!(received, pattern(0, total));
    assert!(exhausted >= 1, "the pool is smaller than what was sent");
    drop(leases);
    arm.driver.close_now(pair.client);
    assert_eq!(arm.wait(token).result, Ok(0));
    arm.driver.close_now(pair.server);
}

fn a_receive_without_data_notices_an_empty_pool(arm: &mut Arm) {
    let arm = &mut small_pool(arm, false);
    let pair = arm.connect();
    let mut leases = Vec::new();
    while arm.driver.pool().available() > 0 {
        arm.send_all(pair.client, inline(b"x"));
        leases.push(lease(arm.run(Op::RecvSelect { fd: pair.server, len: 0 }).payload));
    }
    assert_eq!(arm.run(Op::RecvMulti { fd: pair.server }).result, Err(ENOBUFS));
    assert_eq!(arm.run(Op::RecvSelect { fd: pair.server, len: 0 }).result, Err(ENOBUFS));
    arm.close(pair);
}

fn an_armed_receive_does_not_hold_a_buffer(arm: &mut Arm) {
    let arm = &mut small_pool(arm, false);
    let pairs: Vec<_> = (0..8).map(|_| arm.connect()).collect();
    let tokens: Vec<_> =
        pairs.iter().map(|pair| arm.submit(Op::RecvMulti { fd: pair.server }).0).collect();
    arm.settle();
    for (pair, token) in pairs.iter().zip(tokens) {
        assert!(arm.take(token).is_none());
        arm.send_all(pair.client, inline(b"!"));
        let completion = arm.wait(token);
        assert_eq!((completion.result, completion.more), (Ok(1), true));
        assert_eq!(&lease(completion.payload)[..], b"!");
        arm.driver.close_now(pair.client);
        assert_eq!(arm.wait(token).result, Ok(0));
        arm.driver.close_now(pair.server);
    }
    assert_eq!(arm.driver.pool().available(), 4);
}

fn incremental_slices_lie_side_by_side(arm: &mut Arm) {
    let arm = &mut small_pool(arm, true);
    if !arm.driver.pool().config().incremental {
        return; // Before Linux 6.12.
    }
    let pair = arm.connect();
    let (token, _) = arm.submit(Op::RecvMulti { fd: pair.server });
    let (mut leases, mut received) = (Vec::new(), 0);
    for round in 0..8 {
        arm.send_all(pair.client, inline(&pattern(round * 512, 512)));
        while received < (round + 1) * 512 {
            let lease = lease(arm.wait(token).payload);
            received += lease.len();
            leases.push(lease);
        }
    }
    for two in leases.windows(2) {
        assert_eq!(two[0].as_ptr() as usize + two[0].len(), two[1].as_ptr() as usize);
    }
    assert_eq!(arm.driver.pool().available(), 3, "one buffer was filled");
    let all: Vec<u8> = leases.iter().flat_map(|lease| lease.to_vec()).collect();
    assert_eq!(all, pattern(0, 4096));
    // It returns with its last slice, in any order.
    let last = leases.pop();
    leases.clear();
    assert_eq!(arm.driver.pool().available(), 3);
    drop(last);
    assert_eq!(arm.driver.pool().available(), 4);
    arm.driver.close_now(pair.client);
    assert_eq!(arm.wait(token).result, Ok(0));
    arm.driver.close_now(pair.server);
}

fn leases_outlive_their_driver(arm: &mut Arm) {
    let mut other = small_pool(arm, true);
    let pair = other.connect();
    other.send_all(pair.client, inline(b"stays"));
    let mut kept = Vec::new();
    while kept.iter().map(|lease: &engine::buf::Lease| lease.len()).sum::<usize>() < 5 {
        kept.push(lease(other.run(Op::RecvSelect { fd: pair.server, len: 0 }).payload));
    }
    other.close(pair);
    drop(other);
    assert_eq!(kept.iter().flat_map(|lease| lease.to_vec()).collect::<Vec<u8>>(), b"stays");
}

crate::conformance!(
    one_receive_takes_one_slice,
    an_exhausted_pool_ends_a_receive_until_leases_drop,
    an_exhausted_incremental_pool_ends_a_receive_until_leases_drop,
    a_receive_without_data_notices_an_empty_pool,
    an_armed_receive_does_not_hold_a_buffer,
    incremental_slices_lie_side_by_side,
    leases_outlive_their_driver,
);
