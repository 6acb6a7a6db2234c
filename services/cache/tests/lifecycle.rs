//! Starting and stopping: SIGTERM under load, restarts, taken ports.
//!
//! Invariants asserted: after SIGTERM the server ends with exit code 0; on every connection the replies
//! received are whole, right and in order, so a request got its full reply or none; the same port
//! serves again within a second; a port that is taken is an error that names it, never a second server
//! on the same port.
//! Where next: `hostile.rs` for peers that do not behave.
#![expect(
    clippy::disallowed_methods,
    reason = "a test drives real processes and measures real time"
)]

mod common;

use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::resp::{Client, Reply, encode, is_hangup};
use common::server::{Server, Turn, cache_command, free_ports, local, must};

/// How long the server may take to drain and end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A restart must answer within this.
const RESTART_LIMIT: Duration = Duration::from_secs(1);

const BIG: usize = 20_000;

/// Reads to the end and checks every reply: `INCR` and `GET big` in turn. Returns how many came.
fn check_replies(client: &mut Client, who: usize, received: &AtomicUsize) -> usize {
    let big = vec![b'b'; BIG];
    for count in 0.. {
        received.store(count, Ordering::Relaxed);
        let reply = client
            .reply()
            .unwrap_or_else(|error| panic!("connection {who}, after {count} replies: {error}"));
        match reply {
            Reply::Closed => return count,
            Reply::Int(value) if count % 2 == 0 => {
                assert_eq!(
                    usize::try_from(value).ok(),
                    Some(count / 2 + 1),
                    "connection {who}: a gap in the replies"
                );
            }
            Reply::Bulk(got) if count % 2 == 1 => {
                assert!(got == big, "connection {who}, reply {count} is not the value")
            }
            other => panic!("connection {who}, reply {count}: {other:?}"),
        }
    }
    unreachable!("the loop ends with the connection")
}

fn set_big(server: &Server) {
    let value = vec![b'b'; BIG];
    let reply = must(server.client().call(&[b"SET".as_slice(), b"big", &value]), "SET big");
    assert_eq!(reply, Reply::Simple(b"OK".to_vec()));
}

fn batch(who: usize, pairs: usize) -> Vec<u8> {
    let mut one = encode(&["INCR", &format!("counter:{who}")]);
    one.extend(encode(&["GET", "big"]));
    one.repeat(pairs)
}

/// Sends batches until the server hangs up, with at most `window` replies outstanding.
fn keep_writing(mut stream: TcpStream, who: usize, window: usize, received: &AtomicUsize) {
    let requests = batch(who, 16);
    let mut sent = 0;
    loop {
        while sent >= received.load(Ordering::Relaxed).saturating_add(window) {
            thread::sleep(Duration::from_micros(100));
        }
        match stream.write_all(&requests) {
            Ok(()) => sent += 32,
            Err(error) if is_hangup(&error) => return,
            Err(error) => panic!("connection {who}: {error}"),
        }
    }
}

/// Eight clients that write on one thread and read on another until the server hangs up; every other one
/// never waits for replies, so that its requests pile up in the socket.
fn stop_under_load(shards: u16) {
    let _turn = Turn::alone();
    let mut server = Server::cache(shards);
    set_big(&server);
    let counts: Vec<_> = (0..8).map(|_| AtomicUsize::new(0)).collect();
    let total: usize = thread::scope(|scope| {
        let mut readers = Vec::new();
        for (who, received) in counts.iter().enumerate() {
            let mut client = server.client();
            let writing = client.stream().try_clone().expect("a second handle");
            let window = if who % 2 == 0 { 128 } else { usize::MAX };
            scope.spawn(move || keep_writing(writing, who, window, received));
            readers.push(scope.spawn(move || {
                let count = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    check_replies(&mut client, who, received)
                }));
                // Whatever came of it, the writer must end too.
                received.store(usize::MAX, Ordering::Relaxed);
                let _ = client.stream().shutdown(Shutdown::Both);
                count.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            }));
        }
        // Under way means under way: a busy machine gets there later.
        let deadline = Instant::now() + Duration::from_secs(20);
        let so_far = || counts.iter().map(|count| count.load(Ordering::Relaxed)).sum::<usize>();
        while so_far() < 4_000 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        server.terminate();
        let counts = readers.into_iter().map(|reader| reader.join().expect("only whole replies"));
        counts.sum()
    });
    println!("{shards} shard(s): {total} replies, none broken");
    assert!(total > 1_000, "the load was only {total} replies");
    let status =
        server.wait(STOP_TIMEOUT).unwrap_or_else(|| panic!("still running: {}", server.log()));
    assert_eq!(status.code(), Some(0), "{}", server.log());
}

#[test]
fn sigterm_under_pipelined_load_with_one_shard() {
    stop_under_load(1);
}

#[test]
fn sigterm_under_pipelined_load_with_two_shards() {
    stop_under_load(2);
}

#[test]
fn sigterm_right_after_a_pipeline_was_sent() {
    let _turn = Turn::alone();
    for round in 0..5 {
        let mut server = Server::cache(1);
        set_big(&server);
        let mut clients: Vec<_> = (0..10).map(|_| server.client()).collect();
        for (who, client) in clients.iter_mut().enumerate() {
            must(client.send_raw(&batch(who, 200)), "the pipeline");
        }
        thread::sleep(Duration::from_millis(round));
        server.terminate();
        let counts: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(who, client)| check_replies(client, who, &AtomicUsize::new(0)))
            .collect();
        println!("round {round}: replies per connection {counts:?} of 400");
        let status =
            server.wait(STOP_TIMEOUT).unwrap_or_else(|| panic!("still running: {}", server.log()));
        assert_eq!(status.code(), Some(0), "{}", server.log());
    }
}

