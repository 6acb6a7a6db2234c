//! Connections.

use bytes::{Bytes, BytesMut};
use engine::driver::{Errno, Fd, ListenOptions, Op, Payload, PeerName, Token};
use view::Output;

use crate::arm::{Arm, bytes, inline, lease, output, pattern};

fn accept_takes_several_connections(arm: &mut Arm) {
    let (listener, addr) = arm.listen();
    let (accept, _) = arm.submit(Op::AcceptMulti { listener });
    let mut pairs = Vec::new();
    for round in 0..3 {
        let clients: Vec<Fd> = (0..4).map(|_| arm.driver.socket(addr).expect("a socket")).collect();
        let connects: Vec<Token> =
            clients.iter().map(|&fd| arm.submit(Op::Connect { fd, addr }).0).collect();
        for token in connects {
            assert_eq!(arm.wait(token).result, Ok(0), "round {round}");
        }
        for _ in &clients {
            let completion = arm.wait(accept);
            assert!(completion.more, "{completion:?}");
            pairs.push(completion.accepted().expect("a connection"));
        }
        pairs.extend(clients);
    }
    pairs.sort();
    pairs.dedup();
    assert_eq!(pairs.len(), 24, "each has a descriptor of its own");
    for fd in pairs {
        arm.driver.close_now(fd);
    }
    // Shutting the listener down ends the accept.
    assert_eq!(arm.run(Op::Shutdown { fd: listener, write_only: false }).result, Ok(0));
    let end = arm.wait(accept);
    assert_eq!((end.result, end.more), (Err(Errno(libc::EINVAL)), false));
    arm.driver.close_now(listener);
}

fn cancelled_accept_ends(arm: &mut Arm) {
    let (listener, _) = arm.listen();
    let (accept, id) = arm.submit(Op::AcceptMulti { listener });
    arm.settle();
    assert_eq!(arm.run(Op::Cancel { target: id }).result, Ok(0));
    let end = arm.wait(accept);
    assert_eq!((end.result, end.more), (Err(Errno(libc::ECANCELED)), false));
    arm.driver.close_now(listener);
}

fn multishot_receive_gets_data_and_the_end(arm: &mut Arm) {
    let pair = arm.connect();
    let (token, _) = arm.submit(Op::RecvMulti { fd: pair.server });
    let mut received = Vec::new();
    for round in 0..5 {
        let sent = pattern(round * 1000, 1000);
        arm.send_all(pair.client, inline(&sent));
        while received.len() < (round + 1) * 1000 {
            let completion = arm.wait(token);
            assert!(completion.more, "{completion:?}");
            let len = completion.result.expect("data") as usize;
            let lease = lease(completion.payload);
            assert_eq!(lease.len(), len);
            received.extend_from_slice(&lease);
        }
    }
    assert_eq!(received, pattern(0, 5000));
    assert_eq!(arm.run(Op::Shutdown { fd: pair.client, write_only: true }).result, Ok(0));
    let end = arm.wait(token);
    assert_eq!((end.result, end.more), (Ok(0), false));
    assert!(matches!(end.payload, Payload::Empty), "{end:?}");
    // The end stays.
    let buf = BytesMut::with_capacity(10);
    assert_eq!(arm.run(Op::RecvInto { fd: pair.server, buf, len: 10 }).result, Ok(0));
    arm.close(pair);
}

fn multishot_receive_ends_with_a_reset(arm: &mut Arm) {
    let pair = arm.connect();
    let (token, _) = arm.submit(Op::RecvMulti { fd: pair.server });
    arm.send_all(pair.server, inline(b"never read"));
    arm.run(Op::PollIn { fd: pair.client }).result.expect("readable");
    // Closing with unread data resets the connection.
    arm.driver.close_now(pair.client);
    let end = arm.wait(token);
    assert_eq!((end.result, end.more), (Err(Errno(libc::ECONNRESET)), false));
    // It is reported once; then there is nothing.
    let buf = BytesMut::with_capacity(10);
    assert_eq!(arm.run(Op::RecvInto { fd: pair.server, buf, len: 10 }).result, Ok(0));
    let send = Op::Send { fd: pair.server, out: inline(b"x"), skip: 0, zero_copy: false };
    assert_eq!(arm.run(send).result, Err(Errno(libc::EPIPE)));
    arm.driver.close_now(pair.server);
}

