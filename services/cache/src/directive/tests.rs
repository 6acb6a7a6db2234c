//! Directives, from the command line to what they do.

use std::ffi::OsString;

use engine::config::{ENGINE, Table};

use super::{AT_START, Bind, Directives, NO_PARAMETERS, SEVERAL};
use crate::{config::CACHE, settings};

fn table() -> Table {
    Table::new("cache", "a cache", &[], &[CACHE, ENGINE])
}

fn read(args: &[&str]) -> Result<Directives, String> {
    let args = args.iter().map(OsString::from).collect();
    Directives::read(args, &table()).map_err(|error| error.to_string())
}

fn good(args: &[&str]) -> Directives {
    read(args).unwrap_or_else(|error| panic!("{args:?}: {error}"))
}

#[test]
fn every_row_is_a_parameter_and_its_default_is_fit() {
    for (name, kind, _) in AT_START {
        let (_, _, default) = settings::parameter(name).expect(name);
        let checked = settings::check_at_start(name, *kind, default.into());
        assert!(checked.is_ok(), "{name} {default}: {checked:?}");
    }
    for name in SEVERAL {
        assert!(settings::parameter(name).is_some(), "{name}");
    }
    for (name, _) in NO_PARAMETERS {
        assert!(settings::parameter(name).is_none(), "{name}");
    }
}

#[test]
fn what_test_suites_start_a_server_with() {
    let directives = good(&[
        "--port",
        "6399",
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--daemonize",
        "no",
        "--loglevel",
        "warning",
        "--timeout",
        "0",
        "--databases",
        "16",
        "--maxmemory",
        "100mb",
        "--maxclients",
        "64",
        "--tcp-keepalive",
        "60",
        "--dir",
        ".",
    ]);
    assert!(directives.is_drop_in);
    assert_eq!(directives.port(), 6399);
    assert!(directives.notes.is_empty(), "{:?}", directives.notes);
    for own in [
        "--databases=16",
        "--max-clients=64",
        "--maxmemory=104857600",
        "--keepalive=60s",
        "--idle-timeout=0s",
        "--log-level=warn",
    ] {
        assert!(directives.own.iter().any(|arg| arg == own), "{own}: {:?}", directives.own);
    }
    assert!(table().load(directives.own).is_ok());
    let unix = good(&["--port", "0", "--unixsocket", "/tmp/x.sock", "--unixsocketperm", "700"]);
    assert_eq!(unix.unix_permissions().map_err(|error| error.to_string()), Ok(Some(0o700)));
}

#[test]
fn our_own_options_stay_ours() {
    let directives = good(&["--cache", "127.0.0.1:7000", "--shards", "2", "--maxmemory", "1gb"]);
    assert!(!directives.is_drop_in);
    assert_eq!(directives.get("maxmemory"), "1073741824");
    assert!(!good(&["--shards=2"]).is_drop_in);
    assert!(good(&["--shards", "2", "--port", "7000"]).is_drop_in);
    let error = read(&["--cache", "127.0.0.1:7000", "--port", "7001"]).expect_err("two places");
    assert!(error.contains("two places"), "{error}");
}

#[test]
fn what_is_lacking_says_what_to_do() {
    for (args, parts) in [
        (&["--daemonize", "yes"][..], &["--daemonize", "not supported", "systemd"][..]),
        (&["--rename-command", "a", "b"], &["rename-command", "user NAME"]),
        (&["--loadmodule", "x.so"], &["loadmodule", "leave it out"]),
        (&["--port", "x"], &["--port", "integer"]),
        (&["--port", "1", "2"], &["2 values"]),
        (&["--port"], &["0 values"]),
        (&["--port", "0"], &["listen nowhere"]),
        (&["--bind", "nowhere"], &["bind nowhere"]),
        (&["--tls-port", "7001"], &["no tls-cert-file"]),
        (&["--appendfsync", "sometimes"], &["appendfsync", "everysec"]),
        (&["--unixsocketperm", "9"], &["unixsocketperm"]),
    ] {
        let error = read(args).expect_err(args[0]);
        assert!(parts.iter().all(|part| error.contains(part)), "{args:?}: {error}");
    }
}

#[test]
fn what_is_not_in_effect_is_said() {
    let directives = good(&["--tls-replication", "yes", "--io-threads", "4"]);
    let all = directives.notes.join("\n");
    for part in ["tls-replication yes: NOT IN EFFECT", "io-threads 4: without effect"] {
        assert!(all.contains(part), "{part}: {all}");
    }
    assert_eq!(directives.get("tls-replication"), "yes");
}

#[test]
fn several_values_and_old_names() {
    let directives = good(&[
        "--save",
        "900",
        "1",
        "--save",
        "300",
        "10",
        "--slave-priority",
        "7",
        "--bind",
        "*",
        "-::*",
        "--client-output-buffer-limit",
        "pubsub",
        "1mb",
        "2mb",
        "3",
    ]);
    assert_eq!(directives.get("save"), "900 1 300 10");
    assert_eq!(directives.get("replica-priority"), "7");
    assert!(directives.get("client-output-buffer-limit").ends_with("pubsub 1048576 2097152 3"));
    let binds = directives.bind().expect("addresses");
    let any = |text: &str, optional| Bind { ip: text.parse().expect("an address"), optional };
    assert_eq!(binds, [any("0.0.0.0", false), any("::", true)]);
}

#[test]
fn the_manual_has_every_directive_that_does_something_at_start() {
    let manual = include_str!("../../../../docs/cache.md");
    let help = super::help();
    for (name, ..) in AT_START {
        assert!(manual.contains(&format!("`{name}")), "docs/cache.md: {name}");
        assert!(help.contains(&format!("--{name}\n")), "--help: {name}");
    }
}
