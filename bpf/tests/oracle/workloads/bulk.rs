//! Bytes as fast as they go, on connections that a process in the control group makes. Tells: the rate of each where it arrives,
//! and what `ss` says of the first on both hosts.
//!
//! `with`: connections, ms, and `way = "down"` to send from the server. The rate begins to be measured a while after the first byte.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Figures, Peer, With, Workload, number, quantile, text};
use crate::chaos::Fault;
use crate::client::{self, Client};
use crate::lab::{Lab, SERVER, run};

pub(crate) struct Bulk;

/// What is in buffers and windows at the begin is no rate.
const SETTLE: Duration = Duration::from_millis(250);
/// A receiver gives up after this without a byte.
const SILENCE: Duration = Duration::from_secs(3);

/// The rate is the median of so many: where others keep the processors busy for a while, one or two are too low.
const SLICES: u32 = 5;

/// Megabytes a second, from some time after the first byte on.
fn receive(mut stream: TcpStream, lasts: Duration) -> f64 {
    stream.set_read_timeout(Some(SILENCE)).expect("a timeout");
    let mut buf = vec![0; 256 << 10];
    let mut len = stream.read(&mut buf).unwrap_or(0);
    let first = Instant::now();
    let (mut from, mut all) = (None, 0);
    let mut rates = Vec::new();
    while len > 0 && rates.len() < SLICES as usize {
        len = stream.read(&mut buf).unwrap_or(0);
        let now = Instant::now();
        all += len;
        match from {
            None if now - first >= SETTLE => (from, all) = (Some(now), 0),
            Some(begin) if now - begin >= lasts / SLICES => {
                rates.push(all as f64 / 1e6 / (now - begin).as_secs_f64());
                (from, all) = (Some(now), 0);
            }
            _ => {}
        }
    }
    rates.sort_by(f64::total_cmp);
    quantile(&rates, 500)
}

/// Until the other one has enough.
fn send(mut stream: &TcpStream) {
    let bytes = vec![b'b'; 256 << 10];
    while stream.write_all(&bytes).is_ok() {}
}

/// One side of all connections: the rates, if it receives.
fn all(streams: Vec<TcpStream>, receives: bool, lasts: Duration) -> Vec<f64> {
    let one = |stream: TcpStream| {
        thread::spawn(move || {
            if receives {
                receive(stream, lasts)
            } else {
                send(&stream);
                0.0
            }
        })
    };
    let threads: Vec<_> = streams.into_iter().map(one).collect();
    threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
}

/// The client's side.
pub(crate) fn role(told: &Value) -> Value {
    let port = u16::try_from(told["port"].as_u64().expect("a port")).expect("a port");
    let connect = |_| TcpStream::connect((SERVER, port)).expect("the server listens");
    let count = told["connections"].as_u64().expect("a count");
    let streams: Vec<TcpStream> = (0..count).map(connect).collect();
    client::ready();
    let lasts = Duration::from_millis(told["ms"].as_u64().expect("a number"));
    json!(all(streams, told["way"] == "down", lasts))
}

/// A number that `ss` shows behind a name.
pub(crate) fn shown(text: &str, name: &str) -> f64 {
    let value = text.split_whitespace().find_map(|word| word.strip_prefix(name));
    let value = value.and_then(|value| value.split([',', '/']).next()?.parse().ok());
    value.unwrap_or(0.0)
}

