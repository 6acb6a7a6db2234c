//! Limits at their bounds and one beyond, and input that nobody should send.

use logic::store::Policy;

use super::Host;

#[test]
fn keys_and_items_are_bounded_as_in_memcached() {
    let mut host = Host::new(2);
    let conn = host.connect(0);
    let (key, long) = ("k".repeat(250), "k".repeat(251));
    assert_eq!(host.text(conn, &format!("set {key} 0 0 1\r\nx\r\n")), "STORED\r\n");
    let bad = "CLIENT_ERROR bad command line format\r\n";
    for line in [
        format!("set {long} 0 0 1\r\n"),
        format!("get a {long} b\r\n"),
        format!("gat 0 {long}\r\n"),
        format!("incr {long} 1\r\n"),
        format!("touch {long} 1\r\n"),
        format!("delete {long}\r\n"),
        format!("mg {long}\r\n"),
        format!("ms {long} 1\r\n"),
        format!("md {long}\r\n"),
        format!("ma {long}\r\n"),
        format!("me {long}\r\n"),
    ] {
        assert_eq!(host.text(conn, &line), bad, "{line}");
    }
    // An item of a mebibyte counts its header, key and ends.
    let most = (1 << 20) - 59 - 1;
    let set = |len: usize| format!("set a 0 0 {len}\r\n{}\r\n", "x".repeat(len));
    assert_eq!(host.text(conn, &set(most)), "STORED\r\n");
    let large = "SERVER_ERROR object too large for cache\r\n";
    assert_eq!(host.text(conn, &format!("{}mn\r\n", set(most + 1))), format!("{large}MN\r\n"));
    assert_eq!(host.text(conn, "get a\r\n"), "END\r\n", "what was there has gone");
    assert_eq!(host.text(conn, "set a 0 0 2147483645\r\n"), large);
    assert!(host.connections[conn].input.is_empty(), "what nobody wants is not kept");
    host.send(conn, &vec![b'x'; 1 << 20]);
    assert!(host.connections[conn].input.is_empty());
}

#[test]
fn a_get_of_any_length_is_answered_as_it_comes() {
    for shards in [1, 2] {
        let mut host = Host::new(shards);
        let conn = host.connect(0);
        host.text(conn, "set key1 0 0 1\r\nx\r\n");
        let keys: String = (0..20_000).map(|key| format!(" key{}", key % 3)).collect();
        let line = format!("gets{keys}\r\nmn\r\n");
        for size in [500, 3000, line.len()] {
            let mut replies = Vec::new();
            for part in line.as_bytes().chunks(size) {
                replies.extend(host.send(conn, part));
                assert!(host.connections[conn].input.len() < 4096);
            }
            let text = String::from_utf8(replies).expect("text");
            assert_eq!(text.matches("VALUE key1 0 1 1\r\nx\r\n").count(), 6667);
            assert!(text.ends_with("END\r\nMN\r\n"));
        }
        // A key that is too long, far behind.
        let line = format!("get{keys} {}\r\nmn\r\n", "k".repeat(251));
        let replies: Vec<u8> =
            line.as_bytes().chunks(1000).flat_map(|part| host.send(conn, part)).collect();
        assert!(replies.ends_with(b"CLIENT_ERROR bad command line format\r\nMN\r\n"));
    }
}

#[test]
fn what_is_no_command_ends_the_connection_when_it_has_no_end() {
    for junk in [vec![b'x'; 2049], format!("set {}", "k".repeat(2048)).into(), vec![0x80, 0]] {
        let mut host = Host::new(1);
        let conn = host.connect(0);
        host.send(conn, &junk);
        assert!(host.connections[conn].closed);
    }
    let mut host = Host::new(1);
    let conn = host.connect(0);
    assert_eq!(host.text(conn, "GET / HTTP/1.1\r\n"), "");
    assert!(host.connections[conn].closed);
}

#[test]
fn hostile_bytes_are_answered_or_refused_but_never_crash() {
    let words: &[&str] = &[
        "get",
        "gets",
        "set",
        "cas",
        "ms",
        "mg",
        "ma",
        "md",
        "me",
        "incr",
        "a",
        "b",
        "0",
        "1",
        "5",
        "-1",
        "noreply",
        "b",
        "k",
        "N1",
        "C1",
        "\r\n",
        "\n",
        "\0",
        "\u{1}g",
        "\u{1}d",
        "Zm9v",
        " ",
        "stats",
        "flush_all",
        "99999999999999999999",
        "T",
        "Ox",
        "MA",
    ];
    let mut random = 7_u64;
    let mut below = |bound: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) as usize % bound
    };
    for round in 0..2_000 {
        let mut host = Host::new(1 + round % 2);
        host.owned = round % 3 == 0;
        let conn = host.connect(0);
        for _ in 0..30 {
            let mut bytes = Vec::new();
            for _ in 0..below(8) {
                bytes.extend_from_slice(words[below(words.len())].as_bytes());
                if below(4) > 0 {
                    bytes.push(b' ');
                }
                if below(20) == 0 {
                    bytes.push(u8::try_from(below(256)).unwrap_or(0));
                }
            }
            bytes.extend_from_slice(if below(3) > 0 { b"\r\n" } else { b"" });
            host.send(conn, &bytes);
        }
    }
}

#[test]
fn memory_has_a_limit_that_both_protocols_share() {
    let limit = 2 << 20;
    let mut host = Host::with(1, |config| config.maxmemory_bytes = limit);
    let conn = host.connect(0);
    let set = |key: usize| format!("set k{key} 3 0 1000\r\n{}\r\n", "x".repeat(1000));
    let replies: String = (0..4000).map(|key| host.text(conn, &set(key))).collect();
    assert!(replies.contains("SERVER_ERROR out of memory storing object\r\n"));
    let mut host = Host::with(1, |config| {
        config.maxmemory_bytes = limit;
        config.policy = Policy::AllKeysLru;
    });
    let conn = host.connect(0);
    let replies: String = (0..4000).map(|key| host.text(conn, &set(key))).collect();
    assert!(!replies.contains("ERROR"));
    let stats = host.text(conn, "stats\r\n");
    assert!(!stats.contains("STAT evictions 0\r\n"), "{stats}");
    assert!(host.shards[0].store.used_bytes() <= limit + 65_536);
    // What is not told costs nothing.
    let bytes = |host: &mut Host, text: &str| {
        let before = host.shards[0].store.used_bytes();
        host.text(conn, text);
        host.shards[0].store.used_bytes() - before
    };
    let mut host = Host::new(1);
    host.connect(0);
    let set = |key: &str, flags: u32| {
        format!("set {} {flags} 0 64\r\n{}\r\n", key.repeat(16), "v".repeat(64))
    };
    bytes(&mut host, &set("a", 0));
    assert_eq!(bytes(&mut host, &set("b", 0)), 88);
    assert_eq!(bytes(&mut host, "gets bbbbbbbbbbbbbbbb\r\n"), 8, "a CAS unique and its length");
    assert_eq!(bytes(&mut host, &set("c", 5)), 88, "flags of a byte fill the slot");
}