#[test]
fn sigterm_with_idle_and_half_open_connections() {
    let _turn = Turn::shared();
    let mut server = Server::cache(2);
    let mut idle: Vec<_> = (0..100).map(|_| server.client()).collect();
    for client in &mut idle[..50] {
        must(client.send_raw(b"*2\r\n$4\r\nECHO\r\n$5\r\nhel"), "half a request");
    }
    server.terminate();
    let started = Instant::now();
    let status = server
        .wait(STOP_TIMEOUT)
        .unwrap_or_else(|| panic!("idle connections hold it: {}", server.log()));
    assert_eq!(status.code(), Some(0), "{}", server.log());
    println!("stopped with 100 connections in {:?}", started.elapsed());
    for client in &mut idle {
        assert_eq!(must(client.reply(), "the end"), Reply::Closed);
    }
}

#[test]
fn sigterm_with_a_client_that_never_reads_still_ends() {
    let _turn = Turn::shared();
    let mut server = Server::cache(1);
    set_big(&server);
    let mut greedy = server.client();
    must(greedy.stream().set_write_timeout(Some(Duration::from_millis(500))), "a timeout");
    let _ = greedy.send_raw(&encode(&["GET", "big"]).repeat(5_000));
    server.terminate();
    let wait = Duration::from_secs(20);
    let status = server
        .wait(wait)
        .unwrap_or_else(|| panic!("a client that never reads holds it: {}", server.log()));
    assert_eq!(status.code(), Some(0), "{}", server.log());
}

#[test]
fn restart_on_the_same_port_within_a_second() {
    let _turn = Turn::alone();
    for shards in [1, 2] {
        let port = free_ports(shards + 2);
        let mut server = Server::cache_at(port, shards, &[]);
        let mut clients: Vec<_> = (0..20).map(|_| server.client()).collect();
        for client in &mut clients {
            assert_eq!(must(client.words("SET k v"), "SET"), Reply::Simple(b"OK".to_vec()));
        }
        server.terminate();
        let status =
            server.wait(STOP_TIMEOUT).unwrap_or_else(|| panic!("still running: {}", server.log()));
        assert_eq!(status.code(), Some(0), "{}", server.log());
        let started = Instant::now();
        let again = Server::cache_at(port, shards, &[]);
        let took = started.elapsed();
        println!("{shards} shard(s): answered {took:?} after the start");
        assert!(took < RESTART_LIMIT, "the restart took {took:?}");
        assert_eq!(
            must(again.client().words("GET k"), "GET"),
            Reply::Nil,
            "nothing was to be kept"
        );
    }
}

/// Starts the binary where something listens already; it must end by itself with an error.
fn must_refuse(port: u16, shards: u16, taken: &[u16], what: &str) {
    let mut command = cache_command(port, shards);
    let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary starts");
    let deadline = Instant::now() + Duration::from_secs(5);
    let ended = loop {
        if child.try_wait().expect("the child is ours").is_some() {
            break true;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            break false;
        }
        thread::sleep(Duration::from_millis(5));
    };
    let output = child.wait_with_output().expect("its output");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(ended, "{what}: it runs although {taken:?} is taken: {stderr}");
    assert!(
        output.status.code().is_some_and(|code| code != 0),
        "{what}: {}: {stderr}",
        output.status
    );
    assert!(
        taken.iter().any(|port| stderr.contains(&port.to_string())),
        "{what}: the error names none of {taken:?}: {stderr}"
    );
    assert!(!stderr.contains("panicked"), "{what}: a panic is no error message: {stderr}");
}

#[test]
fn a_taken_port_is_an_error() {
    let _turn = Turn::shared();
    let port = free_ports(4);
    let listener = TcpListener::bind(local(port)).expect("the port was free");
    must_refuse(port, 2, &[port], "the shared port");
    drop(listener);
    let listener = TcpListener::bind(local(port + 2)).expect("the port was free");
    must_refuse(port, 2, &[port + 2], "a shard's own port");
    drop(listener);
    let listener = TcpListener::bind(local(port + 3)).expect("the port was free");
    must_refuse(port, 2, &[port + 3], "the admin port");
    drop(listener);
}

#[test]
fn a_second_server_on_the_same_port_is_an_error() {
    let _turn = Turn::shared();
    let port = free_ports(3);
    let first = Server::cache_at(port, 1, &[]);
    // SO_REUSEPORT would let both in, and split the clients between them.
    must_refuse(port, 1, &[port, port + 1, port + 2], "a second server");
    assert!(first.answers(), "the first server still serves: {}", first.log());
}

/// INFO tells what the process has used, whichever shard answers.
#[test]
fn info_tells_resident_memory() {
    let _turn = Turn::shared();
    let server = Server::cache(2);
    let mut client = server.client();
    let started = Instant::now();
    loop {
        let Reply::Bulk(text) = must(client.words("INFO memory"), "INFO") else {
            panic!("INFO is a text");
        };
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().find_map(|line| line.strip_prefix("used_memory_rss:"));
        let told: u64 = line.expect("a line").parse().expect("a number");
        let seen = server.rss_bytes();
        if told.abs_diff(seen) < seen / 2 {
            return;
        }
        assert!(started.elapsed() < STOP_TIMEOUT, "told {told}, seen {seen}");
        thread::sleep(Duration::from_millis(50));
    }
}