fn a_send_that_may_not_wait_is_whole_or_says_how_much(arm: &mut Arm) {
    let pair = arm.connect();
    let (token, _) = arm.submit(Op::SendNow { fd: pair.client, out: inline(b"now") });
    arm.settle();
    let whole = arm.take(token).expect("a turn that does not wait tells");
    let len = whole.result.expect("there is room") as usize;
    assert!(len == 3 || arm.is_rough() && (1..3).contains(&len), "{len} bytes were sent");
    assert_eq!(output(whole.payload).inline(), b"now", "the buffer comes back");
    assert_eq!(arm.recv_exactly(pair.server, len), b"now"[..len]);
    // Nobody reads: the socket fills, and then takes nothing.
    let block = pattern(0, 64 << 10);
    let mut sent = 0;
    loop {
        let (token, _) = arm.submit(Op::SendNow { fd: pair.client, out: inline(&block) });
        arm.driver.turn(false, None);
        arm.pump();
        let completion = arm.take(token).expect("it does not wait");
        let len = completion.result.expect("a full socket is no error");
        assert_eq!(output(completion.payload).len(), block.len());
        sent += len as usize;
        assert!(sent < 64 << 20, "the socket never fills");
        if len == 0 {
            break;
        }
    }
    assert!(sent > 0);
    arm.close(pair);
}

fn a_send_that_may_not_wait_fails_when_the_peer_is_gone(arm: &mut Arm) {
    let pair = arm.connect();
    arm.driver.close_now(pair.server);
    arm.settle();
    let mut failed = false;
    for _ in 0..3 {
        // The first may still go out; its answer is a reset.
        let (token, _) = arm.submit(Op::SendNow { fd: pair.client, out: inline(b"to nobody") });
        arm.driver.turn(false, None);
        arm.pump();
        failed |= arm.take(token).expect("it does not wait").result.is_err();
        arm.settle();
    }
    assert!(failed);
    arm.driver.close_now(pair.client);
}

fn data_before_a_reset_stays_readable(arm: &mut Arm) {
    let pair = arm.connect();
    arm.send_all(pair.server, inline(b"never read"));
    arm.send_all(pair.client, inline(b"last words"));
    arm.run(Op::PollIn { fd: pair.client }).result.expect("readable");
    // What has not arrived by then may be lost.
    arm.settle();
    arm.driver.close_now(pair.client);
    let hung_up = u32::from(libc::POLLHUP.cast_unsigned());
    loop {
        let ready = arm.run(Op::PollIn { fd: pair.server }).result.expect("readable");
        if ready & hung_up != 0 {
            break;
        }
        arm.pump();
    }
    assert_eq!(arm.recv_exactly(pair.server, 10), b"last words");
    let buf = BytesMut::with_capacity(10);
    let end = arm.run(Op::RecvInto { fd: pair.server, buf, len: 10 });
    assert_eq!(end.result, Err(Errno(libc::ECONNRESET)));
    assert_eq!(bytes(end.payload).len(), 0, "the buffer comes back with an error, too");
    arm.driver.close_now(pair.server);
}

fn receive_appends_to_a_buffer(arm: &mut Arm) {
    let pair = arm.connect();
    let mut buf = BytesMut::with_capacity(64);
    buf.extend_from_slice(b"have ");
    let (token, _) = arm.submit(Op::RecvInto { fd: pair.server, buf, len: 4 });
    arm.settle();
    assert!(arm.take(token).is_none(), "nothing was sent");
    arm.send_all(pair.client, inline(b"more and more"));
    let completion = arm.wait(token);
    let len = completion.result.expect("data") as usize;
    assert!((1..=4).contains(&len), "{len}");
    assert_eq!(&bytes(completion.payload)[..], &b"have more"[..5 + len]);
    assert_eq!(arm.recv_exactly(pair.server, 13 - len), b"more and more"[len..]);
    arm.close(pair);
}

fn an_empty_send_moves_nothing(arm: &mut Arm) {
    let pair = arm.connect();
    let send = Op::Send { fd: pair.client, out: inline(b"abc"), skip: 3, zero_copy: false };
    let completion = arm.run(send);
    assert_eq!(completion.result, Ok(0));
    assert_eq!(output(completion.payload).to_vec(), b"abc");
    arm.close(pair);
}

