//! The `cache` binary in the place of redis-server: its flags, its configuration file, its start and its end.
//!
//! What: what test suites, plugins and service files give to redis-server and wait for. Invariants asserted: the settings
//! are in force and shown by CONFIG GET; `Ready to accept connections` comes when everything listens; what is not to be
//! had is an error that says what to do. Next: `directive` for the table behind it.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::resp::{Client, Reply};
use common::server::{Server, free_ports, local, must, scratch};

/// How long the server may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// An empty directory of this test's own.
fn directory(name: &str) -> PathBuf {
    let path = scratch().join(format!("{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    must(fs::create_dir_all(&path), "a directory");
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cache"));
    must(command.args(arguments).stdin(Stdio::null()).output(), "run cache")
}

fn ok(client: &mut Client, words: &[&str]) {
    let reply = must(client.call(words), "a reply");
    assert_eq!(reply, Reply::Simple(b"OK".to_vec()), "{words:?}");
}

fn setting(client: &mut Client, name: &str) -> String {
    match must(client.call(&["CONFIG", "GET", name]), "CONFIG GET") {
        Reply::Seq(_, pair) => match pair.as_slice() {
            [_, Reply::Bulk(value)] => String::from_utf8_lossy(value).into_owned(),
            other => panic!("{name}: {other:?}"),
        },
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn the_version_is_printed_as_redis_does() {
    for flag in ["--version", "-v"] {
        let output = run(&[flag]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.starts_with("Redis server v=7.0.15 "), "{text}");
        assert!(text.contains("cache "), "{text}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one start, looked at from all sides")]
fn flags_of_redis_server_start_it() {
    let port = free_ports(1);
    let dir = directory("flags");
    let log = dir.join("cache.log");
    let pid = dir.join("cache.pid");
    let port_text = port.to_string();
    let arguments = [
        "--port",
        &port_text,
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--maxmemory",
        "100mb",
        "--maxmemory-policy",
        "allkeys-lru",
        "--databases",
        "4",
        "--loglevel",
        "notice",
        "--daemonize",
        "no",
        "--protected-mode",
        "yes",
        "--timeout",
        "0",
        "--tcp-keepalive",
        "60",
        "--maxclients",
        "100",
        "--io-threads",
        "2",
        "--slowlog-log-slower-than",
        "0",
        "--logfile",
        text(&log),
        "--pidfile",
        text(&pid),
        "--dir",
        text(&dir),
        "--shards",
        "2",
    ];
    let mut server = Server::cache_as(&arguments, port);
    let said = must(fs::read_to_string(&log), "the log");
    assert!(said.contains("* Ready to accept connections\n"), "{said}");
    assert!(said.contains("# io-threads 2: without effect"), "{said}");
    let pid_text = must(fs::read_to_string(&pid), "the pid file");
    assert_eq!(pid_text.trim(), server.pid().to_string());
    let mut client = server.client();
    for (name, value) in [
        ("port", port_text.as_str()),
        ("bind", "127.0.0.1"),
        ("maxmemory", "104857600"),
        ("maxmemory-policy", "allkeys-lru"),
        ("databases", "4"),
        ("maxclients", "100"),
        ("dir", text(&dir)),
        ("appendonly", "no"),
    ] {
        assert_eq!(setting(&mut client, name), value, "{name}");
    }
    ok(&mut client, &["SET", "a", "1"]);
    let length = must(client.call(&["SLOWLOG", "LEN"]), "SLOWLOG LEN");
    assert!(matches!(length, Reply::Int(count) if count > 0), "{length:?}");
    // A second one finds the port taken, although shards share theirs.
    let second = run(&["--port", &port_text, "--shards", "2"]);
    assert!(!second.status.success());
    let why = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(why.contains(&port_text), "{why}");
    let reply = must(client.call(&["SHUTDOWN", "NOSAVE"]), "SHUTDOWN");
    assert_eq!(reply, Reply::Closed);
    assert!(server.wait(STOP_TIMEOUT).is_some_and(|status| status.success()), "{}", server.log());
    assert!(!pid.exists(), "the pid file goes");
}

#[test]
fn a_redis_conf_starts_it() {
    let port = free_ports(1);
    let dir = directory("conf");
    let (file, more) = (dir.join("redis.conf"), dir.join("more.conf"));
    must(fs::write(&more, "maxmemory-samples 7\nhash-max-ziplist-entries 5\n"), "write");
    let lines = format!(
        "# comment\n\nPORT {port}\nbind 127.0.0.1 -::1\nrequirepass \"pass word\"\ninclude {}\n\
         save 900 1\nsave 300 10\nuser ann on >secret ~a* +@all -config|set\ndir {}\n",
        more.display(),
        dir.display(),
    );
    must(fs::write(&file, &lines), "write");
    let server = Server::cache_as(&[text(&file), "--databases", "8", "--shards", "1"], port);
    let mut client = server.client();
    let reply = must(client.call(&["GET", "a"]), "GET");
    assert!(matches!(&reply, Reply::Error(text) if text.starts_with(b"NOAUTH")), "{reply:?}");
    ok(&mut client, &["AUTH", "pass word"]);
    for (name, value) in [
        ("databases", "8"),
        ("maxmemory-samples", "7"),
        ("hash-max-listpack-entries", "5"),
        ("save", "900 1 300 10"),
    ] {
        assert_eq!(setting(&mut client, name), value, "{name}");
    }
    let mut ann = server.client();
    ok(&mut ann, &["AUTH", "ann", "secret"]);
    ok(&mut ann, &["SET", "a1", "1"]);
    let reply = must(ann.call(&["GET", "b"]), "GET");
    assert!(matches!(&reply, Reply::Error(text) if text.starts_with(b"NOPERM")), "{reply:?}");
    ok(&mut client, &["CONFIG", "SET", "maxmemory-samples", "9", "timeout", "77"]);
    ok(&mut client, &["CONFIG", "REWRITE"]);
    let after = must(fs::read_to_string(&file), "the file");
    for part in [
        "# comment\n",
        "\nport ",
        "\ntimeout 77\n",
        "\nmaxmemory-samples 9\n",
        "\nuser ann on ",
        "\nsave 900 1 300 10\n",
        "requirepass \"pass word\"\n",
    ] {
        assert!(after.contains(part), "{part:?}: {after}");
    }
    drop((client, ann));
    let mut server = server;
    server.terminate();
    assert!(server.wait(STOP_TIMEOUT).is_some());
    // What was written starts it again.
    let again = Server::cache_as(&[text(&file), "--shards", "1"], port);
    let mut client = again.client();
    ok(&mut client, &["AUTH", "pass word"]);
    assert_eq!(setting(&mut client, "maxmemory-samples"), "9");
}

#[test]
fn standard_input_may_say_it_too() {
    let port = free_ports(1);
    let mut command = Command::new(env!("CARGO_BIN_EXE_cache"));
    command.args(["-", "--shards", "1"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = must(command.spawn(), "start");
    let mut input = child.stdin.take().expect("piped");
    must(write!(input, "port {port}\nmaxmemory 7mb\n"), "write");
    drop(input);
    let mut said = String::new();
    let mut output = child.stdout.take().expect("piped");
    let mut byte = [0];
    while !said.contains("Ready to accept connections\n") {
        must(output.read_exact(&mut byte), "standard output");
        said.push(char::from(byte[0]));
    }
    let mut client = must(Client::connect(local(port)), "connect");
    assert_eq!(setting(&mut client, "maxmemory"), (7 << 20).to_string());
    let reply = must(client.call(&["SHUTDOWN"]), "SHUTDOWN");
    assert_eq!(reply, Reply::Closed);
    assert!(must(child.wait(), "its end").success());
}

#[test]
fn a_unix_socket_alone_is_enough() {
    let dir = directory("unix");
    let path = dir.join("s");
    let mut command = Command::new(env!("CARGO_BIN_EXE_cache"));
    command.args(["--port", "0", "--unixsocket", text(&path), "--unixsocketperm", "700"]);
    let mut child = must(command.stdout(Stdio::piped()).spawn(), "start");
    let mut output = child.stdout.take().expect("piped");
    let (mut said, mut byte) = (String::new(), [0]);
    while !said.contains("Ready to accept connections\n") {
        must(output.read_exact(&mut byte), "standard output");
        said.push(char::from(byte[0]));
    }
    let mode = must(fs::metadata(&path), "the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let mut stream = must(UnixStream::connect(&path), "connect");
    must(stream.write_all(b"PING\r\nSHUTDOWN NOSAVE\r\n"), "write");
    let mut reply = String::new();
    must(stream.read_to_string(&mut reply), "read");
    assert_eq!(reply, "+PONG\r\n");
    assert!(must(child.wait(), "its end").success());
}

#[test]
fn what_is_not_to_be_had_is_an_error() {
    for (arguments, part) in [
        (&["--daemonize", "yes"][..], "systemd"),
        (&["--nosuch", "1"], "--nosuch: unknown"),
        (&["/nonexistent/redis.conf"], "/nonexistent/redis.conf"),
        (&["--port", "0"], "listen nowhere"),
        (&["--port", "70000"], "between 0 and 65535"),
    ] {
        let output = run(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(part), "{arguments:?}: {text}");
    }
}

#[test]
fn an_aclfile_is_read_and_written() {
    let port = free_ports(1);
    let dir = directory("aclfile");
    let file = dir.join("users.acl");
    must(fs::write(&file, "user default on nopass ~* &* +@all\nuser ann on >x ~a +get\n"), "write");
    let port_text = port.to_string();
    let arguments = ["--port", &port_text, "--aclfile", text(&file), "--shards", "2"];
    let server = Server::cache_as(&arguments, port);
    let mut client = server.client();
    ok(&mut client, &["ACL", "SETUSER", "bob", "on", ">y"]);
    ok(&mut client, &["ACL", "SAVE"]);
    let saved = must(fs::read_to_string(&file), "the file");
    assert!(saved.contains("user bob on ") && saved.contains("user ann on "), "{saved}");
    must(fs::write(&file, "user ann on nonsense\n"), "write");
    let reply = must(client.call(&["ACL", "LOAD"]), "ACL LOAD");
    assert!(matches!(&reply, Reply::Error(text) if text.ends_with(b"was performed")), "{reply:?}");
    must(fs::write(&file, "user ann on >z ~b +set\n"), "write");
    ok(&mut client, &["ACL", "LOAD"]);
    let users = must(client.call(&["ACL", "USERS"]), "ACL USERS");
    let names = [Reply::Bulk(b"ann".to_vec()), Reply::Bulk(b"default".to_vec())];
    assert_eq!(users, Reply::Seq('*', names.to_vec()));
}

/// An authority, and a certificate of it for 127.0.0.1 with its key.
struct Files {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

/// `None` where openssl is not installed.
fn certificates(dir: &Path) -> Option<Files> {
    let file = |name: &str| dir.join(name);
    let (ca, ca_key) = (file("ca.pem"), file("ca.key"));
    let (cert, key, request) = (file("cert.pem"), file("key.pem"), file("cert.csr"));
    let extensions = file("extensions");
    must(fs::write(&extensions, "subjectAltName=IP:127.0.0.1\n"), "write");
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let authority = ["-x509", "-days", "2", "-subj", "/CN=authority"];
    let runs = [
        [&["req"][..], &curve, &authority, &["-keyout", text(&ca_key), "-out", text(&ca)]].concat(),
        [
            &["req"][..],
            &curve,
            &["-subj", "/CN=localhost", "-keyout", text(&key), "-out", text(&request)],
        ]
        .concat(),
        vec![
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            text(&request),
            "-CA",
            text(&ca),
            "-CAkey",
            text(&ca_key),
            "-CAcreateserial",
            "-extfile",
            text(&extensions),
            "-out",
            text(&cert),
        ],
    ];
    for arguments in runs {
        let output = Command::new("openssl").args(&arguments).output().ok()?;
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Some(Files { ca, cert, key })
}

#[test]
fn tls_as_redis_has_it() {
    let dir = directory("tls");
    let Some(Files { ca, cert, key }) = certificates(&dir) else {
        eprintln!("skipped: openssl is not installed");
        return;
    };
    let port = free_ports(2);
    let (port_text, tls_text) = (port.to_string(), (port + 1).to_string());
    let files = ["--tls-cert-file", text(&cert), "--tls-key-file", text(&key)];
    let more = ["--port", &port_text, "--tls-port", &tls_text, "--tls-ca-cert-file", text(&ca)];
    for (clients, with_certificate, without) in
        [("no", true, true), ("optional", true, true), ("yes", true, false)]
    {
        let auth = ["--tls-auth-clients", clients, "--shards", "2"];
        let arguments: Vec<&str> = [&files[..], &more, &auth].concat();
        let mut server = Server::cache_as(&arguments, port);
        let ping = |own: bool| {
            let mut command = Command::new("redis-cli");
            command.args(["-h", "127.0.0.1", "-p", &tls_text, "--tls", "--cacert", text(&ca)]);
            if own {
                command.args(["--cert", text(&cert), "--key", text(&key)]);
            }
            let output = command.arg("PING").output().ok()?;
            Some(String::from_utf8_lossy(&output.stdout).trim() == "PONG")
        };
        let Some(answer) = ping(true) else {
            eprintln!("skipped: redis-cli is not installed");
            return;
        };
        assert_eq!((answer, ping(false)), (with_certificate, Some(without)), "{clients}");
        server.terminate();
        assert!(server.wait(STOP_TIMEOUT).is_some());
    }
}
