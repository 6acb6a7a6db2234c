//! Replies recorded from redis-server 7.0.15, replayed on a session over RESP2 and RESP3; and
//! random commands against a running redis-server, when there is one.
//!
//! `/tmp/ro/recorded`: `> command` in inline syntax, then `2 reply` and, where it differs,
//! `3 reply`, escaped. A `~` instead of `>` compares the reply's elements in any order. Record again
//! with `cargo test -p cache --test golden -- --ignored record` on a machine with redis-server.



use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::support::Host;
use wire::resp::{
    Args, Limits, ParseState, Parsed, Reply, decode_reply, parse_command, skip_reply,
};

/// One command and what Redis replied.
struct Case {
    unordered: bool,
    line: String,
    replies: [Option<String>; 2],
}

fn folder() -> PathBuf {
    Path::new("/tmp/ro/recorded").into()
}

fn files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "txt"))
        .collect();
    files.sort();
    files
}

fn parse(text: &str) -> Vec<Result<String, Case>> {
    let mut items: Vec<Result<String, Case>> = Vec::new();
    for line in text.lines() {
        match line.split_at_checked(2) {
            Some((mark @ ("> " | "~ "), command)) => items.push(Err(Case {
                unordered: mark == "~ ",
                line: command.into(),
                replies: [None, None],
            })),
            Some((mark @ ("2 " | "3 "), reply)) => {
                let Some(Err(case)) = items.last_mut() else { panic!("a reply without command") };
                case.replies[usize::from(mark == "3 ")] = Some(reply.into());
            }
            _ => items.push(Ok(line.into())),
        }
    }
    items
}

fn words(line: &str) -> Vec<Vec<u8>> {
    let frame = format!("{line}\r\n").into_bytes();
    let mut args = Args::new();
    let parsed = parse_command(&frame, &mut args, &Limits::DEFAULT, &mut ParseState::new());
    assert!(matches!(parsed, Parsed::Command { .. }), "{line}: {parsed:?}");
    (0..args.len()).map(|index| args.get(index, &frame).to_vec()).collect()
}

fn encode(line: &str) -> Vec<u8> {
    // As it is: protocol errors and inline commands.
    if let Some(raw) = line.strip_prefix("RAW ") {
        return words(raw).concat();
    }
    let words = words(line);
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    super::support::encode(&words)
}

fn escape(reply: &[u8]) -> String {
    reply.escape_ascii().to_string()
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    loop {
        rest = match rest {
            [] => return bytes,
            [b'\\', b'x', high, low, tail @ ..] => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).expect("ascii");
                bytes.push(u8::from_str_radix(digits, 16).expect("hexadecimal"));
                tail
            }
            [b'\\', letter, tail @ ..] => {
                bytes.push(match letter {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    other => *other,
                });
                tail
            }
            [byte, tail @ ..] => {
                bytes.push(*byte);
                tail
            }
        };
    }
}

/// Elements in a fixed order; those of a flat map stay in pairs.
fn sorted(reply: &[u8], pairs: bool) -> Vec<String> {
    let show = |reply: &Reply| format!("{reply:?}");
    let mut items: Vec<String> = match decode_reply(reply) {
        Ok(Some((Reply::Array(items), _))) if pairs => {
            items.chunks(2).map(|pair| pair.iter().map(show).collect()).collect()
        }
        Ok(Some((Reply::Array(items) | Reply::Set(items), _))) => items.iter().map(show).collect(),
        Ok(Some((Reply::Map(items), _))) => {
            items.iter().map(|(key, value)| show(key) + &show(value)).collect()
        }
        other => panic!("not a collection: {other:?}"),
    };
    items.sort();
    items
}

