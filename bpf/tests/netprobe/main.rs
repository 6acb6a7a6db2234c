//! The `netprobe` command, against traffic whose figures are known: two hosts of this machine, and rings of this process.
//!
//! Each test starts the command, makes the traffic, and reads the command's figures. Others use this machine too, so that
//! what is asserted of the whole host is a lower bound, and what is exact is of this test's own connections and processes.
//! Needs root: without, each is skipped. Next: `lab` of the oracle tests, `ring`.

mod cost;
#[expect(dead_code, reason = "the other tests use all of it")]
#[path = "../oracle/lab.rs"]
mod lab;
mod ring;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lab::Lab;
use ring::{ASYNC, LINK, Op, READ, Ring};
use serde_json::Value;

/// Longer than any traffic here; the command is told to end before.
const LONG: &str = "60s";
/// For what has to happen soon.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a transfer.
const BYTES: usize = 4_000_000;

/// Whether the tests can run; says so if not.
fn can_run() -> bool {
    let why_not = bpf::doctor::why_not();
    if let Some(why) = &why_not {
        println!("skipped: {why}");
    }
    why_not.is_none()
}

fn lab() -> Lab {
    static NUMBER: AtomicU32 = AtomicU32::new(1000);
    Lab::new(NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// The command, serving its figures.
struct Netprobe {
    child: Child,
    address: String,
}

impl Netprobe {
    fn serve(only: &str) -> Self {
        let mut child = command(&["--listen", "127.0.0.1:0", "--for", LONG, "--only", only])
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let stderr = child.stderr.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(stderr).read_line(&mut line).expect("it says where it listens");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
        let address = address.unwrap_or_else(|| panic!("it listens: {line}")).to_owned();
        Self { child, address }
    }

    /// The response to a request.
    fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut response = String::new();
        // One that asks for too much may be reset.
        let _ = stream.read_to_string(&mut response);
        response
    }

    /// The sum of the series of a metric whose line has all of these.
    fn metric(&self, name: &str, parts: &[&str]) -> f64 {
        let text = self.ask("GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n");
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        let is_it = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && parts.iter().all(|part| line.contains(part))
        };
        let values = text.lines().filter(is_it).filter_map(|line| line.rsplit(' ').next());
        values.map(|value| value.parse::<f64>().expect("a number")).sum()
    }

    /// Waits until a metric is at least so large.
    fn wait_for(&self, name: &str, parts: &[&str], least: f64) -> f64 {
        let begin = Instant::now();
        loop {
            let value = self.metric(name, parts);
            if value >= least {
                return value;
            }
            assert!(begin.elapsed() < PATIENCE, "{name}{parts:?} of {value}, not {least}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Netprobe {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netprobe"));
    command.args(arguments);
    command
}

/// Sends bytes from the client to the server, and waits until they were read. The client's address.
fn transfer(lab: &Lab) -> String {
    let listener = lab.on_server(|| TcpListener::bind((lab::SERVER, 0)).expect("a port is free"));
    let to = listener.local_addr().expect("it is bound");
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let (mut stream, _) = listener.accept().expect("the client comes");
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).expect("the client sends");
            assert_eq!(bytes.len(), BYTES);
        });
        let mut stream = lab.on_client(|| TcpStream::connect(to).expect("the server listens"));
        let from = stream.local_addr().expect("it is connected").to_string();
        for chunk in vec![7; BYTES].chunks(40_000) {
            stream.write_all(chunk).expect("the server reads");
        }
        drop(stream);
        server.join().expect("the server has read");
        from
    })
}

