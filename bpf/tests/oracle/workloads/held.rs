//! Connections that are held open, idle or busy. Tells: how many are there afterwards, and what those that are not were told.
//!
//! `with`: count, `busy = true` to exchange bytes meanwhile.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Figures, Peer, With, Workload, assert_figures, number, percent};
use crate::client::{self, Client};
use crate::lab::{Lab, SERVER};

pub(crate) struct Held;

const NEIGHBOURS: usize = 5;
const TIMEOUT: Duration = Duration::from_secs(2);

/// Sends a byte, and has it back.
fn exchange(mut stream: &TcpStream) -> std::io::Result<()> {
    let mut byte = [0];
    stream.write_all(b"h")?;
    stream.read_exact(&mut byte)
}

fn connect(port: u16, count: usize) -> Vec<TcpStream> {
    let one = |_| {
        let stream = TcpStream::connect((SERVER, port)).expect("the server listens");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        exchange(&stream).expect("the server answers");
        stream
    };
    (0..count).map(one).collect()
}

/// The client's side.
pub(crate) fn role(told: &Value) -> Value {
    let count = usize::try_from(told["count"].as_u64().expect("a count")).expect("small");
    let port = u16::try_from(told["port"].as_u64().expect("a port")).expect("a port");
    let held = connect(port, count);
    let neighbours = connect(Peer::NEIGHBOUR.port, NEIGHBOURS);
    let is_over = AtomicBool::new(false);
    // The first error of a connection says what became of it; the next ones are of a closed socket.
    let mut ends: Vec<Option<ErrorKind>> = vec![None; count];
    let mut round = || {
        for (stream, end) in held.iter().zip(&mut ends).filter(|(_, end)| end.is_none()) {
            *end = exchange(stream).err().map(|error| error.kind());
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            client::ready();
            is_over.store(true, Ordering::Release);
        });
        while !is_over.load(Ordering::Acquire) {
            if told["busy"] == true {
                round();
            }
            thread::sleep(Duration::from_millis(1));
        }
    });
    round();
    let of = |kind: ErrorKind| ends.iter().filter(|end| **end == Some(kind)).count();
    json!({
        "survived": ends.iter().filter(|end| end.is_none()).count(),
        "aborted": of(ErrorKind::ConnectionAborted),
        "neighbours_lost": neighbours.iter().filter(|stream| exchange(stream).is_err()).count(),
    })
}

/// Gives each byte back; whether the connection was reset at last.
fn serve(mut stream: TcpStream) -> bool {
    let mut byte = [0];
    loop {
        match stream.read(&mut byte) {
            Ok(0) => return false,
            // It may learn of a reset when it writes, too.
            Ok(_) if stream.write_all(&byte).is_ok() => {}
            Ok(_) | Err(_) => return true,
        }
    }
}

impl Workload for Held {
    fn run(&self, lab: &Lab, peer: Peer, with: &With) -> Figures {
        self.around(lab, peer, with, &mut || {})
    }

    fn around(&self, lab: &Lab, peer: Peer, with: &With, meanwhile: &mut dyn FnMut()) -> Figures {
        let count = usize::try_from(number(with, "count", 50)).expect("small");
        let is_busy = with.get("busy").is_some_and(|value| value == true);
        let told = json!({ "count": count, "port": peer.port, "busy": is_busy });
        let listeners = lab.on_server(|| {
            [peer.port, Peer::NEIGHBOUR.port]
                .map(|port| TcpListener::bind((SERVER, port)).expect("the port is free"))
        });
        let server = thread::spawn(move || {
            let mut sessions = Vec::new();
            for (listener, count) in listeners.iter().zip([count, NEIGHBOURS]) {
                for _ in 0..count {
                    let (stream, _) = listener.accept().expect("a connection");
                    sessions.push(thread::spawn(move || serve(stream)));
                }
            }
            let ends = sessions.into_iter().map(|session| session.join().expect("no panic"));
            ends.filter(|was_reset| *was_reset).count()
        });
        let mut client = Client::start(lab, peer == Peer::MATCHED, "held", &told);
        client.wait_ready();
        meanwhile();
        client.go();
        let told = client.finish();
        let resets = server.join().expect("no panic");
        let figure =
            |name: &str| usize::try_from(told[name].as_u64().expect("a count")).expect("small");
        Figures::from([
            ("survived_percent", percent(figure("survived"), count)),
            ("aborted_percent", percent(figure("aborted"), count)),
            ("neighbours_lost_percent", percent(figure("neighbours_lost"), NEIGHBOURS)),
            ("peer_reset_percent", percent(resets, count)),
        ])
    }

    fn assert_clean(&self, figures: &Figures, when: &str) {
        assert_figures(
            figures,
            when,
            &[
                ("survived_percent", 100.0),
                ("neighbours_lost_percent", 0.0),
                ("peer_reset_percent", 0.0),
            ],
        );
    }
}
