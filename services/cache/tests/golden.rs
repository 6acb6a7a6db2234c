//! Replays the golden corpus (`golden/*.txt`, recorded from redis-server 7.0.15) over real sockets.
//!
//! What: every case over RESP2 and RESP3, with one shard and with two over the shared port: the
//! replies must be the recorded ones. `GOLDEN_ADDR=host:port` replays on a running server instead;
//! `GOLDEN_FILTER=text` runs only the cases whose `file: name` contains the text.
//! Invariant: a case that differs is printed with what was sent, expected and got, and the rest still runs.
//! Where next: `golden/README.md` for the format, `record_golden.py` for the recorder.
#![expect(
    clippy::disallowed_methods,
    reason = "a test drives real processes: it waits and reads the environment"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use common::pattern::{Pattern, Saved, render, unquote};
use common::resp::{Client, Reply, encode, is_hangup};
use common::server::{Server, Turn};

/// How long a `<nothing>` is waited for.
const QUIET: Duration = Duration::from_millis(60);

/// The corpus must not shrink below this by accident.
const MIN_CASES: usize = 400;

/// What a step does with its text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Request,
    Raw,
    Scan,
    Sleep,
}

/// Requests of one write on one connection, and the replies expected over RESP2 and RESP3.
struct Step {
    connection: String,
    sends: Vec<(Form, String)>,
    expected: [Vec<String>; 2],
    open: bool,
}

struct Case {
    name: String,
    protocols: Vec<u8>,
    steps: Vec<Step>,
}

struct Corpus {
    file: String,
    directives: BTreeMap<String, String>,
    cases: Vec<Case>,
}

fn read_corpus() -> Vec<Corpus> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = std::fs::read_dir(&directory).expect("the corpus directory");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a readable entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    paths.iter().map(|path| parse_file(path)).collect()
}

fn parse_file(path: &Path) -> Corpus {
    let text = std::fs::read_to_string(path).expect("a corpus file is ASCII");
    let file = path.file_stem().expect("a name").to_string_lossy().into_owned();
    let mut corpus = Corpus { file, directives: BTreeMap::new(), cases: Vec::new() };
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("== ") {
            corpus.cases.push(Case {
                name: name.trim().to_owned(),
                protocols: vec![2, 3],
                steps: Vec::new(),
            });
        } else if let Some(directive) = line.strip_prefix('@') {
            let (key, value) = directive.split_once(' ').unwrap_or((directive, ""));
            corpus.directives.insert(key.to_owned(), value.to_owned());
        } else if !line.trim().is_empty() && !line.starts_with('#') {
            let case =
                corpus.cases.last_mut().unwrap_or_else(|| panic!("{line:?} before the first case"));
            parse_line(case, line);
        }
    }
    corpus
}

fn parse_line(case: &mut Case, line: &str) {
    if let Some(protocols) = line.strip_prefix("proto ") {
        case.protocols = protocols.split(' ').map(|p| p.parse().expect("2 or 3")).collect();
        return;
    }
    if let Some(reply) = line.strip_prefix('<') {
        let step = case.steps.last_mut().unwrap_or_else(|| panic!("{line:?} without a request"));
        let (which, text): (&[usize], &str) = match reply.as_bytes().first() {
            Some(b'2') => (&[0], &reply[1..]),
            Some(b'3') => (&[1], &reply[1..]),
            _ => (&[0, 1], reply),
        };
        for &index in which {
            step.expected[index].push(text.trim_start().to_owned());
        }
        step.open = false;
        return;
    }
    let (connection, rest) = line.split_once('>').unwrap_or_else(|| panic!("cannot read {line:?}"));
    let forms =
        [("+", Form::Request), ("raw", Form::Raw), ("scan", Form::Scan), ("sleep", Form::Sleep)];
    let found = forms.iter().find(|(mark, _)| rest.starts_with(mark));
    let (mark, form) = found.copied().unwrap_or(("", Form::Request));
    let text = rest[mark.len()..].trim_start().to_owned();
    if !case.steps.last().is_some_and(|step| step.open) {
        let connection = connection.to_owned();
        case.steps.push(Step {
            connection,
            sends: Vec::new(),
            expected: [Vec::new(), Vec::new()],
            open: true,
        });
    }
    let step = case.steps.last_mut().expect("just pushed");
    step.sends.push((form, text));
    step.open = mark == "+";
}

fn split_args(text: &str, saved: &Saved) -> Vec<Vec<u8>> {
    let (bytes, mut at, mut args) = (text.as_bytes(), 0, Vec::new());
    while at < bytes.len() {
        if bytes[at] == b' ' {
            at += 1;
            continue;
        }
        if bytes[at] == b'"' {
            let (arg, used) =
                unquote(&bytes[at..]).unwrap_or_else(|| panic!("bad quotes in {text:?}"));
            args.push(arg);
            at += used;
            continue;
        }
        let end = bytes[at..].iter().position(|&b| b == b' ').map_or(bytes.len(), |len| at + len);
        let token = &text[at..end];
        at = end;
        if let Some(repeat) = token.strip_prefix("%rep:") {
            let (what, count) = repeat.split_once(':').expect("%rep:TEXT:COUNT");
            args.push(what.repeat(count.parse().expect("a count")).into_bytes());
        } else if let Some(name) = token.strip_prefix('$') {
            args.push(saved.get(name).cloned().unwrap_or_else(|| b"?".to_vec()));
        } else {
            args.push(token.as_bytes().to_vec());
        }
    }
    args
}