#[test]
fn a_transfer_shows_its_round_trips_bytes_and_owner() {
    if !can_run() {
        return;
    }
    let (lab, netprobe) = (lab(), Netprobe::serve("tcp"));
    let from = transfer(&lab);
    let flow = format!("local=\"{from}\"");
    let samples = netprobe.wait_for("netprobe_flow_rtt_seconds_count", &[&flow], 10.0);
    let inf = netprobe.metric("netprobe_flow_rtt_seconds_bucket", &[&flow, "le=\"+Inf\""]);
    assert!(inf >= samples, "{inf} in all buckets, {samples} in all");
    let mean = netprobe.metric("netprobe_flow_rtt_seconds_sum", &[&flow]) / samples;
    assert!((1e-6..1.0).contains(&mean), "a round trip of {mean} s on one machine");
    // The FIN counts as one, or the SYN does, by kernel.
    let bytes = netprobe.wait_for("netprobe_flow_sent_bytes", &[&flow], BYTES as f64);
    assert!(bytes <= BYTES as f64 + 2.0, "{bytes} bytes sent");
    let pid = format!("pid=\"{}\"", std::process::id());
    netprobe.wait_for("netprobe_process_sent_bytes", &[&pid], BYTES as f64);
    // Both ends are this process's.
    netprobe.wait_for("netprobe_process_received_bytes", &[&pid], BYTES as f64);
    netprobe.wait_for("netprobe_tcp_lifetime_seconds_count", &[], 1.0);
    assert!(netprobe.metric("netprobe_tcp_opened_total", &[]) >= 1.0);
}

#[test]
fn refused_openings_are_resets_and_failures() {
    if !can_run() {
        return;
    }
    let (lab, netprobe) = (lab(), Netprobe::serve("tcp"));
    for _ in 0..5 {
        let refused = lab.on_client(|| TcpStream::connect((lab::SERVER, 9)));
        assert!(refused.is_err(), "nobody listens");
    }
    netprobe.wait_for("netprobe_tcp_resets_sent_total", &[], 5.0);
    netprobe.wait_for("netprobe_tcp_resets_received_total", &[], 5.0);
    netprobe.wait_for("netprobe_tcp_open_failures_total", &[], 5.0);
}

#[test]
fn drops_have_the_name_of_their_reason_and_function() {
    if !can_run() {
        return;
    }
    let (lab, netprobe) = (lab(), Netprobe::serve("drops"));
    let socket = lab.on_client(|| UdpSocket::bind((lab::CLIENT, 0)).expect("a port is free"));
    // Not connected, so that answers of the other host are no errors.
    (0..20).for_each(|_| drop(socket.send_to(b"to nobody", (lab::SERVER, 9))));
    netprobe.wait_for("netprobe_drop_packets_total", &["reason=\"no_socket\""], 20.0);
    let site = ["reason=\"no_socket\"", "udp", "protocol=\"ipv4\""];
    netprobe.wait_for("netprobe_drop_site_packets", &site, 20.0);
}

#[test]
fn a_full_receive_queue_is_seen() {
    if !can_run() {
        return;
    }
    let (lab, netprobe) = (lab(), Netprobe::serve("drops"));
    let unread = lab.on_server(|| UdpSocket::bind((lab::SERVER, 0)).expect("a port is free"));
    let to = unread.local_addr().expect("it is bound");
    let socket = lab.on_client(|| UdpSocket::bind((lab::CLIENT, 0)).expect("a port is free"));
    (0..4000).for_each(|_| drop(socket.send_to(&[1; 1000], to)));
    netprobe.wait_for("netprobe_udp_receive_failures_total", &["error=\"enomem\""], 1.0);
}

#[test]
fn packets_wait_for_their_device() {
    if !can_run() {
        return;
    }
    let (lab, netprobe) = (lab(), Netprobe::serve("queues"));
    // A link between namespaces has no queue unless it is given one.
    lab::run(&format!("tc -n {} qdisc add dev {} root pfifo", lab.client, lab::DEVICE));
    transfer(&lab);
    netprobe.wait_for("netprobe_device_bytes_total", &[], BYTES as f64);
    // Segments of up to 64 KiB are one packet here.
    netprobe.wait_for("netprobe_qdisc_wait_seconds_count", &[], 20.0);
    netprobe.wait_for("netprobe_softirq_wait_seconds_count", &["direction=\"rx\""], 10.0);
    netprobe.wait_for("netprobe_napi_packets_total", &[], 20.0);
}