/// Inline bytes between shared segments, `len` bytes in all.
fn gathered(len: usize) -> Output {
    let mut out = Output::default();
    let mut at = 0;
    while at < len {
        out.write(&pattern(at, 100));
        let rest = (len - at - 100).min(100_000);
        out.push(Bytes::from(pattern(at + 100, rest)));
        at += 100 + rest;
    }
    out
}

fn a_large_send_waits_for_its_reader(arm: &mut Arm) {
    send_large(arm, false);
}

fn a_large_zero_copy_send_waits_for_its_reader(arm: &mut Arm) {
    send_large(arm, true);
}

fn send_large(arm: &mut Arm, zero_copy: bool) {
    let pair = arm.connect();
    let len = arm.large();
    let out = gathered(len);
    assert_eq!(out.len(), len);
    let (mut send, _) = arm.submit(Op::Send { fd: pair.client, out, skip: 0, zero_copy });
    arm.settle();
    if !arm.is_rough() {
        assert!(arm.take(send).is_none(), "sent into the void");
    }
    let (mut received, mut skip) = (0, 0);
    let (mut recv, _) = arm.submit(Op::RecvMulti { fd: pair.server });
    while received < len || skip < len {
        if let Some(completion) = arm.take(send) {
            skip += completion.result.expect("an open connection") as usize;
            let out = output(completion.payload);
            assert_eq!(out.len(), len);
            if skip < len {
                send = arm.submit(Op::Send { fd: pair.client, out, skip, zero_copy }).0;
            }
        }
        arm.pump();
        arm.receive_pattern(pair.server, &mut recv, &mut received);
    }
    assert_eq!((received, skip), (len, len));
    arm.driver.close_now(pair.client);
    assert_eq!(arm.wait(recv).result, Ok(0));
    arm.driver.close_now(pair.server);
}

fn a_zero_copy_send_returns_its_buffer(arm: &mut Arm) {
    let pair = arm.connect();
    let sent = pattern(0, 60_000);
    let (mut skip, mut out) = (0, inline(&sent));
    while skip < sent.len() {
        let send = arm.run(Op::Send { fd: pair.client, out, skip, zero_copy: true });
        skip += send.result.expect("an open connection") as usize;
        out = output(send.payload);
    }
    assert_eq!(out.to_vec(), sent);
    assert_eq!(arm.recv_exactly(pair.server, sent.len()), sent);
    arm.close(pair);
}

fn one_direction_may_end_before_the_other(arm: &mut Arm) {
    let pair = arm.connect();
    arm.send_all(pair.client, inline(b"question"));
    assert_eq!(arm.run(Op::Shutdown { fd: pair.client, write_only: true }).result, Ok(0));
    assert_eq!(arm.recv_to_end(pair.server), b"question");
    let send = Op::Send { fd: pair.client, out: inline(b"x"), skip: 0, zero_copy: false };
    assert_eq!(arm.run(send).result, Err(Errno(libc::EPIPE)));
    arm.send_all(pair.server, inline(b"answer"));
    assert_eq!(arm.run(Op::Shutdown { fd: pair.server, write_only: false }).result, Ok(0));
    assert_eq!(arm.recv_to_end(pair.client), b"answer");
    arm.close(pair);
}

fn a_full_shutdown_ends_a_receive(arm: &mut Arm) {
    let pair = arm.connect();
    let (multi, _) = arm.submit(Op::RecvMulti { fd: pair.server });
    let buf = BytesMut::with_capacity(10);
    let (single, _) = arm.submit(Op::RecvInto { fd: pair.client, buf, len: 10 });
    arm.settle();
    assert_eq!(arm.run(Op::Shutdown { fd: pair.server, write_only: false }).result, Ok(0));
    assert_eq!(arm.wait(multi).result, Ok(0));
    assert_eq!(arm.wait(single).result, Ok(0));
    arm.close(pair);
}

