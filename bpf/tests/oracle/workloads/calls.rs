//! Calls of a process in the control group, one after the other. Tells: how many succeeded, which error the others returned, who
//! answered, how long it took.
//!
//! `with`: call (connect, bind, socket, send), count, `to = "mapped"` for version 6 sockets.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType};
use serde_json::{Value, json};

use super::{Figures, Peer, With, Workload, assert_figures, number, percent, quantile, text};
use crate::client::Client;
use crate::lab::{CLIENT, Lab, SERVER};

pub(crate) struct Calls;

/// How a call ended: 0, its error number, or this when the proxy answered.
const REDIRECTED: i32 = -1;
const FROM_SERVER: u8 = b's';
const FROM_PROXY: u8 = b'p';

/// How many calls concern the neighbour's port.
const NEIGHBOURS: usize = 10;

const ERRORS: &[(i32, &str)] = &[
    (0, "succeeded_percent"),
    (REDIRECTED, "redirected_percent"),
    (libc::ECONNREFUSED, "refused_percent"),
    (libc::ETIMEDOUT, "timed_out_percent"),
    (libc::EHOSTUNREACH, "host_unreachable_percent"),
    (libc::ENETUNREACH, "net_unreachable_percent"),
    (libc::EADDRNOTAVAIL, "no_address_percent"),
    (libc::EADDRINUSE, "in_use_percent"),
    (libc::EACCES, "denied_percent"),
    (libc::EPERM, "not_permitted_percent"),
    (libc::EMFILE, "too_many_files_percent"),
    (libc::ENOBUFS, "no_buffers_percent"),
    (libc::EAGAIN, "again_percent"),
];

fn call(name: &str, to: SocketAddr) -> std::io::Result<i32> {
    match name {
        "connect" => {
            let mut byte = [0];
            TcpStream::connect(to)?.read_exact(&mut byte)?;
            return Ok(if byte[0] == FROM_PROXY { REDIRECTED } else { 0 });
        }
        "bind" => drop(TcpListener::bind((CLIENT, to.port()))?),
        "socket" => drop(rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?),
        "send" => drop(UdpSocket::bind("0.0.0.0:0")?.send_to(b"datagram", to)?),
        _ => panic!("no call {name}"),
    }
    Ok(0)
}

/// The client's side.
pub(crate) fn role(told: &Value) -> Value {
    let name = told["call"].as_str().expect("a call");
    let mapped = told["to"] == "mapped";
    let ip = if mapped { SERVER.to_ipv6_mapped().into() } else { IpAddr::from(SERVER) };
    let mut times_us = Vec::new();
    let mut all = |port: u64, count: usize| -> Vec<i32> {
        let to = SocketAddr::new(ip, u16::try_from(port).expect("a port"));
        let one = |_| {
            let begin = Instant::now();
            let end =
                call(name, to).unwrap_or_else(|error| error.raw_os_error().unwrap_or(i32::MAX));
            times_us.push(begin.elapsed().as_secs_f64() * 1e6);
            end
        };
        (0..count).map(one).collect()
    };
    let count = usize::try_from(told["count"].as_u64().expect("a count")).expect("small");
    let ends = all(told["port"].as_u64().expect("a port"), count);
    let neighbours = all(Peer::NEIGHBOUR.port.into(), NEIGHBOURS);
    json!({ "ends": ends, "neighbours": neighbours, "times_us": times_us })
}

fn serve(listeners: &[(TcpListener, u8)], done: &AtomicBool) {
    while !done.load(Ordering::Acquire) {
        let mut is_idle = true;
        for (listener, byte) in listeners {
            if let Ok((mut stream, _)) = listener.accept() {
                is_idle = false;
                let _ = std::io::Write::write_all(&mut stream, &[*byte]);
            }
        }
        if is_idle {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

fn numbers(value: &Value) -> Vec<i32> {
    serde_json::from_value(value.clone()).expect("numbers")
}

impl Workload for Calls {
    fn run(&self, lab: &Lab, peer: Peer, with: &With) -> Figures {
        let count = number(with, "count", 100);
        // Others are told by their control group alone.
        let told = json!({
            "call": text(with, "call", "connect"),
            "to": text(with, "to", ""),
            "count": count,
            "port": Peer::MATCHED.port,
        });
        let ports = [
            (Peer::MATCHED, FROM_SERVER),
            (Peer::NEIGHBOUR, FROM_SERVER),
            (Peer::PROXY, FROM_PROXY),
        ];
        let listeners = lab.on_server(|| {
            ports.map(|(peer, byte)| {
                let listener = TcpListener::bind((SERVER, peer.port)).expect("the port is free");
                listener.set_nonblocking(true).expect("a listener");
                (listener, byte)
            })
        });
        let _receivers = lab.on_server(|| {
            [Peer::MATCHED, Peer::NEIGHBOUR]
                .map(|peer| UdpSocket::bind((SERVER, peer.port)).expect("the port is free"))
        });
        let done = AtomicBool::new(false);
        let told = std::thread::scope(|scope| {
            scope.spawn(|| serve(&listeners, &done));
            let client = Client::start(lab, peer == Peer::MATCHED, "calls", &told);
            let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| client.finish()));
            done.store(true, Ordering::Release);
            told.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        figures(&told)
    }

    fn assert_clean(&self, figures: &Figures, when: &str) {
        assert_figures(
            figures,
            when,
            &[("succeeded_percent", 100.0), ("neighbour_failed_percent", 0.0)],
        );
    }
}

fn figures(told: &Value) -> Figures {
    let (ends, neighbours) = (numbers(&told["ends"]), numbers(&told["neighbours"]));
    let share =
        |number: i32| percent(ends.iter().filter(|end| **end == number).count(), ends.len());
    let mut figures: Figures =
        ERRORS.iter().map(|(number, name)| (*name, share(*number))).collect();
    let failed = neighbours.iter().filter(|end| **end != 0).count();
    let mut times: Vec<f64> = serde_json::from_value(told["times_us"].clone()).expect("numbers");
    times.sort_by(f64::total_cmp);
    figures.extend([
        ("failed_at_begin", ends.iter().take_while(|end| **end != 0).count() as f64),
        ("neighbour_failed_percent", percent(failed, neighbours.len())),
        ("time_p50_us", quantile(&times, 500)),
    ]);
    figures
}
