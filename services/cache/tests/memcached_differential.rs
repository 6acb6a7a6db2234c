//! memcached's protocol beside memcached 1.6.18: the transcripts, and random sequences of commands.
//!
//! What differs by nature is made equal first: CAS uniques are told as `#`, and each server is sent the ones that it told
//! itself; the seconds that an item has left are not compared. Without memcached the tests say so and pass.

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::Rng;
use common::server::{Server, Turn, free_ports, local, scratch};
use testing::Process;

include!("memcached/transcripts.in");

/// Random sequences compared, and commands in each.
const SEQUENCES: u64 = 100;
const COMMANDS: usize = 60;

/// A connection, and the CAS uniques its server has told.
struct Side {
    stream: TcpStream,
    cas: BTreeMap<String, String>,
    last_cas: String,
}

impl Side {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a server");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self { stream, cas: BTreeMap::new(), last_cas: "1".into() }
    }

    /// Sends a request, and gives its reply: what comes before that to a question of which no other has the answer.
    fn ask(&mut self, request: &str) -> String {
        const LAST: &str = "mg nobody-has-this k\r\n";
        const ANSWER: &[u8] = b"EN knobody-has-this\r\n";
        let request = format!("{request}{LAST}");
        self.stream.write_all(request.as_bytes()).expect("a request is sent");
        let mut reply = Vec::new();
        let mut buffer = [0; 65_536];
        while !reply.ends_with(ANSWER) {
            let len = self.stream.read(&mut buffer).unwrap_or_else(|error| {
                panic!("{request:?}: {error} after {:?}", String::from_utf8_lossy(&reply))
            });
            assert!(len > 0, "{request:?}: closed after {:?}", String::from_utf8_lossy(&reply));
            reply.extend_from_slice(&buffer[..len]);
        }
        reply.truncate(reply.len() - ANSWER.len());
        String::from_utf8_lossy(&reply).into_owned()
    }

    /// The same, with `{cas KEY}` in the request replaced and CAS uniques in the reply remembered and hidden.
    fn compared(&mut self, request: &str) -> String {
        let mut text = request.to_owned();
        while let Some(at) = text.find("{cas ") {
            let end = at + text[at..].find('}').expect("a closing brace");
            let known = self.cas.get(&text[at + 5..end]).cloned();
            text.replace_range(at..=end, known.as_deref().unwrap_or("999999999"));
        }
        let reply = self.ask(&text);
        let lines = reply.split("\r\n").map(|line| self.hidden(line));
        lines.collect::<Vec<_>>().join("\r\n")
    }

    fn hidden(&mut self, line: &str) -> String {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        if words[0] == "VALUE" && words.len() == 5 {
            self.cas.insert(words[1].clone(), std::mem::replace(&mut words[4], "#".into()));
        } else if words[0] == "HD" || words[0] == "VA" {
            for word in words.iter_mut().skip(1) {
                let digits = word.len() > 1 && word[1..].bytes().all(|byte| byte.is_ascii_digit());
                if digits && word.starts_with('c') {
                    self.last_cas = word[1..].into();
                    *word = "c#".into();
                } else if digits && word.starts_with('t') {
                    *word = "t#".into();
                }
            }
        }
        words.join(" ")
    }
}

/// A memcached, or why there is none.
fn memcached() -> Result<(Process, SocketAddr), String> {
    let version = Command::new("memcached").arg("-V").output();
    let version = version.map_err(|error| format!("memcached is not installed ({error})"))?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    if version != "memcached 1.6.18" {
        return Err(format!("memcached 1.6.18 is needed, found {version:?}"));
    }
    let port = free_ports(1);
    let mut command = Command::new("memcached");
    // With the maintainer, an item that waits for its place in the LRU is replaced by `decr` rather than changed.
    command.args(["-l", "127.0.0.1", "-U", "0", "-t", "1", "-u", "nobody"]);
    command.args(["-o", "no_lru_maintainer", "-p"]);
    command.arg(port.to_string()).stdout(Stdio::null());
    let address = local(port);
    let process = Process::start(command, &scratch(), || TcpStream::connect(address).is_ok())?;
    Ok((process, address))
}

/// Our server with the protocol's address.
fn ours(shards: u16) -> (Server, SocketAddr) {
    let port = free_ports(shards + 3);
    let address = local(port + shards + 2);
    let server = Server::cache_at(port, shards, &["--memcached", &address.to_string()]);
    (server, address)
}

#[test]
fn transcripts_are_what_memcached_answers() {
    let (_process, theirs) = match memcached() {
        Ok(started) => started,
        Err(why) => return println!("skipped: {why}"),
    };
    let _turn = Turn::shared();
    let mut side = Side::connect(theirs);
    for (request, reply) in TEXT.iter().chain(META) {
        if request.contains("stats") {
            // Of its own machinery.
            continue;
        }
        // A CAS unique of one digit is the last that was told.
        let mut words: Vec<String> = request.split(' ').map(str::to_owned).collect();
        for word in &mut words {
            let line_end = word.find('\r').unwrap_or(word.len());
            if line_end == 2 && word.starts_with('C') {
                word.replace_range(1..2, &side.last_cas);
            }
        }
        let got = side.compared(&words.join(" "));
        let mut ours = Side::connect(theirs);
        let reply: Vec<_> = reply.split("\r\n").map(|line| ours.hidden(line)).collect();
        assert_eq!(got, reply.join("\r\n"), "{request:?}");
    }
}