fn an_operation_keeps_a_closed_connection_alive(arm: &mut Arm) {
    let pair = arm.connect();
    let (recv, recv_id) = arm.submit(Op::RecvMulti { fd: pair.server });
    let buf = BytesMut::with_capacity(10);
    let (peer, _) = arm.submit(Op::RecvInto { fd: pair.client, buf, len: 10 });
    arm.settle();
    assert_eq!(arm.run(Op::Close { fd: pair.server }).result, Ok(0));
    arm.settle();
    assert!(arm.take(recv).is_none(), "closing does not end an armed receive");
    assert!(arm.take(peer).is_none(), "nor the connection it uses");
    assert_eq!(arm.run(Op::Cancel { target: recv_id }).result, Ok(0));
    assert_eq!(arm.wait(recv).result, Err(Errno(libc::ECANCELED)));
    assert_eq!(arm.wait(peer).result, Ok(0), "now it is closed");
    arm.driver.close_now(pair.client);
}

fn sending_to_a_closed_peer_fails(arm: &mut Arm) {
    let pair = arm.connect();
    arm.driver.close_now(pair.server);
    let failed = (0..1000).find_map(|_| {
        let out = inline(b"anybody there?");
        let send = Op::Send { fd: pair.client, out, skip: 0, zero_copy: false };
        let result = arm.run(send).result;
        arm.pump();
        result.err()
    });
    // EPIPE, since the peer's end arrived before its reset.
    assert_eq!(failed, Some(Errno(libc::EPIPE)));
    arm.driver.close_now(pair.client);
}

fn poll_waits_until_ready(arm: &mut Arm) {
    let pair = arm.connect();
    let (poll_in, poll_out) =
        (u32::from(libc::POLLIN.cast_unsigned()), u32::from(libc::POLLOUT.cast_unsigned()));
    assert_eq!(arm.run(Op::PollOut { fd: pair.client }).result, Ok(poll_out));
    let (token, _) = arm.submit(Op::PollIn { fd: pair.server });
    arm.settle();
    assert!(arm.take(token).is_none(), "nothing to read");
    arm.send_all(pair.client, inline(b"!"));
    assert_eq!(arm.wait(token).result, Ok(poll_in));
    assert_eq!(arm.recv_exactly(pair.server, 1), b"!");
    arm.close(pair);
}

fn a_listener_is_readable_when_somebody_waits(arm: &mut Arm) {
    let (listener, addr) = arm.listen();
    let (token, _) = arm.submit(Op::PollIn { fd: listener });
    arm.settle();
    assert!(arm.take(token).is_none(), "nobody waits");
    let fd = arm.driver.socket(addr).expect("a socket");
    assert_eq!(arm.run(Op::Connect { fd, addr }).result, Ok(0), "the backlog answers");
    assert_eq!(arm.wait(token).result, Ok(u32::from(libc::POLLIN.cast_unsigned())));
    // Closing the listener breaks what it did not accept.
    arm.driver.close_now(listener);
    let buf = BytesMut::with_capacity(10);
    let end = arm.run(Op::RecvInto { fd, buf, len: 10 });
    assert_eq!(end.result, Err(Errno(libc::ECONNRESET)));
    arm.driver.close_now(fd);
}

fn nobody_listens_means_refused(arm: &mut Arm) {
    let (listener, addr) = arm.listen();
    arm.driver.close_now(listener);
    let fd = arm.driver.socket(addr).expect("a socket");
    let connect = arm.run(Op::Connect { fd, addr });
    assert_eq!(connect.result, Err(Errno(libc::ECONNREFUSED)));
    arm.driver.close_now(fd);
}

fn both_ends_know_their_names(arm: &mut Arm) {
    let (listener, addr) = arm.listen();
    assert_eq!(arm.driver.names(listener), (PeerName::Tcp(addr), PeerName::Unknown));
    let (accept, accept_id) = arm.submit(Op::AcceptMulti { listener });
    let client = arm.driver.socket(addr).expect("a socket");
    assert_eq!(arm.run(Op::Connect { fd: client, addr }).result, Ok(0));
    let server = arm.wait(accept).accepted().expect("a connection");
    let (local, peer) = arm.driver.names(client);
    assert_eq!(peer, PeerName::Tcp(addr));
    assert_ne!(local, peer);
    assert_eq!(arm.driver.names(server), (peer, local));
    assert_eq!(arm.run(Op::Cancel { target: accept_id }).result, Ok(0));
    arm.wait(accept).result.expect_err("cancelled");
    for fd in [client, server, listener] {
        arm.driver.close_now(fd);
    }
}