/// The connections and saved values of one run of one case.
struct Run {
    address: SocketAddr,
    protocol: u8,
    clients: BTreeMap<String, Client>,
    saved: Saved,
}

impl Run {
    /// Opens the first connection; an error text when the server cannot be brought to a clean state.
    fn start(address: SocketAddr, protocol: u8) -> Result<Self, String> {
        let mut run = Self { address, protocol, clients: BTreeMap::new(), saved: Saved::new() };
        let reply = run.client("").and_then(|client| client.call(&["FLUSHALL"]));
        match reply {
            Ok(Reply::Simple(text)) if text == b"OK" => Ok(run),
            other => Err(format!("FLUSHALL on a fresh connection: {other:?}")),
        }
    }

    fn client(&mut self, name: &str) -> io::Result<&mut Client> {
        if !self.clients.contains_key(name) {
            let mut client = Client::connect(self.address)?;
            if self.protocol == 3 {
                client.call(&["HELLO", "3"])?;
            }
            self.clients.insert(name.to_owned(), client);
        }
        Ok(self.clients.get_mut(name).expect("just inserted"))
    }

    fn step(&mut self, step: &Step, expected: &[String]) -> io::Result<Vec<Reply>> {
        let saved = self.saved.clone();
        let client = self.client(&step.connection)?;
        let (mut out, mut data) = (Vec::new(), Vec::new());
        for (form, text) in &step.sends {
            match form {
                Form::Sleep => {
                    thread::sleep(Duration::from_millis(text.trim().parse().expect("milliseconds")))
                }
                Form::Scan => out.push(scan(client, split_args(text, &saved))?),
                Form::Raw => data.extend(split_args(text, &saved).concat()),
                Form::Request => data.extend(encode(&split_args(text, &saved))),
            }
        }
        if data.is_empty() {
            return Ok(out);
        }
        match client.send_raw(&data) {
            Err(error) if !is_hangup(&error) => return Err(error),
            _ => {}
        }
        for text in expected {
            out.push(if text == "<nothing>" {
                client.reply_within(QUIET)?
            } else {
                client.reply()?
            });
        }
        Ok(out)
    }

    /// Bytes that nobody asked for, on any connection.
    fn left_over(&mut self) -> Option<String> {
        for (name, client) in &mut self.clients {
            if let Some(bytes) = client.pending() {
                return Some(format!("connection {name:?} also received {}", bytes.escape_ascii()));
            }
        }
        None
    }
}

/// Repeats SCAN, or SSCAN and its kin, until the cursor is 0: the keys, sorted and without repeats.
fn scan(client: &mut Client, mut args: Vec<Vec<u8>>) -> io::Result<Reply> {
    let mut keys = BTreeSet::new();
    let at = if args[0].eq_ignore_ascii_case(b"SCAN") { 1 } else { 2 };
    for _ in 0..10_000 {
        let reply = client.call(&args)?;
        let [cursor, page] = reply.items() else { return Ok(reply) };
        keys.extend(page.items().iter().map(|key| key.bytes().to_vec()));
        args[at] = cursor.bytes().to_vec();
        if args[at] == b"0" {
            return Ok(Reply::Seq('*', keys.into_iter().map(Reply::Bulk).collect()));
        }
    }
    Ok(Reply::Error(b"the cursor never became 0".to_vec()))
}

/// The differences of one case over one protocol, as text; empty when there are none.
fn run_case(case: &Case, address: SocketAddr, protocol: u8) -> Result<String, String> {
    let mut run = Run::start(address, protocol)?;
    let mut differences = String::new();
    for step in &case.steps {
        let expected = &step.expected[usize::from(protocol - 2)];
        let patterns: Vec<_> = expected.iter().map(|text| Pattern::parse(text)).collect();
        let sent = step.sends.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(" | ");
        match run.step(step, expected) {
            Ok(got) => {
                let equal = got.len() == patterns.len()
                    && patterns
                        .iter()
                        .zip(&got)
                        .all(|(p, g)| p.matches(g, protocol, &mut run.saved));
                if !equal {
                    let got = got.iter().map(render).collect::<Vec<_>>().join(" | ");
                    let want = expected.join(" | ");
                    let _ = writeln!(
                        differences,
                        "    sent     {sent}\n    expected {want}\n    got      {got}"
                    );
                }
            }
            Err(error) => {
                let _ = writeln!(differences, "    sent     {sent}\n    got      {error}");
                return Ok(differences);
            }
        }
    }
    if let Some(extra) = run.left_over() {
        let _ = writeln!(differences, "    {extra}");
    }
    Ok(differences)
}