impl Workload for Bulk {
    fn run(&self, lab: &Lab, peer: Peer, with: &With) -> Figures {
        let connections = number(with, "connections", 1);
        let ms = number(with, "ms", 700);
        let way = text(with, "way", "up");
        let told = json!({
            "connections": connections,
            "ms": ms,
            "way": way,
            "port": Peer::MATCHED.port,
        });
        let listener = lab.on_server(|| {
            TcpListener::bind((SERVER, Peer::MATCHED.port)).expect("the port is free")
        });
        let mut client = Client::start(lab, peer == Peer::MATCHED, "bulk", &told);
        client.wait_ready();
        let streams: Vec<TcpStream> =
            (0..connections).map(|_| listener.accept().expect("a connection").0).collect();
        client.go();
        let lasts = Duration::from_millis(ms);
        let server = thread::spawn({
            let receives = way == "up";
            move || all(streams, receives, lasts)
        });
        thread::sleep(SETTLE + lasts / 2);
        let ours = lab.on_client(|| run(&format!("ss -tinH dport = :{}", Peer::MATCHED.port)));
        let theirs = lab.on_server(|| run(&format!("ss -tinH sport = :{}", Peer::MATCHED.port)));
        let received_here = server.join().expect("no panic");
        let received_there: Vec<f64> = serde_json::from_value(client.finish()).expect("numbers");
        let rates = if way == "up" { received_here } else { received_there };
        let has =
            |name: &str| f64::from(u8::from(ours.split_whitespace().any(|word| word == name)));
        Figures::from([
            ("rate_least_mb_s", rates.iter().copied().fold(f64::INFINITY, f64::min)),
            ("rate_most_mb_s", rates.iter().copied().fold(0.0, f64::max)),
            ("rate_sum_mb_s", rates.iter().sum()),
            ("cwnd", shown(&ours, "cwnd:")),
            ("rto_ms", shown(&ours, "rto:")),
            ("mss_bytes", shown(&ours, "mss:")),
            ("peer_mss_bytes", shown(&theirs, "mss:")),
            ("peer_snd_wnd_bytes", shown(&theirs, "snd_wnd:")),
            ("is_reno", has("reno")),
            ("is_cubic", has("cubic")),
            ("is_bbr", has("bbr")),
        ])
    }

    fn assert_clean(&self, figures: &Figures, when: &str) {
        let least =
            [("rate_least_mb_s", 40.0), ("cwnd", 10.0), ("rto_ms", 190.0), ("is_reno", 1.0)];
        for (name, least) in least {
            assert!(figures[name] >= least, "{name} {when}: {figures:?}");
        }
    }

    fn ttl(&self) -> &'static str {
        "8s"
    }
}

/// Which settings of the client's connection are not as its application left them.
fn unusual(lab: &Lab) -> Vec<&'static str> {
    let shown_here = lab.on_client(|| run(&format!("ss -tinmH dport = :{}", Peer::MATCHED.port)));
    let buffer = shown_here.split_once(",rb").and_then(|(_, rest)| rest.split_once(','));
    let mut words = shown_here.split_whitespace();
    // Behind the rate that it has is the one that it may have, if that is limited.
    let is_paced = words.any(|word| word == "pacing_rate")
        && words.next().is_some_and(|rates| rates.contains('/'));
    let all = [
        ("pace", is_paced),
        ("cwnd", shown(&shown_here, "cwnd:") <= 2.0),
        ("window", buffer.is_some_and(|(bytes, _)| bytes.len() < 5)),
        ("algorithm", !shown_here.split_whitespace().any(|word| word == "reno")),
    ];
    all.into_iter().filter(|(_, is_unusual)| *is_unusual).map(|(name, _)| name).collect()
}

/// Whether a connection that outlives a fault loses what the fault has set, by SIGKILL or as an operator ends it.
pub(crate) fn settings_end_with_their_fault(lab: &Lab) {
    const SCENARIOS: &[(&str, &str)] = &[
        ("pace-5MB", "pace"),
        ("cwnd-2", "cwnd"),
        ("window-4k", "window"),
        ("congestion-bbr", "algorithm"),
    ];
    let ends = SCENARIOS.iter().flat_map(|one| [(one, true), (one, false)]);
    for ((scenario, setting), by_kill) in ends {
        let listener = lab.on_server(|| {
            TcpListener::bind((SERVER, Peer::MATCHED.port)).expect("the port is free")
        });
        let group = lab.cgroup.display().to_string();
        let line = [scenario, "--netns", &lab.client, "--cgroup", &group];
        let fault = Fault::inject(&line.map(str::to_owned));
        let told =
            json!({ "connections": 1, "ms": 60_000, "way": "up", "port": Peer::MATCHED.port });
        let mut client = Client::start(lab, true, "bulk", &told);
        client.wait_ready();
        let stream = listener.accept().expect("a connection").0;
        thread::spawn(move || receive(stream, Duration::from_secs(60)));
        client.go();
        thread::sleep(Duration::from_millis(100));
        let before = unusual(lab);
        assert!(before.contains(setting), "{scenario}: {before:?}");
        let traces = fault.traces.clone();
        if by_kill {
            fault.kill();
        } else {
            fault.stop();
        }
        traces.assert_gone(Duration::from_millis(500));
        thread::sleep(Duration::from_millis(100));
        assert_eq!(unusual(lab), Vec::<&str>::new(), "{scenario}, by SIGKILL: {by_kill}");
    }
}
