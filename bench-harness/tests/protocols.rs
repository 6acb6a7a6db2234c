//! The load against servers of other people, in every protocol it speaks: right replies are right,
//! wrong ones end the trial. A server that is not installed is a line that says so.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;

use bench_harness::clock::{self, MILLISECOND_NS, SECOND_NS};
use bench_harness::load::protocol::{Codec, Method, Protocol};
use bench_harness::load::trial::{self, Timing, Transport, Trial};
use bench_harness::load::{Arrivals, Target, Workload};
use bench_harness::process::{CommandLine, Server};

const BODY: &[u8] = b"some bytes of a static file";

/// A directory that is gone when the test is over.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bench-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("www")).expect("a directory");
        fs::write(path.join("www/small"), BODY).expect("a file");
        fs::write(path.join("www/large"), vec![b'l'; 300_000]).expect("a file");
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // What is left of it is no failure of the test.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn free_addr() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound")
}

/// Whether `program` is there; prints that a test is skipped when it is not.
fn is_installed(program: &str, version: &str) -> bool {
    let here = std::process::Command::new(program).arg(version).output();
    match here {
        Ok(_) => true,
        Err(error) => {
            println!("skipped: {program}: {error}");
            false
        }
    }
}

fn start(program: &str, args: &[&str], addr: SocketAddr) -> Server {
    let command = CommandLine {
        program: program.to_owned(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
    };
    let mut server = Server::start(&command, &[0, 1], 0).expect("it starts");
    bench_harness::process::pin_self_to(&[0, 1]).expect("both cores");
    let deadline_ns = clock::mono_ns() + 20 * SECOND_NS;
    while TcpStream::connect(addr).is_err() {
        if let Some(end) = server.ended() {
            panic!("{command}: {end}");
        }
        assert!(clock::mono_ns() < deadline_ns, "{command} does not listen");
        clock::sleep_ns(10 * MILLISECOND_NS);
    }
    server
}

fn try_run(
    server: &Server,
    addr: SocketAddr,
    workload: &Workload,
    transport: Transport,
) -> anyhow::Result<Trial> {
    let targets = [Target::all_keys(addr)];
    trial::prefill(workload, &targets)?;
    let timing = Timing { warmup_ns: 50 * MILLISECOND_NS, duration_ns: 150 * MILLISECOND_NS };
    trial::run(workload, &targets, server, 0, transport, timing)
}

/// Runs `workload` over both transports, closed with `pipelines` and open.
fn check(server: &Server, addr: SocketAddr, workload: &Workload, pipelines: &[u32]) {
    let mut all: Vec<Arrivals> =
        pipelines.iter().map(|&pipeline| Arrivals::Closed { pipeline }).collect();
    all.push(Arrivals::Open { rate: 2_000.0, poisson: true });
    for arrivals in all {
        let mut workload = workload.clone();
        workload.arrivals = arrivals;
        let arrivals = &workload.arrivals;
        for transport in [Transport::Ring, Transport::Plain] {
            let trial = try_run(server, addr, &workload, transport)
                .unwrap_or_else(|error| panic!("{arrivals:?} {transport:?}: {error:#}"));
            assert!(trial.replies > 50 && trial.misses == 0, "{arrivals:?} {trial:?}");
        }
    }
}

fn workload(protocol: Protocol) -> Workload {
    let mut workload = Workload::new(protocol, 1);
    workload.keys = 500;
    workload.connections = 8;
    workload.set_share = 0.3;
    workload
}

/// GETs of a file of which every byte is known.
fn static_file(protocol: Protocol) -> Workload {
    let mut workload = workload(protocol);
    workload.set_share = 0.0;
    workload.http.path = "/small".into();
    workload.http.body = Some(BODY.into());
    workload
}

#[test]
fn redis_in_resp3() {
    if !is_installed("redis-server", "--version") {
        return;
    }
    let addr = free_addr();
    let port = addr.port().to_string();
    let args = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    let server = start("redis-server", &args, addr);
    for protocol in [Protocol::Resp, Protocol::Resp3] {
        check(&server, addr, &workload(protocol), &[1, 16]);
    }
    // RESP3's null.
    let mut absent = workload(Protocol::Resp3);
    absent.keys = 100_000;
    absent.set_share = 0.0;
    let timing = Timing { warmup_ns: 50 * MILLISECOND_NS, duration_ns: 100 * MILLISECOND_NS };
    let targets = [Target::all_keys(addr)];
    let trial = trial::run(&absent, &targets, &server, 0, Transport::Ring, timing);
    assert!(trial.expect("a miss is an answer").misses > 0);
}

#[test]
fn memcached_in_text_and_meta() {
    if !is_installed("memcached", "--version") {
        return;
    }
    let addr = free_addr();
    let port = addr.port().to_string();
    let args = ["-l", "127.0.0.1", "-p", &port, "-U", "0", "-t", "1", "-u", "root"];
    let server = start("memcached", &args, addr);
    for protocol in [Protocol::Memcache, Protocol::MemcacheMeta] {
        check(&server, addr, &workload(protocol), &[1, 16]);
    }
}

fn nginx(dir: &Dir, listen: &str, addr: SocketAddr) -> Server {
    let conf = format!(
        "daemon off; worker_processes 1; pid {dir}/pid; error_log {dir}/error.log;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;\n\
         fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
         keepalive_requests 1000000000; root {dir}/www; default_type text/plain;\n\
         server {{ listen {addr}{listen};\n\
         location /post {{ return 200 'taken'; }}\n\
         location /moved {{ return 301 /small; }} }} }}\n",
        dir = dir.0.display()
    );
    let path = dir.0.join("nginx.conf");
    fs::write(&path, conf).expect("a file");
    let prefix = dir.0.to_string_lossy().into_owned();
    start("nginx", &["-p", &prefix, "-c", &path.to_string_lossy()], addr)
}

