//! Keyspace notifications and client-side caching, with one, two and three shards.

use super::support::Host;

/// A host whose connection 0 gets all events, and a connection that makes them.
fn listening(shards: u16, classes: &str) -> (Host, usize, usize) {
    let mut host = Host::new(shards);
    let listener = host.connect(usize::from(shards) - 1, false);
    let actor = host.connect(0, false);
    assert_eq!(
        host.command(actor, &["CONFIG", "SET", "notify-keyspace-events", classes]),
        "+OK\r\n"
    );
    host.command(listener, &["PSUBSCRIBE", "__key*__:*"]);
    (host, listener, actor)
}

/// The events since the last time, as `event key` from `__keyevent@…` channels.
fn events(host: &mut Host, listener: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(&host.take(listener)).into_owned();
    let lines: Vec<&str> = text.split("\r\n").collect();
    let mut events = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if let Some((_, event)) = line.split_once("__keyevent@0__:") {
            events.push(format!("{event} {}", lines[at + 2]));
        }
    }
    events
}

#[test]
fn commands_tell_what_they_did_on_whatever_shard() {
    for shards in 1..=3 {
        let (mut host, listener, actor) = listening(shards, "EA");
        let mut did = |line: &str, expected: &[&str]| {
            let words: Vec<&str> = line.split(' ').collect();
            host.command(actor, &words);
            let mut got = events(&mut host, listener);
            let mut expected: Vec<String> = expected.iter().map(|&event| event.into()).collect();
            if shards > 1 {
                // Events of keys of different shards come in any order.
                got.sort();
                expected.sort();
            }
            assert_eq!(got, expected, "{line}, {shards} shards");
        };
        did("SET a 1", &["set a"]);
        did("SET a 1 EX 100", &["set a", "expire a"]);
        did("SET a 1 NX", &[]);
        did("GET a", &[]);
        did("INCR n", &["incrby n"]);
        did("APPEND s x", &["append s"]);
        did("SETRANGE s 0 y", &["setrange s"]);
        did("MSET k1 1 k2 2 k3 3", &["set k1", "set k2", "set k3"]);
        did("DEL k1 k2 none", &["del k1", "del k2"]);
        did("EXPIRE a 10", &["expire a"]);
        did("PERSIST a", &["persist a"]);
        did("EXPIRE a -1", &["del a"]);
        did("RENAME k3 k4", &["rename_from k3", "rename_to k4"]);
        did("COPY k4 k5", &["copy_to k5"]);
        did("RPUSH l 1 2", &["rpush l"]);
        did("LMOVE l l2 LEFT RIGHT", &["rpush l2", "lpop l"]);
        did("LPOP l", &["lpop l", "del l"]);
        did("SADD x 1 2", &["sadd x"]);
        did("SADD x 1", &[]);
        did("SREM x 1", &["srem x"]);
        did("SPOP x", &["spop x", "del x"]);
        did("HSET h f v", &["hset h"]);
        did("HDEL h f", &["hdel h", "del h"]);
        did("ZADD z 1 m", &["zadd z"]);
        did("ZADD z 1 m", &[]);
        did("ZINCRBY z 1 m", &["zincr z"]);
        did("ZUNIONSTORE z2 1 z", &["zunionstore z2"]);
        did("ZUNIONSTORE z2 1 none", &["del z2"]);
        did("ZPOPMIN z", &["zpopmin z", "del z"]);
        did("XADD st 1-1 f v", &["xadd st"]);
        did("XGROUP CREATE st g $", &["xgroup-create st"]);
        did("PFADD p a", &["pfadd p"]);
        did("PFADD p a", &[]);
        did("SETBIT b 1 1", &["setbit b"]);
        did("GEOADD g 1 1 m", &["zadd g"]);
        did("SORT l2 STORE l3", &["sortstore l3"]);
        did("FLUSHALL", &[]);
    }
}

#[test]
fn keys_that_go_by_themselves_are_told() {
    for shards in 1..=3 {
        let (mut host, listener, actor) = listening(shards, "Exm");
        host.command(actor, &["SET", "lazy", "1", "PX", "100"]);
        host.command(actor, &["SET", "active", "1", "PX", "100"]);
        host.advance_ms(101);
        host.command(actor, &["GET", "lazy"]);
        assert_eq!(events(&mut host, listener), ["expired lazy", "keymiss lazy"]);
        host.command(actor, &["EXISTS", "none"]);
        assert_eq!(events(&mut host, listener), ["keymiss none"]);
        for _ in 0..20 {
            host.advance_ms(100);
            let now = host.now;
            host.shards.iter_mut().for_each(|shard| {
                shard.tick(now, 1000);
            });
        }
        host.carry_mail();
        host.settle();
        assert_eq!(events(&mut host, listener), ["expired active"]);
        host.command(actor, &["CONFIG", "SET", "notify-keyspace-events", ""]);
        host.command(actor, &["GET", "none"]);
        assert!(events(&mut host, listener).is_empty());
    }
}

#[test]
fn both_kinds_of_channels_and_new_keys() {
    let (mut host, listener, actor) = listening(1, "KEn$");
    host.command(actor, &["SET", "k", "v"]);
    let text = String::from_utf8_lossy(&host.take(listener)).into_owned();
    let channels: Vec<&str> = text
        .split("\r\n")
        .filter(|line| line.starts_with("__key") && !line.contains('*'))
        .collect();
    let expected =
        ["__keyspace@0__:k", "__keyevent@0__:new", "__keyspace@0__:k", "__keyevent@0__:set"];
    assert_eq!(channels, expected);
}

fn invalidated(keys: &[&str]) -> String {
    let mut text = format!(">2\r\n$10\r\ninvalidate\r\n*{}\r\n", keys.len());
    for key in keys {
        text.push_str(&format!("${}\r\n{key}\r\n", key.len()));
    }
    text
}