#[test]
fn every_operation_of_a_ring_has_its_latency() {
    const OPERATIONS: u32 = 10_000;
    if !can_run() {
        return;
    }
    let Some(mut ring) = Ring::open(64) else { return println!("skipped: no io_uring here") };
    let netprobe = Netprobe::serve("uring");
    for _ in 0..OPERATIONS / 50 {
        ring.submit_nops(50);
        assert_eq!(ring.reap(), 50);
    }
    let pid = format!("pid=\"{}\"", std::process::id());
    let measured = netprobe.wait_for("netprobe_uring_process_operations", &[&pid], 1.0);
    assert_eq!(measured, f64::from(OPERATIONS), "of this process");
    let count = netprobe.metric("netprobe_uring_latency_seconds_count", &["opcode=\"nop\""]);
    let submitted = netprobe.metric("netprobe_uring_submitted_total", &["opcode=\"nop\""]);
    assert!(count >= f64::from(OPERATIONS) && submitted >= count, "{count} of {submitted}");
}

#[test]
fn a_full_completion_queue_is_seen() {
    if !can_run() {
        return;
    }
    // It has room for twice as many completions as submissions.
    let Some(mut ring) = Ring::open(4) else { return println!("skipped: no io_uring here") };
    let netprobe = Netprobe::serve("uring");
    (0..5).for_each(|_| ring.submit_nops(4));
    let pid = format!("pid=\"{}\"", std::process::id());
    let overflows = netprobe.wait_for("netprobe_uring_process_overflows", &[&pid], 1.0);
    assert!((12.0..=20.0).contains(&overflows), "20 completions, room for 8: {overflows}");
    assert!(netprobe.metric("netprobe_uring_overflows_total", &[]) >= overflows);
}

#[test]
fn what_goes_to_worker_threads_and_what_is_cancelled_is_counted() {
    if !can_run() {
        return;
    }
    let Some(mut ring) = Ring::open(64) else { return println!("skipped: no io_uring here") };
    let netprobe = Netprobe::serve("uring");
    let pid = format!("pid=\"{}\"", std::process::id());
    let all = |name: &str, parts: &[&str]| netprobe.metric(name, parts);
    // Those that are done at once go to no thread.
    ring.submit_nops(40);
    assert_eq!(ring.reap(), 40);
    assert_eq!(all("netprobe_uring_process_punted", &[&pid]), 0.0);
    ring.submit(&[Op { opcode: 0, flags: ASYNC }; 40]);
    let begin = Instant::now();
    let mut done = 0;
    while done < 40 {
        done += ring.reap();
        assert!(begin.elapsed() < PATIENCE, "{done} of 40 are done");
    }
    assert_eq!(all("netprobe_uring_process_punted", &[&pid]), 40.0);
    netprobe.wait_for("netprobe_uring_punted_total", &["opcode=\"nop\""], 40.0);
    // A read from no file fails, and with it what waits for it.
    for _ in 0..10 {
        ring.submit(&[Op { opcode: READ, flags: LINK }, Op::default()]);
        assert_eq!(ring.reap(), 2);
    }
    netprobe.wait_for("netprobe_uring_link_failures_total", &[], 10.0);
}