fn check_nginx(protocol: Protocol, listen: &str) {
    if !is_installed("nginx", "-v") {
        return;
    }
    let dir = Dir::new(&format!("nginx-{protocol:?}"));
    let addr = free_addr();
    let server = nginx(&dir, listen, addr);
    let small = static_file(protocol);
    check(&server, addr, &small, &[1, 8, 300]);
    let mut large = static_file(protocol);
    large.http.path = "/large".into();
    large.http.body = Some(vec![b'l'; 300_000].into());
    check(&server, addr, &large, &[1, 4]);
    let mut head = static_file(protocol);
    head.http.method = Method::Head;
    check(&server, addr, &head, &[4]);
    let mut posts = workload(protocol);
    posts.http.path = "/post".into();
    posts.http.body = Some(b"taken"[..].into());
    // Over HTTP/2 nginx takes a connection for a flood that sent 8 MB of bodies which nothing read.
    let long_body = if protocol == Protocol::Http2 { 2_000 } else { 20_000 };
    for len in [64, long_body] {
        posts.value_len_bytes = len;
        check(&server, addr, &posts, &[1, 4]);
    }
    let mut moved = static_file(protocol);
    moved.http.path = "/moved".into();
    moved.http.body = None;
    moved.http.status = Some(301);
    check(&server, addr, &moved, &[4]);

    let mut wrong = static_file(protocol);
    wrong.http.body = Some(b"some bytes of another fi1es"[..].into());
    let mut missing = static_file(protocol);
    missing.http.path = "/missing".into();
    let mut long = static_file(protocol);
    long.http.body = None;
    long.http.body_len = Some(99);
    for (workload, says) in [(wrong, "body"), (missing, "404"), (long, "expected 99")] {
        let error = try_run(&server, addr, &workload, Transport::Ring).expect_err("a wrong answer");
        assert!(format!("{error:#}").contains(says), "{error:#}");
    }
    let other = if protocol == Protocol::Http1 { Protocol::Http2 } else { Protocol::Http1 };
    let error = try_run(&server, addr, &static_file(other), Transport::Ring);
    assert!(error.is_err(), "it does not speak {other:?}");
}

#[test]
fn nginx_in_http1() {
    check_nginx(Protocol::Http1, "");
}

#[test]
fn nginx_in_http2() {
    check_nginx(Protocol::Http2, " http2");
}

#[test]
fn haproxy_in_http2() {
    if !is_installed("haproxy", "-v") {
        return;
    }
    let dir = Dir::new("haproxy");
    let addr = free_addr();
    let conf = format!(
        "global\n  nbthread 1\ndefaults\n  mode http\n  timeout client 30s\n  timeout server 30s\n  \
         timeout connect 5s\n  timeout http-keep-alive 30s\nfrontend f\n  bind {addr} proto h2\n  \
         http-request return status 200 content-type text/plain string \"{}\"\n",
        String::from_utf8_lossy(BODY)
    );
    let path = dir.0.join("haproxy.cfg");
    fs::write(&path, conf).expect("a file");
    let server = start("haproxy", &["-db", "-f", &path.to_string_lossy()], addr);
    check(&server, addr, &static_file(Protocol::Http2), &[1, 8, 300]);
    // Bodies beyond the first window of the connection.
    let mut posts = static_file(Protocol::Http2);
    posts.set_share = 0.5;
    posts.value_len_bytes = 30_000;
    check(&server, addr, &posts, &[1, 8]);
}