#[test]
fn recorded_replies_are_ours() {
    let mut failures = String::new();
    let mut count = 0;
    for path in files() {
        let text = std::fs::read_to_string(&path).expect("it can be read");
        for version in [2, 3] {
            let mut host = Host::new(1);
            let mut conn = host.connect(0, false);
            if version == 3 {
                host.command(conn, &["HELLO", "3"]);
            }
            for case in parse(&text).into_iter().filter_map(Result::err) {
                let [two, three] = case.replies;
                let expected = if version == 3 { three.or(two) } else { two };
                let expected = unescape(&expected.expect("recorded"));
                let reply = host.send(conn, &encode(&case.line));
                let pairs = case.line.to_lowercase().starts_with("config");
                let equal = if case.unordered {
                    sorted(&reply, pairs) == sorted(&expected, pairs)
                } else {
                    reply == expected
                };
                count += 1;
                if !equal {
                    let _ = writeln!(
                        failures,
                        "RESP{version} {}\n  redis {}\n  we    {}",
                        case.line,
                        escape(&expected),
                        escape(&reply),
                    );
                }
                if host.is_closed(conn) {
                    conn = host.connect(0, false);
                    if version == 3 {
                        host.command(conn, &["HELLO", "3"]);
                    }
                }
            }
        }
    }
    assert!(count >= 600, "only {count} replies were compared");
    assert!(failures.is_empty(), "\n{failures}");
}

/// A redis-server of this test's own, on a Unix socket.
struct Redis {
    child: Child,
    folder: PathBuf,
}