fn addresses_are_shared_only_when_all_agree(arm: &mut Arm) {
    let any = "127.0.0.1:0".parse().expect("an address");
    let alone = ListenOptions::default();
    let shared = ListenOptions { shared: true, ..ListenOptions::default() };
    let first = arm.driver.listen(any, &shared).expect("a free port");
    let PeerName::Tcp(addr) = arm.driver.names(first).0 else { panic!("a TCP listener") };
    let second = arm.driver.listen(addr, &shared).expect("a shared address");
    let error = arm.driver.listen(addr, &alone).expect_err("taken");
    assert!(error.to_string().contains("EADDRINUSE"), "{error}");
    // Whichever gets the connection, somebody does.
    let accepts = [first, second].map(|listener| arm.submit(Op::AcceptMulti { listener }).0);
    let clients: Vec<Fd> = (0..16).map(|_| arm.driver.socket(addr).expect("a socket")).collect();
    for &fd in &clients {
        assert_eq!(arm.run(Op::Connect { fd, addr }).result, Ok(0));
    }
    arm.settle();
    let mut accepted = [0; 2];
    for (count, token) in accepted.iter_mut().zip(accepts) {
        while let Some(completion) = arm.take(token) {
            arm.driver.close_now(completion.accepted().expect("a connection"));
            *count += 1;
        }
    }
    assert_eq!(accepted[0] + accepted[1], 16);
    assert!(accepted.iter().all(|&count| count > 0), "{accepted:?}");
    for fd in clients {
        arm.driver.close_now(fd);
    }
    for (listener, token) in [first, second].into_iter().zip(accepts) {
        assert_eq!(arm.run(Op::Shutdown { fd: listener, write_only: false }).result, Ok(0));
        arm.wait(token).result.expect_err("shut down");
        arm.driver.close_now(listener);
    }
}

fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not(arm: &mut Arm) {
    let directory = arm.directory();
    let path = directory.join("socket");
    let options = ListenOptions::default();
    let first = arm.driver.listen_unix(&path, &options).expect("a free path");
    assert_eq!(arm.driver.names(first).0, PeerName::Unix(path.clone()));
    let error = arm.driver.listen_unix(&path, &options).expect_err("taken");
    assert!(error.to_string().contains("EADDRINUSE"), "{error}");
    arm.driver.close_now(first);
    let second = arm.driver.listen_unix(&path, &options).expect("a stale path");
    arm.driver.close_now(second);
    arm.driver.unlink(&path).expect("the socket stays behind");
    arm.driver.unlink(&path).expect_err("gone");
    arm.remove(&directory);
}

/// What a dropped connection ended must not be the next one, which gets its number.
fn a_shutdown_hits_nobody_who_gets_the_number_next(arm: &mut Arm) {
    for round in 0..20 {
        let pair = arm.connect();
        let (receive, _) = arm.submit(Op::RecvMulti { fd: pair.client });
        arm.settle();
        arm.driver.shut_down_now(pair.client);
        arm.submit(Op::Close { fd: pair.client });
        let next = arm.connect();
        let end = arm.wait(receive);
        assert_eq!((end.result, end.more), (Ok(0), false), "round {round}");
        arm.send_all(next.client, inline(b"still there"));
        assert_eq!(arm.recv_exactly(next.server, 11), b"still there");
        arm.driver.close_now(pair.server);
        arm.close(next);
    }
}

crate::conformance!(
    accept_takes_several_connections,
    cancelled_accept_ends,
    multishot_receive_gets_data_and_the_end,
    multishot_receive_ends_with_a_reset,
    a_send_that_may_not_wait_is_whole_or_says_how_much,
    a_send_that_may_not_wait_fails_when_the_peer_is_gone,
    data_before_a_reset_stays_readable,
    receive_appends_to_a_buffer,
    an_empty_send_moves_nothing,
    a_large_send_waits_for_its_reader,
    a_large_zero_copy_send_waits_for_its_reader,
    a_zero_copy_send_returns_its_buffer,
    one_direction_may_end_before_the_other,
    a_full_shutdown_ends_a_receive,
    a_shutdown_hits_nobody_who_gets_the_number_next,
    an_operation_keeps_a_closed_connection_alive,
    sending_to_a_closed_peer_fails,
    poll_waits_until_ready,
    a_listener_is_readable_when_somebody_waits,
    nobody_listens_means_refused,
    both_ends_know_their_names,
    addresses_are_shared_only_when_all_agree,
    a_stale_unix_socket_is_replaced_and_a_live_one_is_not,
);
