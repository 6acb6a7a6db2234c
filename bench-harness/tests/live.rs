//! The generator against live servers: sessions on the other runtimes. Servers that misbehave are in
//! `pathology_live` and `pathology_virtual`.

use std::net::{SocketAddr, TcpListener, TcpStream};

use bench_harness::clock::{self, MILLISECOND_NS, SECOND_NS};
use bench_harness::load::trial::{self, Timing, Transport, Trial};
use bench_harness::load::{Target, Workload};
use bench_harness::peers::Protocol;
use bench_harness::process::{CommandLine, Server};
use bench_harness::steady::Steadiness;

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

#[test]
fn a_trial_of_a_second_is_looked_at_in_windows_and_a_shorter_one_is_not() {
    let (server, addr) = host("monoio", "echo");
    // Deep, so that even a busy machine gives replies enough in each window.
    let workload = Workload::new(Protocol::Resp, 16);
    let targets = [Target::all_keys(addr)];
    trial::prefill(&workload, &targets).expect("keys are stored");
    let run = |duration_ns: u64| {
        let timing = Timing { warmup_ns: 50 * MILLISECOND_NS, duration_ns };
        trial::run(&workload, &targets, &server, 0, Transport::Ring, timing).expect("a valid trial")
    };
    let trial = run(SECOND_NS + 20 * MILLISECOND_NS);
    let windows = &trial.windows;
    assert!((9..=10).contains(&windows.ns.len()), "{windows:?}");
    assert_eq!(windows.replies.iter().sum::<u64>(), trial.replies, "{windows:?}");
    let ns: u64 = windows.ns.iter().sum();
    assert!(ns <= trial.elapsed_ns && ns > trial.elapsed_ns / 2, "{windows:?}");
    assert!(windows.cpu_ns.iter().sum::<u64>() > 0, "{windows:?}");
    assert_ne!(trial.steadiness, Steadiness::Unjudged, "{windows:?}");
    let short = run(700 * MILLISECOND_NS);
    assert_eq!((short.windows.is_empty(), short.steadiness), (true, Steadiness::Unjudged));
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