#[test]
fn random_sequences_are_answered_alike() {
    let (_process, theirs) = match memcached() {
        Ok(started) => started,
        Err(why) => return println!("skipped: {why}"),
    };
    let _turn = Turn::shared();
    for shards in [1, 2] {
        let (server, address) = ours(shards);
        for seed in 0..SEQUENCES {
            let mut rng = Rng::new(seed);
            let (mut left, mut right) = (Side::connect(theirs), Side::connect(address));
            left.ask("flush_all\r\n");
            right.ask("flush_all\r\n");
            let mut said = Vec::new();
            for _ in 0..COMMANDS {
                let request = command(&mut rng);
                said.push(request.clone());
                let (expected, got) = (left.compared(&request), right.compared(&request));
                assert_eq!(got, expected, "{shards} shards, seed {seed}: {said:#?}");
            }
        }
        assert!(server.answers(), "{}", server.log());
    }
}

/// One random request, valid or not.
fn command(rng: &mut Rng) -> String {
    let key = format!("k{}", rng.below(5));
    let flags = rng.pick(&["0", "1", "300", "70000", "4294967295"]).to_owned();
    let exptime = rng.pick(&["0", "0", "0", "1000", "-1"]).to_owned();
    let noreply = rng.pick(&["", "", "", " noreply"]).to_owned();
    let data = value(rng);
    let len = data.len();
    match rng.below(24) {
        0..4 => {
            let verb = rng.pick(&["set", "add", "replace", "append", "prepend"]);
            format!("{verb} {key} {flags} {exptime} {len}{noreply}\r\n{data}\r\n")
        }
        4 => format!("gets {key}\r\n"),
        5 => format!("cas {key} {flags} 0 {len} {{cas {key}}}{noreply}\r\n{data}\r\n"),
        6..8 => "get k0 k1 k2 nope k3 k4\r\n".to_owned(),
        8 => {
            let verb = rng.pick(&["incr", "decr"]);
            let delta = rng.pick(&["1", "7", "100", "18446744073709551615", "-1", "x"]);
            format!("{verb} {key} {delta}{noreply}\r\n")
        }
        9 => format!("delete {key}{noreply}\r\n"),
        10 => format!("touch {key} {exptime}{noreply}\r\n"),
        11 => format!("gat {exptime} {key} k0\r\n"),
        12 => format!("gats 0 {key}\r\n"),
        13..16 => format!(
            "mg {key}{}\r\n",
            flags_of(rng, "sftvhkOqu", &["N1000", "R500", "R2000", "T0", "T1000"])
        ),
        16..19 => {
            let options = ["T0", "T1000", "F9", "F80000", "MA", "MP", "ME", "MR", "MS", "MX", "I"];
            let mut flags = flags_of(rng, "kOq", &options);
            if rng.one_in(3) {
                flags.push_str(&format!(" C{{cas {key}}}"));
            }
            format!("ms {key} {len}{flags}\r\n{data}\r\n")
        }
        19 => format!("md {key}{}\r\n", flags_of(rng, "kOq", &["I", "I", "T1000"])),
        20 => format!(
            "ma {key}{}\r\n",
            flags_of(rng, "tvkOq", &["N0", "N1000", "J7", "D5", "MD", "MI", "M+"])
        ),
        21 => "set k0 0 0 3\r\nabcdef\r\n".to_owned(),
        22 => {
            format!("{} {key} {key}\r\n", rng.pick(&["set", "foo", "mg", "delete", "md", "touch"]))
        }
        _ => format!("gets k1\r\n{}", if rng.one_in(8) { "flush_all\r\n" } else { "" }),
    }
}

fn value(rng: &mut Rng) -> String {
    match rng.below(8) {
        0 => String::new(),
        1..4 => (rng.next() >> rng.below(64)).to_string(),
        4 => "x".repeat(4080 + rng.below(20)),
        5 => "y".repeat(rng.below(20_000)),
        _ => rng.pick(&["abc", "99", "9", "12 34", "  5", "-3", "1x"]).to_owned(),
    }
}

/// Some of the flags, in any order.
fn flags_of(rng: &mut Rng, letters: &str, words: &[&str]) -> String {
    let mut text = String::new();
    for letter in letters.chars() {
        if rng.one_in(3) {
            text.push_str(&format!(" {letter}"));
        }
    }
    let mut seen = String::new();
    for _ in 0..rng.below(3) {
        let word = rng.pick(words);
        if !seen.contains(&word[..1]) {
            seen.push_str(&word[..1]);
            text.push_str(&format!(" {word}"));
        }
    }
    text
}