fn take(host: &mut Host, conn: usize) -> String {
    String::from_utf8_lossy(&host.take(conn)).into_owned()
}

/// A RESP3 connection on the last shard, and one on the first.
fn two(shards: u16) -> (Host, usize, usize) {
    let mut host = Host::new(shards);
    let reader = host.connect(usize::from(shards) - 1, false);
    let writer = host.connect(0, false);
    host.command(reader, &["HELLO", "3"]);
    (host, reader, writer)
}

#[test]
fn a_client_hears_once_of_each_key_it_has_read() {
    for shards in 1..=3 {
        let (mut host, reader, writer) = two(shards);
        assert_eq!(host.command(reader, &["CLIENT", "TRACKING", "ON"]), "+OK\r\n");
        for key in ["a", "b", "c", "d"] {
            host.command(reader, &["GET", key]);
            host.command(writer, &["SET", key, "1"]);
            assert_eq!(take(&mut host, reader), invalidated(&[key]), "{key}, {shards} shards");
            host.command(writer, &["SET", key, "2"]);
            assert_eq!(take(&mut host, reader), "");
        }
        host.command(reader, &["MGET", "a", "b", "c", "d"]);
        host.command(writer, &["DEL", "b"]);
        assert_eq!(take(&mut host, reader), invalidated(&["b"]));
        host.command(writer, &["FLUSHALL"]);
        let all = take(&mut host, reader);
        assert!(
            !all.is_empty() && all.replace(">2\r\n$10\r\ninvalidate\r\n_\r\n", "").is_empty(),
            "{all}"
        );
        host.command(reader, &["GET", "a"]);
        let own = host.command(reader, &["SET", "a", "1"]);
        let (reply, message) = ("+OK\r\n", invalidated(&["a"]));
        // With one shard the message comes behind the reply, with several before or behind it.
        let before = shards > 1 && own == format!("{message}{reply}");
        assert!(before || own == format!("{reply}{message}"), "{own}");
        host.command(reader, &["CLIENT", "TRACKING", "OFF"]);
        host.command(reader, &["GET", "a"]);
        host.command(writer, &["SET", "a", "1"]);
        assert_eq!(take(&mut host, reader), "");
    }
}

#[test]
fn modes_say_what_is_remembered_and_told() {
    for shards in 1..=3 {
        let (mut host, reader, writer) = two(shards);
        host.command(reader, &["CLIENT", "TRACKING", "ON", "OPTIN", "NOLOOP"]);
        host.command(reader, &["GET", "a"]);
        host.command(writer, &["SET", "a", "1"]);
        assert_eq!(take(&mut host, reader), "");
        assert_eq!(host.command(reader, &["CLIENT", "CACHING", "YES"]), "+OK\r\n");
        host.command(reader, &["GET", "a"]);
        host.command(reader, &["GET", "b"]);
        host.command(writer, &["MSET", "a", "1", "b", "1"]);
        assert_eq!(take(&mut host, reader), invalidated(&["a"]));
        host.command(reader, &["CLIENT", "CACHING", "YES"]);
        host.command(reader, &["GET", "a"]);
        assert_eq!(host.command(reader, &["SET", "a", "2"]), "+OK\r\n", "no loop, {shards} shards");
        host.command(reader, &["CLIENT", "TRACKING", "OFF"]);
        let on = ["CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "user:"];
        assert_eq!(host.command(reader, &on), "+OK\r\n");
        host.command(writer, &["SET", "user:1", "1"]);
        assert_eq!(take(&mut host, reader), invalidated(&["user:1"]));
        host.command(writer, &["SET", "other", "1"]);
        assert_eq!(take(&mut host, reader), "");
    }
}

#[test]
fn a_resp2_client_hears_through_another() {
    for shards in 1..=3 {
        let mut host = Host::new(shards);
        let listener = host.connect(usize::from(shards) - 1, false);
        let reader = host.connect(0, false);
        host.command(listener, &["SUBSCRIBE", "__redis__:invalidate"]);
        // Ids count from one, in the order of connecting.
        let none = host.command(reader, &["CLIENT", "TRACKING", "ON", "REDIRECT", "99"]);
        assert_eq!(none, "-ERR The client ID you want redirect to does not exist\r\n");
        assert_eq!(host.command(reader, &["CLIENT", "TRACKING", "ON", "REDIRECT", "1"]), "+OK\r\n");
        assert_eq!(host.command(reader, &["CLIENT", "GETREDIR"]), ":1\r\n");
        for key in ["a", "b", "c"] {
            host.command(reader, &["GET", key]);
            host.command(reader, &["SET", key, "1"]);
            let expected = format!(
                "*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n*1\r\n$1\r\n{key}\r\n"
            );
            assert_eq!(take(&mut host, listener), expected);
        }
        host.hang_up(listener);
        host.command(reader, &["GET", "a"]);
        host.command(reader, &["SET", "a", "2"]);
        host.settle();
        let info = host.command(reader, &["CLIENT", "TRACKINGINFO"]);
        assert!(info.contains("broken_redirect"), "{shards} shards: {info}");
    }
}

#[test]
fn the_table_is_bounded() {
    let (mut host, reader, writer) = two(1);
    host.command(writer, &["CONFIG", "SET", "tracking-table-max-keys", "2"]);
    host.command(reader, &["CLIENT", "TRACKING", "ON"]);
    host.command(reader, &["MGET", "a", "b"]);
    assert_eq!(take(&mut host, reader), "");
    let reply = host.command(reader, &["GET", "c"]);
    assert_eq!(reply, format!("_\r\n{}", invalidated(&["a"])));
}
