//! Hostile peers: the server answers with a protocol error or closes, and everyone else is served.
//!
//! What: each test runs one attack while a well-behaved client measures its own latency. Invariants
//! asserted after every attack: the server lives, its resident memory grew by no more than a stated
//! number, and the bystander's p99 stayed within twice what it was before (or below [`FLOOR`], which
//! is what a shared two-core machine adds by itself).
//! Where next: `lifecycle.rs` for stopping and starting.
#![expect(
    clippy::disallowed_methods,
    reason = "a test drives real processes and measures real time"
)]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::Rng;
use common::resp::{Client, Reply, encode};
use common::server::{Server, Turn, must};

const MIB: u64 = 1 << 20;

/// A p99 below this is never held against the server.
const FLOOR: Duration = Duration::from_millis(15);

/// Measured before the attack, and at least this long during it.
const MEASURE: Duration = Duration::from_millis(800);

/// No single reply to the bystander may take longer, whatever the attack.
const LONGEST: Duration = Duration::from_millis(400);

/// What the bystander waited: the 99th percentile and the longest.
struct Waits {
    count: usize,
    p99: Duration,
    longest: Duration,
}

/// The bystander: SET and GET in turn, one at a time.
fn bystander(address: SocketAddr, go_on: impl Fn() -> bool) -> Waits {
    let mut client = must(Client::connect(address), "the bystander connects");
    let mut waits = Vec::new();
    let started = Instant::now();
    while started.elapsed() < MEASURE || go_on() {
        let before = Instant::now();
        let reply = must(client.words("SET bystander value"), "the bystander's SET");
        assert_eq!(reply, Reply::Simple(b"OK".to_vec()));
        waits.push(before.elapsed());
        let before = Instant::now();
        let reply = must(client.words("GET bystander"), "the bystander's GET");
        assert_eq!(reply, Reply::Bulk(b"value".to_vec()));
        waits.push(before.elapsed());
        thread::sleep(Duration::from_micros(500));
    }
    waits.sort_unstable();
    let count = waits.len();
    Waits { count, p99: waits[count * 99 / 100], longest: waits[count - 1] }
}

/// Runs an attack beside the bystander, and asserts what must hold after every attack.
fn attack(name: &str, growth_limit: u64, run: impl Fn(&Server) + Sync) {
    let _turn = Turn::alone();
    let server = Server::cache(1);
    let address = server.address();
    let quiet = bystander(address, || false);
    let before = server.rss_bytes();
    let over = AtomicBool::new(false);
    let (under, peak) = thread::scope(|scope| {
        let side = scope.spawn(|| bystander(address, || !over.load(Ordering::Relaxed)));
        let watch = scope.spawn(|| {
            let mut peak = before;
            while !over.load(Ordering::Relaxed) {
                peak = peak.max(server.rss_bytes());
                thread::sleep(Duration::from_millis(5));
            }
            peak
        });
        let attacked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&server)));
        over.store(true, Ordering::Relaxed);
        let peak = watch.join().expect("the memory watch");
        let under = side.join();
        if let Err(panic) = attacked {
            std::panic::resume_unwind(panic);
        }
        (under.expect("the bystander was served"), peak)
    });
    let growth = peak.saturating_sub(before);
    let kib = (before / 1024, growth / 1024);
    println!(
        "{name}: p99 {:?} before, {:?} of {} during, longest {:?}; memory {} + {} KiB",
        quiet.p99, under.p99, under.count, under.longest, kib.0, kib.1
    );
    assert!(server.answers(), "{name}: the server is gone: {}", server.log());
    assert!(
        growth <= growth_limit,
        "{name}: memory grew by {growth} bytes, the limit is {growth_limit}"
    );
    assert!(
        under.p99 <= FLOOR.max(quiet.p99 * 2),
        "{name}: p99 was {:?} and became {:?}",
        quiet.p99,
        under.p99
    );
    assert!(under.longest <= LONGEST, "{name}: a reply took {:?}", under.longest);
}