impl Redis {
    fn start(name: &str) -> Option<Self> {
        let folder = std::env::temp_dir().join(format!("cache-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).ok()?;
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--enable-debug-command", "yes", "--unixsocket"])
            .arg(folder.join("socket"))
            .arg("--dir")
            .arg(&folder)
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        Some(Self { child, folder })
    }

    fn connect(&self) -> UnixStream {
        for _ in 0..1000 {
            if let Ok(stream) = UnixStream::connect(self.folder.join("socket")) {
                return stream;
            }
            pause();
        }
        panic!("redis-server does not listen");
    }
}

#[expect(clippy::disallowed_methods, reason = "another process is waited for")]
fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(10));
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Sends one command; its reply, and whether the connection was closed.
fn ask(stream: &mut UnixStream, bytes: &[u8]) -> (Vec<u8>, bool) {
    stream.write_all(bytes).expect("redis takes it");
    let mut reply = Vec::new();
    let mut buffer = [0; 65536];
    loop {
        if let Ok(Some(len)) = skip_reply(&reply)
            && len == reply.len()
        {
            // An error of the protocol is followed by a close.
            let quit = b"*1\r\n$4\r\nQUIT\r\n";
            let closes = reply.starts_with(b"-ERR Protocol error") || bytes == quit;
            return (reply, closes);
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return (reply, true),
            Ok(len) => reply.extend_from_slice(&buffer[..len]),
        }
    }
}

#[test]
#[ignore = "rewrites the golden files from redis-server"]
fn record() {
    for path in files() {
        let text = std::fs::read_to_string(&path).expect("it can be read");
        let mut items = parse(&text);
        for version in [2, 3] {
            let redis = Redis::start("record").expect("redis-server is needed");
            let connect = || {
                let mut stream = redis.connect();
                if version == 3 {
                    ask(&mut stream, b"HELLO 3\r\n");
                }
                stream
            };
            let mut stream = connect();
            for case in items.iter_mut().filter_map(|item| item.as_mut().err()) {
                let (reply, closed) = ask(&mut stream, &encode(&case.line));
                case.replies[version - 2] = Some(escape(&reply));
                if closed {
                    stream = connect();
                }
            }
        }
        let mut text = String::new();
        for item in items {
            match item {
                Ok(line) => text.push_str(&line),
                Err(case) => {
                    let mark = if case.unordered { '~' } else { '>' };
                    let [two, three] = case.replies;
                    let _ = write!(text, "{mark} {}\n2 {}", case.line, two.clone().expect("asked"));
                    if three != two {
                        let _ = write!(text, "\n3 {}", three.expect("asked"));
                    }
                }
            }
            text.push('\n');
        }
        std::fs::write(&path, text).expect("it can be written");
    }
}

/// Random commands over few keys, with options that fit and that do not.
fn random_command(random: &mut impl FnMut(usize) -> usize) -> String {
    let key = |random: &mut dyn FnMut(usize) -> usize| format!("k{}", random(6));
    let numbers = ["0", "1", "-1", "3", "17", "100000", "x", "9223372036854775807", "-9223372036854775808"];
    let values = ["", "a", "abcabc", "12", "-7", "3.25", "1e3", "0x10", "00", "hello world!"];
    let number = numbers[random(numbers.len())];
    let value = values[random(values.len())];
    let (one, two) = (key(random), key(random));
    match random(34) {
        0 => format!("SET {one} \"{value}\""),
        1 => format!("SET {one} \"{value}\" NX GET"),
        2 => format!("SET {one} \"{value}\" XX KEEPTTL"),
        3 => format!("SET {one} {number} EXAT {}", 2_000_000_000 + random(9)),
        4 => format!("GET {one}"),
        5 => format!("INCRBY {one} {number}"),
        6 => format!("DECRBY {one} {number}"),
        7 => format!("INCRBYFLOAT {one} \"{value}\""),
        8 => format!("APPEND {one} \"{value}\""),
        9 => format!("SETRANGE {one} {} \"{value}\"", random(20)),
        10 => format!("GETRANGE {one} {} {}", random(12) as i64 - 6, random(12) as i64 - 6),
        11 => format!("STRLEN {one}"),
        12 => format!("MSET {one} \"{value}\" {two} {number}"),
        13 => format!("MSETNX {one} \"{value}\" {two} {number}"),
        14 => format!("MGET {one} {two} k9"),
        15 => format!("DEL {one} {two}"),
        16 => format!("EXISTS {one} {two} {one}"),
        17 => format!("RENAME {one} {two}"),
        18 => format!("RENAMENX {one} {two}"),
        19 => format!("COPY {one} {two} REPLACE"),
        20 => format!("COPY {one} {two}"),
        21 => format!("EXPIREAT {one} {}", 2_000_000_000 + random(9)),
        22 => format!("EXPIREAT {one} {} {}", 2_000_000_000 + random(9), ["NX", "XX", "GT", "LT"][random(4)]),
        23 => format!("EXPIRETIME {one}"),
        24 => format!("PERSIST {one}"),
        25 => format!("GETDEL {one}"),
        26 => format!("GETEX {one} PXAT {}", 2_000_000_000_000 + random(9)),
        27 => format!("GETSET {one} \"{value}\""),
        28 => format!("LCS {one} {two} IDX WITHMATCHLEN MINMATCHLEN {}", random(3)),
        29 => format!("OBJECT ENCODING {one}"),
        30 => format!("TYPE {one}"),
        31 => "DBSIZE".into(),
        32 => format!("LCS {one} {two}"),
        _ => format!("SUBSTR {one} {} {}", random(9), number),
    }
}

#[test]
fn random_commands_get_the_replies_of_a_running_redis() {
    let Some(redis) = Redis::start("random") else {
        println!("skipped: redis-server is not installed");
        return;
    };
    for version in [2, 3] {
        let mut stream = redis.connect();
        let mut host = Host::new(1);
        let conn = host.connect(0, false);
        let hello = format!("HELLO {version}\r\n");
        ask(&mut stream, hello.as_bytes());
        host.send(conn, hello.as_bytes());
        ask(&mut stream, b"FLUSHALL\r\n");
        let mut dice = Host::new(1);
        dice.seed(version);
        let mut log = Vec::new();
        for _ in 0..20_000 {
            let line = random_command(&mut |below| dice.random(below));
            log.push(line.clone());
            let (theirs, _) = ask(&mut stream, &encode(&line));
            let ours = host.send(conn, &encode(&line));
            assert!(
                ours == theirs,
                "{line}: redis {}, we {}; before it {:?}",
                escape(&theirs),
                escape(&ours),
                &log[log.len().saturating_sub(12)..],
            );
        }
    }
}
