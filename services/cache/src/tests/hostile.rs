//! What a client must not be able to do: panic us, or get an answer of the wrong shape.

use proptest::prelude::*;
use wire::resp::{Reply, decode_reply};

use super::support::{Host, encode};
use crate::command::{row::BLOCKING, table::Index};

/// A command line of a row with this many arguments.
fn with_argc(name: &str, argc: usize) -> Vec<u8> {
    let mut words: Vec<&[u8]> = name.split('|').map(str::as_bytes).collect();
    words.resize(argc, b"1");
    encode(&words)
}

#[test]
fn every_row_refuses_a_wrong_number_of_arguments() {
    let index = Index::new();
    for (_, row) in index.all() {
        let least = usize::from(row.arity.unsigned_abs());
        let words = row.name.split('|').count();
        let mut wrong = Vec::new();
        if least > words {
            wrong.push(least - 1);
        }
        if row.arity > 0 {
            wrong.push(least + 1);
        }
        for argc in wrong {
            let mut host = Host::new(1);
            let conn = host.connect(0, false);
            let reply = host.send(conn, &with_argc(row.name, argc));
            // A container's next word is taken for a subcommand.
            let expected = if row.name == "exec" {
                "-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command\r\n"
                    .to_owned()
            } else if row.subs.is_empty() || argc == 1 {
                format!("-ERR wrong number of arguments for '{}' command\r\n", row.name)
            } else {
                continue;
            };
            assert_eq!(String::from_utf8_lossy(&reply), expected, "{} with {argc}", row.name);
        }
    }
}

#[test]
fn every_row_answers_once_whatever_its_arguments() {
    let index = Index::new();
    for shards in [1, 3] {
        for (_, row) in index.all() {
            for argc in row.name.split('|').count()..8 {
                // Those that close the connection, change what follows, answer many times, or wait for time to pass.
                let apart = ["quit", "debug", "monitor", "shutdown", "client|pause", "wait"];
                if apart.contains(&row.name) || row.name.ends_with("subscribe") {
                    continue;
                }
                let mut host = Host::new(shards);
                let conn = host.connect(0, false);
                let reply = host.send(conn, &with_argc(row.name, argc));
                if reply.is_empty() && row.flags & BLOCKING != 0 {
                    host.hang_up(conn);
                    host.settle();
                    assert!(host.is_closed(conn), "{}", row.name);
                    continue;
                }
                let decoded = decode_reply(&reply);
                let whole = matches!(&decoded, Ok(Some((_, len))) if *len == reply.len());
                assert!(whole, "{} with {argc}: {}", row.name, reply.escape_ascii());
                let pong = host.command(conn, &["ECHO", "still here"]);
                let expected = match row.name {
                    "multi" if argc == 1 => "+QUEUED\r\n",
                    _ => "$10\r\nstill here\r\n",
                };
                assert!(host.is_closed(conn) || pong == expected, "{}", row.name);
            }
        }
    }
}

#[test]
fn a_large_value_is_announced_to_the_host_and_kept_without_a_copy() {
    let mut host = Host::new(1);
    host.owned = true;
    let conn = host.connect(0, false);
    let value = vec![b'x'; 100_000];
    let frame = encode(&[b"SET", b"k", &value]);
    assert_eq!(host.send(conn, &frame[..64]), b"");
    assert_eq!(host.wanted, frame.len());
    assert_eq!(host.send(conn, &frame[64..]), b"+OK\r\n");
    assert_eq!(host.command(conn, &["STRLEN", "k"]), ":100000\r\n");
}

#[test]
fn a_batch_is_bounded() {
    let mut host = Host::new(1);
    let conn = host.connect(0, false);
    let batch = encode(&[b"PING"]).repeat(1000);
    host.feed(conn, &batch);
    assert!(host.step());
    let first = host.take(conn);
    assert_eq!(first.len(), crate::session::MAX_COMMANDS * b"+PONG\r\n".len());
    host.settle();
    assert_eq!(first.len() + host.take(conn).len(), 1000 * b"+PONG\r\n".len());
}

#[test]
fn sleeping_and_waiting_commands_answer_in_order() {
    let mut host = Host::new(1);
    let conn = host.connect(0, false);
    let mut bytes = encode(&[b"DEBUG", b"SLEEP", b"0.5"]);
    bytes.extend_from_slice(&encode(&[b"PING"]));
    assert_eq!(host.send(conn, &bytes), b"");
    host.advance_ms(500);
    host.settle();
    assert_eq!(host.take(conn), b"+OK\r\n+PONG\r\n");
}

fn any_word() -> impl Strategy<Value = Vec<u8>> {
    let names: Vec<&'static str> =
        Index::new().all().flat_map(|(_, row)| row.name.split('|')).collect();
    let options = "NX XX GT LT EX PX EXAT PXAT KEEPTTL GET PERSIST MATCH COUNT TYPE DB REPLACE IDX LEN \
                   MINMATCHLEN WITHMATCHLEN FILTERBY ID ADDR AUTH SETNAME 2 3 maxmemory";
    prop_oneof![
        3 => prop::sample::select(names).prop_map(|name| name.as_bytes().to_vec()),
        2 => prop::sample::select(options.split(' ').collect::<Vec<_>>())
            .prop_map(|word| word.as_bytes().to_vec()),
        2 => any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        2 => prop::sample::select(&["a", "b", "{a}c", "*", "0", "-1", ""][..])
            .prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ]
}

fn is_blocking(name: &[u8]) -> bool {
    let index = Index::new();
    index.find(name).is_some_and(|id| index.row(id).flags & BLOCKING != 0)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_commands_each_get_one_reply(
        commands in prop::collection::vec(prop::collection::vec(any_word(), 1..7), 1..20),
        shards in 1_u16..4,
    ) {
        let mut host = Host::new(shards);
        let conn = host.connect(0, true);
        for command in &commands {
            let words: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
            // These close, or wait for a clock nobody moves here, or have a reply for each argument.
            let many = words[0].to_ascii_lowercase().ends_with(b"subscribe");
            if words[0].eq_ignore_ascii_case(b"debug") || many {
                continue;
            }
            let reply = host.send(conn, &encode(&words));
            if host.is_closed(conn) {
                break;
            }
            if reply.is_empty() && is_blocking(words[0]) {
                host.hang_up(conn);
                host.settle();
                prop_assert!(host.is_closed(conn));
                break;
            }
            let decoded = decode_reply(&reply);
            let whole = matches!(&decoded, Ok(Some((_, len))) if *len == reply.len());
            prop_assert!(whole, "{:?}: {}", command, reply.escape_ascii());
            prop_assert!(!matches!(decoded, Ok(Some((Reply::Push(_), _)))));
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut host = Host::new(2);
        let conn = host.connect(0, false);
        host.send(conn, &bytes);
    }
}