/// Sends bytes and reads what comes until the server closes or is silent; never blocks for long.
fn throw(address: SocketAddr, bytes: &[u8], silence: Duration) -> Vec<u8> {
    let mut stream = must(TcpStream::connect(address), "connect");
    must(stream.set_read_timeout(Some(silence)), "a timeout");
    must(stream.set_write_timeout(Some(Duration::from_secs(5))), "a timeout");
    // The server may close while we still write: that is one of its right answers.
    let _ = stream.write_all(bytes);
    let (mut got, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = stream.read(&mut chunk) {
        got.extend_from_slice(&chunk[..n]);
        if got.len() > 1 << 20 {
            break;
        }
    }
    got
}

#[test]
fn random_bytes() {
    attack("random bytes", 64 * MIB, |server| {
        let mut rng = Rng::new(7);
        for round in 0..300 {
            let len = 1 + rng.below(3000);
            let mut bytes: Vec<u8> = (0..len).map(|_| rng.next().to_le_bytes()[0]).collect();
            if round % 2 == 0 {
                // Looks like RESP for a while.
                bytes.splice(
                    0..0,
                    rng.pick(&[
                        "*3\r\n$3\r\nSET\r\n",
                        "*",
                        "*1\r\n$",
                        "*2\r\n$4\r\nECHO\r\n$10\r\n",
                        "GET ",
                    ])
                    .bytes(),
                );
            }
            let got = throw(server.address(), &bytes, Duration::from_millis(3));
            let known = got.is_empty()
                || got.starts_with(b"-ERR ")
                || got.starts_with(b"$")
                || got.starts_with(b"+");
            assert!(known, "round {round}: the reply {:?}", got.escape_ascii().to_string());
        }
    });
}

#[test]
fn flipped_bytes_in_valid_requests() {
    attack("flipped bytes", 64 * MIB, |server| {
        let mut rng = Rng::new(11);
        let mut valid = encode(&["SET", "key", "value", "EX", "100"]);
        valid.extend(encode(&["MGET", "key", "other"]));
        valid.extend(encode(&["INCRBY", "n", "5"]));
        for _ in 0..600 {
            let mut bytes = valid.clone();
            for _ in 0..=rng.below(3) {
                let at = rng.below(bytes.len());
                bytes[at] = rng.next().to_le_bytes()[0];
            }
            throw(server.address(), &bytes, Duration::from_millis(2));
        }
    });
}

#[test]
fn truncated_frames() {
    attack("truncated frames", 64 * MIB, |server| {
        let requests = [
            encode(&["SET", "k", "v"]),
            encode(&["GET", "k"]),
            b"PING\r\n".to_vec(),
            encode(&["ECHO", "hello"]),
        ];
        let replies = ["+OK\r\n", "$1\r\nv\r\n", "+PONG\r\n", "$5\r\nhello\r\n"];
        let all = requests.concat();
        for cut in 0..=all.len() {
            let mut stream = must(TcpStream::connect(server.address()), "connect");
            must(stream.set_read_timeout(Some(Duration::from_secs(10))), "a timeout");
            must(stream.write_all(&all[..cut]), "a truncated frame");
            must(stream.shutdown(std::net::Shutdown::Write), "half-close");
            let mut got = Vec::new();
            let ended = stream.read_to_end(&mut got);
            assert!(
                ended.is_ok(),
                "cut at {cut}: the server does not close after our end: {ended:?}"
            );
            let mut end = 0;
            let complete = requests.iter().take_while(|request| {
                end += request.len();
                end <= cut
            });
            // Whole requests before the end are answered; the rest is not.
            let expected: String = replies.iter().take(complete.count()).copied().collect();
            assert_eq!(String::from_utf8_lossy(&got), expected, "cut at {cut}");
        }
    });
}

#[test]
fn half_a_gigabyte_announced() {
    attack("512 MiB announced", 64 * MIB, |server| {
        let mut held = Vec::new();
        for _ in 0..50 {
            let mut stream = must(TcpStream::connect(server.address()), "connect");
            must(
                stream.write_all(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n"),
                "the announcement",
            );
            must(stream.write_all(&[b'x'; 65536]), "a little of it");
            held.push(stream);
        }
        thread::sleep(Duration::from_millis(500));
        // One byte more than the limit is refused.
        let got = throw(
            server.address(),
            b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870913\r\n",
            Duration::from_secs(5),
        );
        assert_eq!(String::from_utf8_lossy(&got), "-ERR Protocol error: invalid bulk length\r\n");
        drop(held);
        thread::sleep(Duration::from_millis(100));
    });
}

#[test]
fn arrays_of_a_million_announced() {
    attack("1 M elements announced", 64 * MIB, |server| {
        let mut held = Vec::new();
        for _ in 0..100 {
            let mut stream = must(TcpStream::connect(server.address()), "connect");
            must(stream.write_all(b"*1048576\r\n$3\r\nDEL\r\n$1\r\nk\r\n"), "the announcement");
            held.push(stream);
        }
        thread::sleep(Duration::from_millis(500));
    });
}

#[test]
fn arrays_of_a_million_sent() {
    attack("1 M elements sent", 256 * MIB, |server| {
        let mut request = b"*1048576\r\n$6\r\nEXISTS\r\n".to_vec();
        for _ in 0..1_048_575 {
            request.extend_from_slice(b"$1\r\nk\r\n");
        }
        for _ in 0..2 {
            let mut client = server.client();
            // Either it is done, or refused with a protocol error and a close.
            let sent = client.send_raw(&request);
            let reply = client.reply();
            let refused = matches!(&reply, Ok(Reply::Error(_) | Reply::Closed));
            assert!(refused || (sent.is_ok() && matches!(reply, Ok(Reply::Int(0)))), "{reply:?}");
        }
    });
}

#[test]
fn slow_loris() {
    attack("slow loris", 64 * MIB, |server| {
        let mut streams: Vec<_> =
            (0..500).map(|_| must(TcpStream::connect(server.address()), "connect")).collect();
        for byte in b"*2\r\n$4\r\nECHO\r\n$5\r\nhe" {
            for stream in &mut streams {
                let _ = stream.write_all(&[*byte]);
            }
            thread::sleep(Duration::from_millis(20));
        }
        // One of them ends its request after all: it is answered, unless it was closed.
        let mut stream = streams.pop().expect("500 streams");
        must(stream.set_read_timeout(Some(Duration::from_secs(5))), "a timeout");
        let _ = stream.write_all(b"llo\r\n");
        let mut got = [0; 11];
        if stream.read_exact(&mut got).is_ok() {
            assert_eq!(&got, b"$5\r\nhello\r\n");
        }
    });
}

#[test]
fn a_client_that_never_reads() {
    attack("never reads", 192 * MIB, |server| {
        let mut setup = server.client();
        let value = vec![b'x'; 256 * 1024];
        assert_eq!(
            must(setup.call(&[b"SET".as_slice(), b"big", &value]), "SET big"),
            Reply::Simple(b"OK".to_vec())
        );
        let mut greedy = server.client();
        let request = encode(&["GET", "big"]).repeat(4_000);
        must(greedy.stream().set_write_timeout(Some(Duration::from_secs(2))), "a timeout");
        // A gigabyte of replies asked for, none read: the server stops reading, or closes.
        let _ = greedy.send_raw(&request);
        thread::sleep(Duration::from_millis(1_000));
        // Whatever it does, the replies that come are whole and right.
        let mut whole = 0;
        loop {
            match greedy.reply() {
                Ok(Reply::Bulk(got)) => assert!(got == value, "reply {whole} is not the value"),
                Ok(Reply::Closed) | Err(_) => break,
                Ok(other) => panic!("reply {whole}: {other:?}"),
            }
            whole += 1;
            if whole == 4_000 {
                break;
            }
        }
        println!("never reads: {whole} of 4000 replies were there in the end");
    });
}

#[test]
fn many_clients_that_never_read() {
    attack("100 never read", 256 * MIB, |server| {
        let mut setup = server.client();
        let value = vec![b'x'; 16 * 1024];
        assert_eq!(
            must(setup.call(&[b"SET".as_slice(), b"big", &value]), "SET big"),
            Reply::Simple(b"OK".to_vec())
        );
        let request = encode(&["GET", "big"]).repeat(2_000);
        let mut held = Vec::new();
        for _ in 0..100 {
            let mut greedy = server.client();
            must(greedy.stream().set_write_timeout(Some(Duration::from_millis(200))), "a timeout");
            let _ = greedy.send_raw(&request);
            held.push(greedy);
        }
        thread::sleep(Duration::from_millis(3_000));
    });
}

#[test]
fn a_thousand_connections() {
    attack("1000 connections", 64 * MIB, |server| {
        let mut clients: Vec<_> = (0..1_000).map(|_| server.client()).collect();
        for round in 0..3 {
            for (index, client) in clients.iter_mut().enumerate() {
                let text = format!("{round}:{index}");
                assert_eq!(
                    must(client.call(&["ECHO", &text]), "ECHO"),
                    Reply::Bulk(text.into_bytes())
                );
            }
        }
        // Half of them vanish without a word.
        clients.truncate(500);
        for client in &mut clients {
            assert_eq!(must(client.words("PING"), "PING"), Reply::Simple(b"PONG".to_vec()));
        }
    });
}

#[test]
fn connections_that_come_and_go() {
    attack("come and go", 64 * MIB, |server| {
        for round in 0..2_000 {
            let mut stream = must(TcpStream::connect(server.address()), "connect");
            match round % 4 {
                0 => {}
                1 => drop(stream.write_all(b"*1\r\n$4\r\nPI")),
                2 => drop(stream.write_all(b"PING\r\n")),
                _ => drop(stream.write_all(&encode(&["GET", "k"]).repeat(100))),
            }
        }
    });
}

#[test]
fn a_pipeline_written_before_anything_is_read() {
    attack("write all, then read", 64 * MIB, |server| {
        let mut client = server.client();
        let value = vec![b'v'; 1024];
        assert_eq!(
            must(client.call(&[b"SET".as_slice(), b"k", &value]), "SET k"),
            Reply::Simple(b"OK".to_vec())
        );
        // What client libraries do with a long pipeline: 20 MB of replies for 0.4 MB of requests.
        must(client.send_raw(&encode(&["GET", "k"]).repeat(20_000)), "the whole pipeline");
        for index in 0..20_000 {
            let reply = must(client.reply(), "a reply of the pipeline");
            assert!(
                matches!(&reply, Reply::Bulk(got) if *got == value),
                "reply {index}: {reply:?}"
            );
        }
    });
}

/// Commands that come faster than they are run stay with the peer, but for some times what the receive pool holds.
#[test]
fn a_pipeline_that_is_faster_than_the_server() {
    attack("faster than the server", 96 * MIB, |server| {
        let mut client = server.client();
        let mut reader = must(client.stream().try_clone(), "the reading side");
        let requests = encode(&["SET", "fast", &"v".repeat(400)]).repeat(1_000);
        let times = 80 * MIB as usize / requests.len();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut left = times * 1_000 * b"+OK\r\n".len();
                let mut buffer = vec![0; 64 << 10];
                while left > 0 {
                    let got = must(reader.read(&mut buffer), "replies");
                    assert!(got > 0, "closed with {left} bytes of replies to come");
                    left = left.saturating_sub(got);
                }
            });
            for _ in 0..times {
                must(client.send_raw(&requests), "requests");
            }
        });
    });
}