/// Why a file is not replayed, if so.
fn skip_reason(corpus: &Corpus, fixed: bool) -> Option<&str> {
    if let Some(reason) = corpus.directives.get("skip") {
        return Some(reason);
    }
    let own = ["server", "unrecorded"].iter().any(|name| corpus.directives.contains_key(*name));
    (fixed && own).then_some("needs a server of its own")
}

fn replay(mut server: Option<Server>, shards: u16, fixed: Option<SocketAddr>) {
    let started = Instant::now();
    let filter = std::env::var("GOLDEN_FILTER").unwrap_or_default();
    let (mut cases, mut runs, mut failed) = (0, 0, 0);
    for corpus in &read_corpus() {
        cases += corpus.cases.len();
        if let Some(reason) = skip_reason(corpus, fixed.is_some()) {
            println!("skipped: {}: {reason}", corpus.file);
            continue;
        }
        for case in &corpus.cases {
            let label = format!("{}: {}", corpus.file, case.name);
            if !label.contains(&filter) {
                continue;
            }
            for &protocol in &case.protocols {
                runs += 1;
                let address = fixed.unwrap_or_else(|| server.as_ref().expect("spawned").address());
                let differences = run_case(case, address, protocol).unwrap_or_else(|unclean| {
                    // An earlier case left the server unusable: say so, and go on with a fresh one.
                    if fixed.is_none() {
                        drop(server.take());
                        server = Some(Server::cache(shards));
                    }
                    format!("    {unclean}\n")
                });
                if !differences.is_empty() {
                    println!("{label} (RESP{protocol})\n{differences}");
                    failed += 1;
                }
            }
        }
    }
    let seconds = started.elapsed().as_secs_f32();
    println!("{shards} shard(s): {cases} cases, {runs} runs, {failed} differ, {seconds:.1} s");
    assert!(cases >= MIN_CASES, "the corpus has only {cases} cases");
    assert_eq!(failed, 0, "of {runs} runs so many differ from redis 7.0.15 (listed above)");
}

#[test]
fn replies_equal_redis_with_one_shard() {
    let _turn = Turn::shared();
    match std::env::var("GOLDEN_ADDR") {
        Ok(address) => replay(None, 1, Some(address.parse().expect("GOLDEN_ADDR is host:port"))),
        Err(_) => replay(Some(Server::cache(1)), 1, None),
    }
}

#[test]
fn replies_equal_redis_with_two_shards_over_the_shared_port() {
    let _turn = Turn::shared();
    if std::env::var("GOLDEN_ADDR").is_ok() {
        println!("skipped: GOLDEN_ADDR names one server");
        return;
    }
    replay(Some(Server::cache(2)), 2, None);
}

#[test]
fn matchers_accept_what_they_name_and_nothing_else() {
    let bulk = |text: &str| Reply::Bulk(text.as_bytes().to_vec());
    let array = |items: &[Reply]| Reply::Seq('*', items.to_vec());
    let nested = array(&[bulk("a"), Reply::Int(5), Reply::Nil]);
    let pairs = array(&[bulk("l"), Reply::Int(2), bulk("k"), Reply::Int(1)]);
    let cases: &[(&str, &Reply, bool)] = &[
        ("+OK", &Reply::Simple(b"OK".to_vec()), true),
        ("+OK", &bulk("OK"), false),
        ("-ERR syntax error", &Reply::Error(b"ERR syntax error".to_vec()), true),
        ("-ERR syntax error", &Reply::Error(b"ERR Syntax error".to_vec()), false),
        ("nil", &Reply::Nil, true),
        ("nil", &Reply::Null, false),
        ("nilarray", &Reply::Nil, false),
        ("[\"a\" :5 nil]", &nested, true),
        ("[\"a\" :5]", &nested, false),
        ("[\"a\" ...]", &nested, true),
        ("[\"b\" ...]", &nested, false),
        ("<int 1..5>", &Reply::Int(5), true),
        ("<int 1..5>", &Reply::Int(6), false),
        ("<unordered :5 nil \"a\">", &nested, true),
        ("<unordered :5 \"a\">", &nested, false),
        ("<map \"k\" :1 \"l\" :2>", &pairs, true),
        ("<map \"k\" :1>", &pairs, false),
        ("<has \"k\" :1>", &pairs, true),
        ("<has \"k\" :3>", &pairs, false),
        ("<glob \"a*c*e\">", &bulk("abcde"), true),
        ("<glob \"a*c*e\">", &bulk("abcdef"), false),
        ("<glob \"ab*bc\">", &bulk("abc"), false),
        ("<text \"a*\">", &bulk("abc"), true),
        ("<any>", &Reply::Closed, false),
        ("<closed>", &Reply::Closed, true),
        ("#401:0000000000000000", &Reply::Bulk(vec![b'x'; 401]), false),
    ];
    for (text, reply, expected) in cases {
        let got = Pattern::parse(text).matches(reply, 2, &mut Saved::new());
        assert_eq!(got, *expected, "{text} against {}", render(reply));
    }
}
