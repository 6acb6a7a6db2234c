//! What is asked and what is answered, as memcached 1.6.18 answers it, but for the numbers of CAS uniques.

use super::Host;

include!("../../../tests/memcached/transcripts.in");

fn script(pairs: &[(&str, &str)]) -> (Vec<u8>, Vec<u8>) {
    let join = |side: fn(&(&str, &str)) -> String| pairs.iter().map(side).collect::<String>();
    let requests = join(|pair| pair.0.to_owned()).into_bytes();
    (requests, join(|pair| pair.1.to_owned()).into_bytes())
}

#[test]
fn every_request_is_answered_as_by_memcached() {
    for (name, pairs) in [("text", TEXT), ("meta", META)] {
        let mut host = Host::new(1);
        let conn = host.connect(0);
        for (request, reply) in pairs {
            assert_eq!(host.text(conn, request), *reply, "{name}: {request:?}");
        }
    }
}

#[test]
fn a_pipeline_split_anywhere_gives_the_same_replies() {
    for pairs in [TEXT, META] {
        let (requests, expected) = script(pairs);
        for owned in [false, true] {
            for at in 0..requests.len() {
                let mut host = Host::new(1);
                host.owned = owned;
                let conn = host.connect(0);
                let (head, tail) = requests.split_at(at);
                let mut replies = host.send(conn, head);
                replies.extend(host.send(conn, tail));
                assert!(replies == expected, "split at {at}");
            }
        }
        let mut host = Host::new(1);
        let conn = host.connect(0);
        let bytewise: Vec<u8> = requests.chunks(1).flat_map(|byte| host.send(conn, byte)).collect();
        assert!(bytewise == expected);
    }
}

/// Each shard counts CAS uniques for itself: the second item that is told one ends the comparison.
#[test]
fn several_shards_answer_as_one() {
    let (requests, expected) = script(TEXT);
    for shards in 2..5 {
        for entry in 0..usize::from(shards) {
            let mut host = Host::new(shards);
            let conn = host.connect(entry);
            let replies = host.send(conn, &requests);
            assert_eq!(String::from_utf8_lossy(&replies), String::from_utf8_lossy(&expected));
            assert!(host.asked > 0);
        }
    }
    for entry in 0..2 {
        let mut host = Host::new(2);
        let conn = host.connect(entry);
        for (request, reply) in META.iter().take_while(|pair| !pair.0.starts_with("ms s 1 c")) {
            assert_eq!(host.text(conn, request), *reply, "{request:?}");
        }
    }
}

#[test]
fn items_end_by_the_second_and_flushes_come_when_due() {
    let mut host = Host::new(2);
    let conn = host.connect(0);
    host.text(conn, "set a 0 2 1\r\nx\r\nset b 0 1700000003 1\r\nx\r\nset c 0 0 1\r\nx\r\n");
    host.advance_s(1);
    assert_eq!(host.text(conn, "mg a t\r\nmg b t\r\nmg c t\r\n"), "HD t1\r\nHD t2\r\nHD t-1\r\n");
    host.advance_s(1);
    assert_eq!(host.text(conn, "get a b\r\n"), "VALUE b 0 1\r\nx\r\nEND\r\n");
    host.advance_s(1);
    assert_eq!(host.text(conn, "get a b c\r\n"), "VALUE c 0 1\r\nx\r\nEND\r\n");
    host.text(conn, "set a 0 0 1\r\nx\r\nflush_all 3\r\nset b 0 0 1\r\ny\r\n");
    host.advance_s(1);
    assert_eq!(host.text(conn, "mg a\r\nmg b\r\nmg c\r\n"), "HD\r\nHD\r\nHD\r\n");
    host.advance_s(1);
    assert_eq!(host.text(conn, "mg a\r\nmg b\r\nmg c\r\n"), "EN\r\nEN\r\nEN\r\n");
    assert_eq!(host.text(conn, "set a 0 0 1\r\nx\r\n"), "STORED\r\n");
    host.advance_s(1);
    assert_eq!(host.text(conn, "mg a l\r\n"), "HD l1\r\n");
    assert_eq!(host.text(conn, "mg a l\r\n"), "HD l0\r\n");
}