/// What waits for a client that has left takes nothing, however many commands were sent at once.
#[test]
fn clients_that_leave_while_several_commands_wait() {
    for shards in [1, 2] {
        let _turn = Turn::alone();
        let server = Server::cache(shards);
        let mut waiting = TcpStream::connect(server.address()).expect("connect");
        let keys = ["a", "b", "c"];
        for key in keys {
            let frame = encode(&["BLPOP", key, "0"]);
            waiting.write_all(&frame).expect("a command is sent");
        }
        let mut other = must(Client::connect(server.address()), "another client connects");
        let blocked = |other: &mut Client, count: &str| {
            let line = format!("blocked_clients:{count}\r\n");
            let until = Instant::now() + Duration::from_secs(5);
            while Instant::now() < until {
                match must(other.words("INFO clients"), "INFO") {
                    Reply::Bulk(text) if String::from_utf8_lossy(&text).contains(&line) => return,
                    Reply::Bulk(_) => thread::sleep(Duration::from_millis(2)),
                    reply => panic!("INFO: {reply:?}"),
                }
            }
            panic!("{shards} shards: never {count} blocked clients");
        };
        blocked(&mut other, "1");
        drop(waiting);
        blocked(&mut other, "0");
        for key in keys {
            let reply = must(other.words(&format!("RPUSH {key} x")), "RPUSH");
            assert_eq!(reply, Reply::Int(1), "{shards} shards, {key}");
            let reply = must(other.words(&format!("LLEN {key}")), "LLEN");
            assert_eq!(reply, Reply::Int(1), "{shards} shards: {key} was taken by nobody");
        }
    }
}
