//! Rate limits over a clock that the test moves.

use super::support::Host;

fn check(host: &mut Host, conn: usize, words: &str) -> Vec<i64> {
    let words: Vec<&str> = words.split(' ').collect();
    let reply = host.command(conn, &words);
    let mut lines = reply.split("\r\n");
    assert_eq!(lines.next(), Some("*5"), "{reply}");
    lines.filter_map(|line| line.strip_prefix(':')?.parse().ok()).collect()
}

#[test]
fn throttle_follows_the_clock_and_forgets_when_idle() {
    for shards in [1, 3] {
        let mut host = Host::new(shards);
        let conn = host.connect(0, false);
        let ask = "CL.THROTTLE k 1 2 1";
        assert_eq!(check(&mut host, conn, ask), [0, 2, 1, -1, 1]);
        assert_eq!(check(&mut host, conn, ask), [0, 2, 0, -1, 1]);
        assert_eq!(check(&mut host, conn, ask), [1, 2, 0, 1, 1]);
        host.advance_ms(499);
        assert_eq!(check(&mut host, conn, ask), [1, 2, 0, 1, 1]);
        host.advance_ms(1);
        assert_eq!(check(&mut host, conn, ask), [0, 2, 0, -1, 1]);
        host.advance_ms(999);
        assert_eq!(host.command(conn, &["EXISTS", "k"]), ":1\r\n");
        // A key is due when its time has passed.
        host.advance_ms(2);
        assert_eq!(host.command(conn, &["EXISTS", "k"]), ":0\r\n");
    }
}

#[test]
fn every_algorithm_keeps_a_key_just_as_long_as_it_matters() {
    for algorithm in
        ["token-bucket", "leaky-bucket", "fixed-window", "sliding-log", "sliding-counter"]
    {
        let mut host = Host::new(2);
        let conn = host.connect(0, false);
        let ask = format!("RL.CHECK k {algorithm} 3 700ms");
        let mut answer = check(&mut host, conn, &ask);
        assert_eq!(answer[0], 1, "{algorithm}");
        while answer[0] == 1 {
            answer = check(&mut host, conn, &ask);
        }
        let (retry, reset) = (answer[3].unsigned_abs(), answer[4].unsigned_abs());
        let mut passed = 0;
        if retry < reset {
            passed = retry;
            host.advance_ms(retry);
            let looked = check(&mut host, conn, &format!("{ask} 0"));
            assert!(looked[2] >= 1, "{algorithm}: {looked:?}");
        }
        host.advance_ms(reset - passed - 1);
        assert_eq!(host.command(conn, &["EXISTS", "k"]), ":1\r\n", "{algorithm}");
        // A key is due when its time has passed.
        host.advance_ms(2);
        assert_eq!(host.command(conn, &["EXISTS", "k"]), ":0\r\n", "{algorithm}");
    }
}

#[test]
fn no_room_is_told_before_anything_is_used() {
    let mut host = Host::with(1, |config| config.maxmemory_bytes = 1);
    let conn = host.connect(0, false);
    for words in
        [&["CL.THROTTLE", "k", "1", "1", "1"][..], &["RL.CHECK", "k", "fixed-window", "1", "1"]]
    {
        host.command(conn, &["CONFIG", "SET", "maxmemory", "0"]);
        host.command(conn, &["SET", "full", "x"]);
        host.command(conn, &["CONFIG", "SET", "maxmemory", "1"]);
        assert!(host.command(conn, words).starts_with("-OOM"), "{words:?}");
        assert_eq!(host.command(conn, &["EXISTS", "k"]), ":0\r\n");
    }
}
