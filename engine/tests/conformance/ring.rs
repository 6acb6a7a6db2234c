//! Cancels, bells, waiting, and the end of a driver.

use bytes::BytesMut;
use engine::driver::{Errno, Op};

use crate::arm::{Arm, inline, pattern};

fn a_cancelled_receive_ends(arm: &mut Arm) {
    let pair = arm.connect();
    let (multi, multi_id) = arm.submit(Op::RecvMulti { fd: pair.server });
    let buf = BytesMut::with_capacity(10);
    let (single, single_id) = arm.submit(Op::RecvInto { fd: pair.client, buf, len: 10 });
    arm.settle();
    for (token, target) in [(multi, multi_id), (single, single_id)] {
        assert_eq!(arm.run(Op::Cancel { target }).result, Ok(0));
        let end = arm.wait(token);
        assert_eq!((end.result, end.more), (Err(Errno(libc::ECANCELED)), false));
    }
    // The connection is as it was.
    arm.send_all(pair.client, inline(b"still here"));
    assert_eq!(arm.recv_exactly(pair.server, 10), b"still here");
    arm.close(pair);
}

fn cancelling_what_has_ended_finds_nothing(arm: &mut Arm) {
    let pair = arm.connect();
    let (token, target) = arm.submit(Op::PollOut { fd: pair.client });
    arm.wait(token).result.expect("writable");
    assert_eq!(arm.run(Op::Cancel { target }).result, Err(Errno(libc::ENOENT)));
    // Also when the slot serves another operation meanwhile.
    let (recv, recv_id) = arm.submit(Op::RecvMulti { fd: pair.server });
    arm.settle();
    assert_eq!(arm.run(Op::Cancel { target }).result, Err(Errno(libc::ENOENT)));
    assert!(arm.take(recv).is_none());
    assert_eq!(arm.run(Op::Cancel { target: recv_id }).result, Ok(0));
    arm.wait(recv).result.expect_err("cancelled");
    arm.close(pair);
}

fn a_cancelled_send_tells_what_was_sent(arm: &mut Arm) {
    let pair = arm.connect();
    let len = arm.large();
    let out = inline(&pattern(0, len));
    let (send, target) = arm.submit(Op::Send { fd: pair.client, out, skip: 0, zero_copy: false });
    arm.settle();
    if arm.take(send).is_some() {
        arm.close(pair);
        return; // A short send ended by itself.
    }
    assert_eq!(arm.run(Op::Cancel { target }).result, Ok(0));
    let sent = arm.wait(send).result.expect("a part was sent") as usize;
    assert!(sent > 0 && sent < len, "{sent}");
    arm.driver.close_now(pair.client);
    assert_eq!(arm.recv_to_end(pair.server).len(), sent);
    arm.driver.close_now(pair.server);
}

fn more_operations_than_the_queue_has_entries(arm: &mut Arm) {
    let mut arm = arm.with_setup(|setup| setup.sq_entries = 8);
    let pair = arm.connect();
    let polls: Vec<_> = (0..100).map(|_| arm.submit(Op::PollOut { fd: pair.client }).0).collect();
    assert_eq!(arm.driver.in_flight(), 100);
    for token in polls {
        arm.wait(token).result.expect("writable");
    }
    assert_eq!(arm.driver.in_flight(), 0);
    arm.close(pair);
}

fn a_bell_reaches_another_shard(arm: &mut Arm) {
    let mut other = arm.second();
    other.settle();
    assert!(!other.driver.take_rung());
    arm.driver.ring_bell(1);
    other.settle();
    assert!(!other.driver.take_rung(), "it rings with the next turn");
    let mut rung = false;
    for _ in 0..1000 {
        arm.driver.turn(false, None);
        other.pump();
        rung = other.driver.take_rung();
        if rung {
            break;
        }
    }
    assert!(rung);
    assert!(!other.driver.take_rung(), "once");
    // Nobody there: nothing happens.
    arm.driver.ring_bell(3);
    arm.settle();
    assert!(!arm.driver.take_rung());
    assert_eq!(arm.driver.in_flight(), 0);
}

fn a_turn_ends_when_its_time_is_over(arm: &mut Arm) {
    let before = arm.driver.now();
    let timeout_ns = 5_000_000;
    arm.driver.turn(true, Some(timeout_ns));
    if let Some(world) = arm.world() {
        // The simulation does not wait; it says when it would have returned.
        while !world.is_ready(0) {
            assert!(world.advance(), "the end of the wait is an event");
        }
    }
    let waited = arm.driver.now().mono_ns - before.mono_ns;
    let woken_early = arm.world().is_some_and(|world| world.stats().spurious_wakes > 0);
    assert!(waited >= timeout_ns || woken_early, "{waited}");
    assert!(arm.driver.next_completion().is_none());
}

fn dropping_a_driver_ends_its_operations(arm: &mut Arm) {
    let mut other = arm.with_setup(|_| {});
    let (listener, addr) = other.listen();
    other.submit(Op::AcceptMulti { listener });
    let pair = other.connect();
    other.submit(Op::RecvMulti { fd: pair.server });
    let buf = BytesMut::with_capacity(1000);
    other.submit(Op::RecvInto { fd: pair.client, buf, len: 1000 });
    let out = inline(&pattern(0, other.large()));
    other.submit(Op::Send { fd: pair.client, out, skip: 0, zero_copy: false });
    let out = inline(&pattern(0, other.large()));
    other.submit(Op::Send { fd: pair.server, out, skip: 0, zero_copy: true });
    let fd = other.driver.socket(addr).expect("a socket");
    other.submit(Op::Connect { fd, addr });
    other.settle();
    // One that was never handed over.
    let buf = BytesMut::with_capacity(1000);
    other.submit(Op::RecvInto { fd: pair.client, buf, len: 1000 });
    assert!(other.driver.in_flight() > 0);
    let world = other.world().cloned();
    drop(other);
    if let Some(world) = world {
        while world.advance() {}
    }
}

crate::conformance!(
    a_cancelled_receive_ends,
    cancelling_what_has_ended_finds_nothing,
    a_cancelled_send_tells_what_was_sent,
    more_operations_than_the_queue_has_entries,
    a_bell_reaches_another_shard,
    a_turn_ends_when_its_time_is_over,
    dropping_a_driver_ends_its_operations,
);
