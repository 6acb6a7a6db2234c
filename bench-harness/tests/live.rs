//! The generator against live servers: sessions on the other runtimes, and a server that stalls.
//!
//! The stall is the harness' own trial: an open loop must report it for every request it delayed,
//! and a closed loop, which stops asking while it waits, must hide it. If the second did not hold,
//! the first would prove nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use bench_harness::clock::{self, MILLISECOND_NS, SECOND_NS};
use bench_harness::load::trial::{self, Timing, Transport, Trial};
use bench_harness::load::{Arrivals, Target, Workload};
use bench_harness::peers::Protocol;
use bench_harness::process::{CommandLine, Server};

fn free_addr() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound")
}

fn host(runtime: &str, session: &str) -> (Server, SocketAddr) {
    let addr = free_addr();
    let args = ["host", runtime, "--session", session, "--addr", &addr.to_string()];
    let command = CommandLine {
        program: env!("CARGO_BIN_EXE_bench").to_owned(),
        args: args.map(str::to_owned).to_vec(),
    };
    let mut server = Server::start(&command, &[0], 0).expect("it starts");
    let deadline_ns = clock::mono_ns() + 20 * SECOND_NS;
    while TcpStream::connect(addr).is_err() {
        if let Some(end) = server.ended() {
            panic!("{command}: {end}");
        }
        assert!(clock::mono_ns() < deadline_ns, "{command} does not listen");
        clock::sleep_ns(10 * MILLISECOND_NS);
    }
    (server, addr)
}

fn run(server: &Server, addr: SocketAddr, workload: &Workload, transport: Transport) -> Trial {
    let targets = [Target::all_keys(addr)];
    trial::prefill(workload, &targets).expect("keys are stored");
    let timing = Timing { warmup_ns: 50 * MILLISECOND_NS, duration_ns: 150 * MILLISECOND_NS };
    trial::run(workload, &targets, server, 0, transport, timing).expect("a valid trial")
}

fn check_runtime(runtime: &str) {
    for session in ["echo", "cache"] {
        let (server, addr) = host(runtime, session);
        for (len, pipeline) in [(64, 1), (64, 16), (20_000, 4)] {
            for transport in [Transport::Ring, Transport::Plain] {
                let mut workload = Workload::new(Protocol::Resp, pipeline);
                workload.value_len_bytes = len;
                workload.keys = 500;
                workload.connections = 10;
                workload.set_share = 0.3;
                let trial = run(&server, addr, &workload, transport);
                assert!(trial.replies > 0 && trial.misses == 0, "{session} {len} {trial:?}");
                assert!(trial.server_cpu_ns_per_op > 0.0);
            }
        }
    }
}

#[test]
fn sessions_run_on_monoio() {
    check_runtime("monoio");
}

#[test]
fn sessions_run_on_monoio_with_deferred_task_work() {
    check_runtime("monoio-defer");
}

#[test]
fn sessions_run_on_glommio() {
    check_runtime("glommio");
}

#[test]
fn sessions_run_on_tokio() {
    check_runtime("tokio");
}

#[test]
fn sessions_run_on_our_engine() {
    check_runtime("engine");
}

const STALL_NS: u64 = 100 * MILLISECOND_NS;

/// Answers GETs of 64 B one after the other, and every 500 ms nothing for [`STALL_NS`].
fn stalling_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    #[expect(clippy::disallowed_methods, reason = "a server of the test's own")]
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            // The client leaves when its trial is over.
            let _ = answer(stream);
        }
    });
    addr
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let values = bench_harness::load::arena::Values::new(64);
    let mut request = [0; 36];
    let mut stalled_ns = clock::mono_ns();
    loop {
        stream.read_exact(&mut request)?;
        if clock::mono_ns() - stalled_ns > 5 * STALL_NS {
            clock::sleep_ns(STALL_NS);
            stalled_ns = clock::mono_ns();
        }
        let digits = std::str::from_utf8(&request[22..34]).unwrap_or_default();
        let mut reply = b"$64\r\n".to_vec();
        values.write(digits.parse().unwrap_or(0), &mut reply);
        reply.extend_from_slice(b"\r\n");
        stream.write_all(&reply)?;
    }
}

fn stalled(arrivals: Arrivals) -> Trial {
    let mut workload = Workload::new(Protocol::Resp, 1);
    workload.connections = 1;
    workload.arrivals = arrivals;
    let targets = [Target::all_keys(stalling_server())];
    let timing = Timing { warmup_ns: STALL_NS, duration_ns: 2 * SECOND_NS };
    let server = Server::watch(std::process::id()).expect("this process");
    trial::run(&workload, &targets, &server, 0, Transport::Ring, timing).expect("a valid trial")
}

#[test]
fn an_open_loop_reports_a_stall_that_a_closed_loop_hides() {
    let open = stalled(Arrivals::Open { rate: 2_000.0, poisson: true });
    // A sixth of the time is stalled, so a sixth of the arrivals wait, half of them half of it.
    assert!(open.latency.p90_ns > STALL_NS / 4, "{open:?}");
    assert!(open.latency.p99_ns > STALL_NS / 2, "{open:?}");
    assert_eq!(open.missed, 0, "{open:?}");
    let closed = stalled(Arrivals::Closed { pipeline: 1 });
    assert!(closed.replies > 1_000, "{closed:?}");
    assert!(closed.latency.p99_ns < STALL_NS / 2, "{closed:?}");
    assert!(closed.latency.max_ns > STALL_NS * 9 / 10, "{closed:?}");
}