#[test]
fn queues_of_listeners_are_seen_and_what_they_drop() {
    if !can_run() {
        return;
    }
    let lab = lab();
    let listen = |backlog| {
        let listener =
            lab.on_server(|| TcpListener::bind((lab::SERVER, 0)).expect("a port is free"));
        rustix::net::listen(&listener, backlog).expect("it listens already");
        let at = listener.local_addr().expect("it is bound");
        (listener, at, format!("local=\"{at}\""))
    };
    let connect = |to| {
        let patience = Duration::from_millis(300);
        lab.on_client(|| TcpStream::connect_timeout(&to, patience).ok())
    };
    let ((_full, full, of_full), (_half, half, of_half)) = (listen(1), listen(8));
    let netprobe = Netprobe::serve("listen");
    let figure =
        |name: &str, of: &str| netprobe.metric(&format!("netprobe_listener_{name}"), &[of]);
    assert_eq!((figure("accept_queue", &of_full), figure("dropped", &of_full)), (0.0, 0.0));
    // Nobody accepts: two are let in, others are dropped without a word.
    let held: Vec<_> = (0..4).filter_map(|_| connect(full)).collect();
    assert_eq!(held.len(), 2, "one more than the limit");
    assert_eq!(figure("accept_queue", &of_full), 2.0);
    assert_eq!(figure("accept_queue_limit", &of_full), 1.0);
    let dropped = figure("dropped", &of_full);
    assert!((2.0..=8.0).contains(&dropped), "two openings, each sent again: {dropped}");
    assert_eq!(figure("dropped", &of_half), 0.0, "it is another");
    let number = lab.on_server(|| {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata("/proc/thread-self/ns/net").expect("it is there").ino()
    });
    let netns = format!("netns=\"{number}\"");
    let overflows = netprobe.metric("netprobe_listen_overflows_total", &[&netns]);
    assert_eq!(overflows, dropped, "all of the namespace");
    assert!(netprobe.metric("netprobe_listen_drops_total", &[&netns]) >= overflows);
    // The server's answers go astray: openings wait for the third packet.
    let (server, client, device) = (&lab.server, lab::CLIENT, lab::DEVICE);
    lab::run(&format!(
        "ip -n {server} neigh replace {client} lladdr 02:00:00:00:00:99 dev {device} nud permanent"
    ));
    (0..3).for_each(|_| assert!(connect(half).is_none(), "it gets no answer"));
    assert_eq!((figure("syn_queue", &of_half), figure("accept_queue", &of_half)), (3.0, 0.0));
}

/// Kills the command, and waits until the programs that it held are gone.
fn assert_gone_with(child: &mut Child, programs: usize) {
    let ids = programs_of(child.id());
    assert!(ids.len() >= programs, "it has programs: {ids:?}");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let begin = Instant::now();
    loop {
        let all = libbpf_rs::query::ProgInfoIter::default().map(|program| program.id);
        let left: Vec<u32> = all.filter(|id| ids.contains(id)).collect();
        if left.is_empty() {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{left:?} of {ids:?} are left");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn programs_go_with_the_killed_command() {
    if !can_run() {
        return;
    }
    let mut netprobe = Netprobe::serve("tcp,drops,queues,uring,listen");
    assert_gone_with(&mut netprobe.child, 16);
    let lab = lab();
    let file = std::env::temp_dir().join(format!("netprobe-{}.pcap", std::process::id()));
    let path = file.to_str().expect("it is text");
    let mut netprobe = command(&["pcap", "--netns", &lab.client, "--dev", lab::DEVICE])
        .args(["--file", path, "--for", LONG])
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    BufReader::new(netprobe.stderr.take().expect("piped")).read_line(&mut line).expect("it says");
    assert!(line.contains("writing"), "{line}");
    assert_gone_with(&mut netprobe, 2);
    std::fs::remove_file(file).expect("it was written");
}

/// Numbers of the programs that a process holds.
fn programs_of(pid: u32) -> Vec<u32> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("it lives").flatten();
    files
        .filter_map(|file| {
            let text = std::fs::read_to_string(file.path()).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("prog_id:"))?;
            line.trim().parse().ok()
        })
        .collect()
}

