//! What a server costs, measured on servers of the test's own whose costs are known: system calls for a
//! request, and memory of a connection.
//!
//! Each server is this test program again, in a process of its own: a test that is ignored unless it is
//! told where to listen.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use bench_harness::clock::{self, MILLISECOND_NS, SECOND_NS};
use bench_harness::connections::{self, Point};
use bench_harness::load::arena::Values;
use bench_harness::load::trial::{self, Timing, Transport};
use bench_harness::load::{Target, Workload};
use bench_harness::peers::Protocol;
use bench_harness::process::{CommandLine, Counters, Launch, Server};

/// Tells a server where to listen.
const ADDR: &str = "BENCH_TEST_ADDR";
/// What the second server keeps for each connection.
const KEPT_BYTES: usize = 20_000;
/// A GET of a key of 16 bytes.
const GET_BYTES: usize = 36;

fn addr() -> SocketAddr {
    #[expect(clippy::disallowed_methods, reason = "how the test starts itself again")]
    let addr = std::env::var(ADDR).expect("where to listen");
    addr.parse().expect("an address")
}

/// Starts the ignored test `name` as a server.
fn start(name: &str) -> (Server, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    drop(listener);
    let program = std::env::current_exe().expect("this program");
    let args = ["--exact", name, "--ignored", "--nocapture", "--test-threads", "1"];
    let mut server = Server::launch(Launch {
        command: CommandLine {
            program: program.to_string_lossy().into_owned(),
            args: args.map(str::to_owned).to_vec(),
        },
        env: vec![(ADDR.to_owned(), addr.to_string())],
        cpus: Some(vec![0]),
        own_cpu: 1,
        data: None,
        memory_bytes: None,
    })
    .expect("it starts");
    let deadline_ns = clock::mono_ns() + 20 * SECOND_NS;
    while TcpStream::connect(addr).is_err() {
        if let Some(end) = server.ended() {
            panic!("{name}: {end}");
        }
        assert!(clock::mono_ns() < deadline_ns, "{name} does not listen");
        clock::sleep_ns(5 * MILLISECOND_NS);
    }
    (server, addr)
}

/// The value of the key that a GET asks for.
fn reply(request: &[u8], values: &Values) -> Vec<u8> {
    let digits = std::str::from_utf8(&request[22..34]).unwrap_or_default();
    let mut reply = b"$64\r\n".to_vec();
    values.write(digits.parse().unwrap_or(0), &mut reply);
    reply.extend_from_slice(b"\r\n");
    reply
}

/// What it takes of the front of `held`: the replies to GETs, and OK to each SET.
fn replies(held: &mut Vec<u8>, values: &Values) -> Vec<u8> {
    const SET_BYTES: usize = GET_BYTES + 5 + 64 + 2;
    let mut out = Vec::new();
    while held.len() >= GET_BYTES {
        let len = if held.starts_with(b"*3") { SET_BYTES } else { GET_BYTES };
        if held.len() < len {
            break;
        }
        let request: Vec<u8> = held.drain(..len).collect();
        if len == SET_BYTES {
            out.extend_from_slice(b"+OK\r\n");
        } else {
            out.extend(reply(&request, values));
        }
    }
    out
}

/// One read and one write for each request of the one connection it serves at a time.
#[test]
#[ignore = "a server, started by a test"]
fn serves_with_two_calls_a_request() {
    let listener = TcpListener::bind(addr()).expect("a free port");
    let values = Values::new(64);
    while let Ok((mut stream, _)) = listener.accept() {
        let mut request = [0; GET_BYTES];
        while matches!(stream.read(&mut request), Ok(GET_BYTES)) {
            if stream.write_all(&reply(&request, &values)).is_err() {
                break;
            }
        }
    }
}

#[test]
fn system_calls_of_a_request_are_those_it_makes() {
    let (server, addr) = start("serves_with_two_calls_a_request");
    let mut workload = Workload::new(Protocol::Resp, 1);
    workload.connections = 1;
    let timing = Timing { warmup_ns: 100 * MILLISECOND_NS, duration_ns: SECOND_NS };
    let targets = [Target::all_keys(addr)];
    let trial = trial::run(&workload, &targets, &server, 0, Transport::Plain, timing)
        .expect("a valid trial");
    assert!(trial.wait_ns_per_op >= 0.0 && trial.replies_with_warmup > trial.replies);
    match trial.syscalls_per_op {
        // The request at each end of the time may be counted by half.
        Some(calls) => assert!((calls - 2.0).abs() < 0.02, "{trial:?}"),
        None => {
            let lacks = Counters::of(server.pid()).lacks().syscalls;
            println!("skipped: {}", lacks.expect("why they are not counted"));
        }
    }
}

/// Keeps [`KEPT_BYTES`] for each connection, all of which are written once.
#[test]
#[ignore = "a server, started by a test"]
fn keeps_bytes_for_each_connection() {
    struct Connection {
        stream: TcpStream,
        held: Vec<u8>,
        _kept: Vec<u8>,
    }
    let listener = TcpListener::bind(addr()).expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let values = Values::new(64);
    // Room for all, so that growing the list is not counted.
    let mut connections: Vec<Connection> = Vec::with_capacity(4096);
    let mut part = [0; 1 << 16];
    loop {
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true).expect("a socket");
            let held = Vec::with_capacity(64);
            connections.push(Connection { stream, held, _kept: vec![1; KEPT_BYTES] });
        }
        connections.retain_mut(|connection| {
            loop {
                match connection.stream.read(&mut part) {
                    Ok(0) => return false,
                    Ok(len) => {
                        connection.held.extend_from_slice(&part[..len]);
                        let out = replies(&mut connection.held, &values);
                        connection.stream.set_nonblocking(false).expect("a socket");
                        if connection.stream.write_all(&out).is_err() {
                            return false;
                        }
                        connection.stream.set_nonblocking(true).expect("a socket");
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return true,
                    Err(_) => return false,
                }
            }
        });
        clock::sleep_ns(MILLISECOND_NS);
    }
}

#[test]
fn memory_of_a_connection_is_what_the_server_keeps_for_it() {
    connections::raise_files(2000).expect("as many files");
    for used in [false, true] {
        let (server, addr) = start("keeps_bytes_for_each_connection");
        let points = connections::grow(&server, Protocol::Resp, addr, &[0, 200, 2000], used)
            .expect("it serves");
        let slope = connections::slope(&points, |point: &Point| Some(point.rss_bytes));
        let slope = slope.expect("three points");
        let ratio = slope / KEPT_BYTES as f64;
        assert!((0.95..1.05).contains(&ratio), "{slope} of {KEPT_BYTES}, {points:?}");
        if let Some(objects) = connections::slope(&points, |point| point.objects_bytes) {
            // A socket, its file and its name at both ends; others may close some files meanwhile.
            assert!((2_000.0..40_000.0).contains(&objects), "{objects}, {points:?}");
        }
    }
}

#[test]
fn a_server_that_may_not_open_as_many_files_is_refused() {
    let (server, addr) = start("keeps_bytes_for_each_connection");
    let error = connections::grow(&server, Protocol::Resp, addr, &[0, usize::MAX >> 8], false)
        .expect_err("more than any limit");
    assert!(error.to_string().contains("files"), "{error:#}");
    let error = connections::grow(&server, Protocol::Http2, addr, &[0, 1], false)
        .expect_err("a protocol that greets");
    assert!(error.to_string().contains("greet"), "{error:#}");
}