fn nats(dir: &Dir, addr: SocketAddr, more: &str) -> Server {
    let conf = format!("listen: \"{addr}\"\n{more}");
    let path = dir.0.join("nats.conf");
    fs::write(&path, conf).expect("a file");
    start("nats-server", &["-c", &path.to_string_lossy()], addr)
}

#[test]
fn nats_messages() {
    if !is_installed("nats-server", "--version") {
        return;
    }
    let dir = Dir::new("nats");
    let addr = free_addr();
    let server = nats(&dir, addr, "");
    for len in [0, 1, 64, 20_000] {
        let mut workload = workload(Protocol::Nats);
        workload.value_len_bytes = len;
        check(&server, addr, &workload, &[1, 16]);
    }
    let mut long = workload(Protocol::Nats);
    long.value_len_bytes = (1 << 20) + 1;
    let error = try_run(&server, addr, &long, Transport::Ring).expect_err("too long");
    assert!(format!("{error:#}").contains("max_payload"), "{error:#}");
}

/// A connection with little traffic is asked whether it is there, and left after a second if it does not say so.
#[test]
fn a_nats_server_that_asks_is_answered() {
    if !is_installed("nats-server", "--version") {
        return;
    }
    let dir = Dir::new("nats-ping");
    let addr = free_addr();
    let server = nats(&dir, addr, "ping_interval: \"250ms\"\nping_max: 3\n");
    let mut idle = workload(Protocol::Nats);
    idle.arrivals = Arrivals::Open { rate: 10.0, poisson: false };
    let timing = Timing { warmup_ns: 50 * MILLISECOND_NS, duration_ns: 3 * SECOND_NS };
    let targets = [Target::all_keys(addr)];
    let trial = trial::run(&idle, &targets, &server, 0, Transport::Ring, timing);
    assert!(trial.expect("nobody was left").replies > 10);
}

#[test]
fn another_server_is_not_taken_for_nats() {
    let server = Server::watch(std::process::id()).expect("this process");
    let error = try_run(&server, echo_server(false), &workload(Protocol::Nats), Transport::Ring);
    let text = format!("{:#}", error.expect_err("it sends CONNECT back"));
    assert!(text.contains("greets with INFO"), "{text}");
}

/// Sends back what it gets; with `spoil`, the thousandth byte of a connection changed.
fn echo_server(spoil: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    let serve = move |mut stream: TcpStream| -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let (mut buffer, mut passed) = (vec![0; 1 << 16], 0);
        loop {
            let len = stream.read(&mut buffer)?;
            if len == 0 {
                return Ok(());
            }
            if spoil && (passed..passed + len).contains(&1000) {
                buffer[1000 - passed] ^= 1;
            }
            passed += len;
            stream.write_all(&buffer[..len])?;
        }
    };
    #[expect(clippy::disallowed_methods, reason = "a server of the test's own")]
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                // The client leaves when its trial is over.
                let _ = serve(stream);
            });
        }
    });
    addr
}

#[test]
fn echoed_messages() {
    let server = Server::watch(std::process::id()).expect("this process");
    let addr = echo_server(false);
    for len in [1, 64, 20_000] {
        let mut workload = workload(Protocol::Echo);
        workload.value_len_bytes = len;
        check(&server, addr, &workload, &[1, 4]);
    }
    let error = try_run(&server, echo_server(true), &workload(Protocol::Echo), Transport::Ring);
    let text = format!("{:#}", error.expect_err("a byte is wrong"));
    assert!(text.contains("another message"), "{text}");
}

#[test]
fn probes_are_answered() {
    let addr = echo_server(false);
    let (request, reply) = Protocol::Echo.probe();
    let mut stream = TcpStream::connect(addr).expect("it listens");
    stream.write_all(request).expect("it takes it");
    let mut got = vec![0; reply.len()];
    stream.read_exact(&mut got).expect("it answers");
    assert_eq!(got, reply);
    let greeting = Codec::new(&workload(Protocol::Http2)).greeting(0);
    assert!(greeting.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
}