#[test]
fn a_snapshot_is_json_and_sampling_takes_a_part() {
    if !can_run() {
        return;
    }
    let Some(mut ring) = Ring::open(64) else { return println!("skipped: no io_uring here") };
    let child = command(&["--json", "--for", "2s", "--only", "uring", "--sample", "10"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(1500) {
        ring.submit_nops(50);
        assert_eq!(ring.reap(), 50);
    }
    let output = child.wait_with_output().expect("it ends");
    let snapshot: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(snapshot["tcp"].is_null() && snapshot["sample_every"] == 10, "{snapshot}");
    let ops = snapshot["uring"]["ops"].as_array().expect("a list");
    let nop = ops.iter().find(|op| op["opcode"] == "nop").expect("they were submitted");
    let number = |value: &Value| value.as_f64().expect("a number");
    let share = number(&nop["latency_ns"]["count"]) / number(&nop["submitted"]);
    assert!((0.08..0.12).contains(&share), "a share of {share}: {nop}");
}

#[test]
fn bad_requests_do_not_stop_the_server() {
    if !can_run() {
        return;
    }
    let netprobe = Netprobe::serve("drops");
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(10_000));
    for (request, expected) in [
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 405"),
        ("nonsense\r\n\r\n", "HTTP/1.1 400"),
        (&long, ""),
    ] {
        let response = netprobe.ask(request);
        assert!(response.starts_with(expected), "{request:?}: {response:?}");
    }
    // One that says nothing is given up.
    let silent = TcpStream::connect(&netprobe.address).expect("it listens");
    assert_eq!(netprobe.metric("netprobe_sample_every", &[]), 1.0);
    drop(silent);
}

#[test]
fn the_terminal_and_the_account_show_what_runs() {
    if !can_run() {
        return;
    }
    for (how, expected) in
        [("--top", "TCP  "), ("--cost", "tcp_probe"), ("--cost", "Net is without")]
    {
        let output = command(&[how, "--for", "1s", "--only", "tcp"]).output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains(expected), "{how}: {output:?}");
    }
}

#[test]
fn packets_that_match_are_in_the_file() {
    if !can_run() {
        return;
    }
    let lab = lab();
    let file = std::env::temp_dir().join(format!("netprobe-match-{}.pcap", std::process::id()));
    let path = file.to_str().expect("it is text");
    let mut netprobe =
        command(&["pcap", "--netns", &lab.client, "--dev", lab::DEVICE, "--dir", "out"])
            .args(["--proto", "udp", "--dport", "7", "--dst", "10.213.0.2/32", "--snaplen", "64"])
            .args(["--file", path, "--for", "2s"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
    let mut lines = BufReader::new(netprobe.stderr.take().expect("piped")).lines();
    assert!(lines.next().expect("a line").expect("text").contains("writing"));
    let socket = lab.on_client(|| UdpSocket::bind((lab::CLIENT, 0)).expect("a port is free"));
    for number in 0..30_u8 {
        for (to, port) in [(lab::SERVER, 7), (lab::SERVER, 8), (lab::SERVER_TOO, 7)] {
            let _ = socket.send_to(&[number; 100], (to, port));
        }
    }
    assert!(netprobe.wait().expect("it ends").success());
    let last = lines.next().expect("a line").expect("text");
    assert!(last.contains("30 packets") && last.contains("0 packets lost"), "{last}");
    let bytes = std::fs::read(&file).expect("it was written");
    assert_eq!(bytes.len(), 24 + 30 * (16 + 64), "30 packets of 64 bytes");
    for (number, packet) in bytes[24..].chunks(16 + 64).enumerate() {
        let word = |at: usize| u32::from_ne_bytes(packet[at..at + 4].try_into().expect("four"));
        assert_eq!((word(8), word(12)), (64, 142), "kept, and the whole packet");
        // Behind the headers of Ethernet, IP and UDP.
        assert!(packet[16 + 42..].iter().all(|byte| usize::from(*byte) == number), "in order");
    }
    std::fs::remove_file(file).expect("it was written");
}
