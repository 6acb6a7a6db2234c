//! Users, slow commands, monitors and pauses, on one shard and on two.

use std::cell::Cell;
use std::rc::Rc;

use super::support::Host;

const NOPERM: &str = "-NOPERM this user has no permissions to ";

/// Runs a script on a host of one shard and on one of two.
fn on_one_and_two(script: impl Fn(Host)) {
    script(Host::new(1));
    script(Host::new(2));
}

/// A clock that moves by so many microseconds whenever it is read.
fn set_clock(host: &mut Host, step_us: u64) {
    for shard in &mut host.shards {
        let time = Rc::new(Cell::new(0));
        shard.set_clock(Box::new(move || {
            time.set(time.get() + step_us * 1_000);
            time.get()
        }));
    }
}

#[test]
fn a_user_may_do_what_the_rules_say() {
    on_one_and_two(|mut host| {
        let admin = host.connect(0, false);
        let conn = host.connect(host.shards.len() - 1, false);
        let rules =
            ["ACL", "SETUSER", "ann", "on", ">pw", "~k*", "+@string", "+ping", "+acl|whoami"];
        assert_eq!(host.command(admin, &rules), "+OK\r\n");
        assert!(host.command(conn, &["AUTH", "ann", "no"]).starts_with("-WRONGPASS"));
        assert_eq!(host.command(conn, &["AUTH", "ann", "pw"]), "+OK\r\n");
        assert_eq!(host.command(conn, &["ACL", "WHOAMI"]), "$3\r\nann\r\n");
        for key in ["k1", "k2", "k3", "k4"] {
            assert_eq!(host.command(conn, &["SET", key, "1"]), "+OK\r\n");
            assert_eq!(host.command(conn, &["GET", key]), "$1\r\n1\r\n");
        }
        for key in ["a", "b", "c", "d"] {
            let reply = host.command(conn, &["GET", key]);
            assert_eq!(reply, format!("{NOPERM}access one of the keys used as arguments\r\n"));
            assert!(host.command(conn, &["MGET", "k1", key, "k3"]).starts_with(NOPERM));
        }
        let reply = host.command(conn, &["DEL", "k1"]);
        assert_eq!(reply, format!("{NOPERM}run the 'del' command\r\n"));
        assert!(host.command(conn, &["CONFIG", "GET", "*"]).contains("'config|get'"));
        // Changes hold at once, on every shard.
        assert_eq!(host.command(admin, &["ACL", "SETUSER", "ann", "+del", "-get"]), "+OK\r\n");
        assert_eq!(host.command(conn, &["DEL", "k1"]), ":1\r\n");
        assert!(host.command(conn, &["GET", "k2"]).starts_with(NOPERM));
        let log = host.command(admin, &["ACL", "LOG"]);
        assert!(
            log.contains("username") && log.contains("ann") && log.contains("user=ann"),
            "{log}"
        );
        assert_eq!(host.command(admin, &["ACL", "LOG", "RESET"]), "+OK\r\n");
        assert_eq!(host.command(admin, &["ACL", "LOG"]), "*0\r\n");
        // Whoever is deleted is gone.
        assert_eq!(host.command(admin, &["ACL", "DELUSER", "ann", "bob"]), ":1\r\n");
        assert!(host.is_closed(conn));
    });
}

#[test]
fn the_default_user_has_the_password() {
    on_one_and_two(|mut host| {
        let (admin, old) = (host.connect(0, false), host.connect(0, false));
        assert_eq!(host.command(admin, &["CONFIG", "SET", "requirepass", "pw"]), "+OK\r\n");
        let conn = host.connect(host.shards.len() - 1, false);
        assert_eq!(host.command(conn, &["GET", "a"]), "-NOAUTH Authentication required.\r\n");
        assert_eq!(host.command(old, &["GET", "a"]), "$-1\r\n", "it was in before");
        assert_eq!(host.command(conn, &["AUTH", "pw"]), "+OK\r\n");
        assert_eq!(host.command(conn, &["GET", "a"]), "$-1\r\n");
        assert_eq!(host.command(conn, &["RESET"]), "+RESET\r\n");
        assert!(host.command(conn, &["GET", "a"]).starts_with("-NOAUTH"));
        assert_eq!(host.command(admin, &["ACL", "SETUSER", "default", "nopass"]), "+OK\r\n");
        assert_eq!(host.command(conn, &["GET", "a"]), "$-1\r\n");
        // One that may do little is looked at, one that may do everything again is not.
        assert_eq!(host.command(admin, &["ACL", "SETUSER", "default", "-get"]), "+OK\r\n");
        for conn in [admin, old, conn] {
            assert!(host.command(conn, &["GET", "a"]).starts_with(NOPERM));
        }
        assert_eq!(host.command(admin, &["ACL", "SETUSER", "default", "+@all"]), "+OK\r\n");
        assert_eq!(host.command(conn, &["GET", "a"]), "$-1\r\n");
    });
}

#[test]
fn slow_commands_are_kept() {
    on_one_and_two(|mut host| {
        set_clock(&mut host, 20_000);
        let conn = host.connect(0, false);
        host.command(conn, &["SET", "a", "1"]);
        host.command(conn, &["GET", "a"]);
        assert_eq!(host.command(conn, &["SLOWLOG", "LEN"]), ":0\r\n", "short ones are not timed");
        host.command(conn, &["LRANGE", "l", "0", "-1"]);
        // What waits for other shards is not timed; alone, SLOWLOG LEN is.
        let count = if host.shards.len() == 1 { ":2\r\n" } else { ":1\r\n" };
        assert_eq!(host.command(conn, &["SLOWLOG", "LEN"]), count);
        let entries = host.command(conn, &["SLOWLOG", "GET"]);
        assert!(entries.contains(":20000\r\n*4\r\n$6\r\nLRANGE\r\n"), "{entries}");
        assert_eq!(host.command(conn, &["SLOWLOG", "RESET"]), "+OK\r\n");
        // Below a millisecond, every command is timed.
        host.command(conn, &["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
        host.command(conn, &["GET", "a"]);
        host.command(conn, &["AUTH", "secret"]);
        let entries = host.command(conn, &["SLOWLOG", "GET", "-1"]);
        assert!(entries.contains("$3\r\nGET\r\n$1\r\na\r\n"), "{entries}");
        assert!(entries.contains("(redacted)") && !entries.contains("secret"), "{entries}");
        host.command(conn, &["CONFIG", "SET", "slowlog-max-len", "0"]);
        assert_eq!(host.command(conn, &["SLOWLOG", "LEN"]), ":0\r\n");
        host.command(conn, &["CONFIG", "SET", "latency-monitor-threshold", "10"]);
        host.command(conn, &["LRANGE", "l", "0", "-1"]);
        let latest = host.command(conn, &["LATENCY", "LATEST"]);
        assert!(latest.contains("command") && latest.contains(":20\r\n"), "{latest}");
        assert!(host.command(conn, &["LATENCY", "GRAPH", "command"]).contains("high 20 ms"));
        host.command(conn, &["CONFIG", "SET", "latency-tracking", "yes"]);
        host.command(conn, &["GET", "a"]);
        let histogram = host.command(conn, &["LATENCY", "HISTOGRAM", "get"]);
        assert!(histogram.contains("calls\r\n:1\r\n"), "{histogram}");
    });
}

#[test]
fn a_monitor_sees_the_commands_of_all_shards() {
    on_one_and_two(|mut host| {
        let last = host.shards.len() - 1;
        let (monitor, conn) = (host.connect(0, false), host.connect(last, false));
        host.command(conn, &["SELECT", "3"]);
        assert_eq!(host.command(monitor, &["MONITOR"]), "+OK\r\n");
        for key in ["a", "b", "c", "d"] {
            host.command(conn, &["SET", key, "\n"]);
        }
        host.command(conn, &["MGET", "a", "b", "c", "d"]);
        host.command(conn, &["AUTH", "secret"]);
        host.command(conn, &["CONFIG", "GET", "x"]);
        let seen = String::from_utf8_lossy(&host.take(monitor)).into_owned();
        let lines: Vec<&str> = seen.lines().collect();
        assert_eq!(lines.len(), 6, "{seen}");
        assert!(lines[0].starts_with("+1700000000.000000 [3 127.0.0.1:5"), "{seen}");
        assert!(lines[0].ends_with(r#"] "SET" "a" "\n""#), "{seen}");
        assert!(lines[4].ends_with(r#""MGET" "a" "b" "c" "d""#), "{seen}");
        assert!(lines[5].ends_with(r#""AUTH" "(redacted)""#), "{seen}");
        assert_eq!(host.command(monitor, &["RESET"]), "+RESET\r\n");
        host.take(monitor);
        host.command(conn, &["GET", "a"]);
        assert_eq!(host.take(monitor), b"");
    });
}

#[test]
fn a_pause_holds_commands_back() {
    on_one_and_two(|mut host| {
        let admin = host.connect(0, false);
        let conn = host.connect(host.shards.len() - 1, false);
        assert_eq!(host.command(admin, &["CLIENT", "PAUSE", "100", "WRITE"]), "+OK\r\n");
        assert_eq!(host.command(conn, &["GET", "a"]), "$-1\r\n");
        for key in ["a", "b", "c"] {
            assert_eq!(host.command(conn, &["SET", key, "1"]), "");
        }
        host.advance_ms(50);
        host.settle();
        assert_eq!(host.take(conn), b"");
        host.advance_ms(60);
        host.settle();
        assert_eq!(host.take(conn), b"+OK\r\n+OK\r\n+OK\r\n");
        assert_eq!(host.command(admin, &["CLIENT", "PAUSE", "100000", "WRITE"]), "+OK\r\n");
        assert_eq!(host.command(conn, &["DEL", "a", "b", "c"]), "");
        assert_eq!(host.command(admin, &["CLIENT", "UNPAUSE"]), "+OK\r\n");
        host.advance_ms(10);
        host.settle();
        assert_eq!(host.take(conn), b":3\r\n");
    });
}

#[test]
fn a_pause_holds_transactions_that_write_back() {
    on_one_and_two(|mut host| {
        let admin = host.connect(0, false);
        let conn = host.connect(host.shards.len() - 1, false);
        for command in ["MULTI", "GET a"] {
            host.command(conn, &command.split(' ').collect::<Vec<_>>());
        }
        assert_eq!(host.command(admin, &["CLIENT", "PAUSE", "100", "WRITE"]), "+OK\r\n");
        assert_eq!(host.command(conn, &["EXEC"]), "*1\r\n$-1\r\n", "it only reads");
        host.advance_ms(110);
        host.settle();
        for command in ["MULTI", "SET a 1"] {
            host.command(conn, &command.split(' ').collect::<Vec<_>>());
        }
        assert_eq!(host.command(admin, &["CLIENT", "PAUSE", "100", "WRITE"]), "+OK\r\n");
        assert_eq!(host.command(conn, &["EXEC"]), "");
        assert_eq!(host.command(admin, &["GET", "a"]), "$-1\r\n");
        host.advance_ms(110);
        host.settle();
        assert_eq!(host.take(conn), b"*1\r\n+OK\r\n");
    });
}

#[test]
fn replies_can_be_left_out() {
    on_one_and_two(|mut host| {
        let conn = host.connect(0, false);
        assert_eq!(host.command(conn, &["CLIENT", "REPLY", "OFF"]), "");
        for key in ["a", "b", "c", "d"] {
            assert_eq!(host.command(conn, &["SET", key, "1"]), "");
        }
        assert_eq!(host.command(conn, &["MGET", "a", "b", "c"]), "");
        assert_eq!(host.command(conn, &["NOSUCH"]), "");
        assert_eq!(host.command(conn, &["CLIENT", "REPLY", "ON"]), "+OK\r\n");
        for key in ["a", "b", "c", "d"] {
            assert_eq!(host.command(conn, &["CLIENT", "REPLY", "SKIP"]), "");
            assert_eq!(host.command(conn, &["GET", key]), "");
            assert_eq!(host.command(conn, &["GET", key]), "$1\r\n1\r\n");
        }
    });
}

#[test]
fn databases_are_exchanged_and_keys_moved() {
    on_one_and_two(|mut host| {
        let conn = host.connect(0, true);
        for key in ["a", "b", "c", "d"] {
            assert_eq!(host.command(conn, &["SET", key, key]), "+OK\r\n");
        }
        assert_eq!(host.command(conn, &["SWAPDB", "0", "1"]), "+OK\r\n");
        assert_eq!(host.command(conn, &["MGET", "a", "b"]), "*2\r\n$-1\r\n$-1\r\n");
        assert_eq!(host.command(conn, &["SELECT", "1"]), "+OK\r\n");
        for key in ["a", "b", "c", "d"] {
            assert_eq!(host.command(conn, &["MOVE", key, "0"]), ":1\r\n");
            assert_eq!(host.command(conn, &["MOVE", key, "0"]), ":0\r\n");
        }
        assert_eq!(host.command(conn, &["SELECT", "0"]), "+OK\r\n");
        let all = "*4\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n";
        assert_eq!(host.command(conn, &["MGET", "a", "b", "c", "d"]), all);
    });
}

#[test]
fn a_client_can_stop_the_server() {
    let mut host = Host::new(1);
    let conn = host.connect(0, false);
    assert_eq!(host.command(conn, &["SHUTDOWN", "ABORT"]), "-ERR No shutdown in progress.\r\n");
    assert_eq!(host.command(conn, &["SHUTDOWN", "SAVE", "NOSAVE"]), "-ERR syntax error\r\n");
    assert!(!host.shards[0].wants_to_stop());
    assert_eq!(host.command(conn, &["SHUTDOWN", "NOSAVE"]), "");
    assert!(host.is_closed(conn) && host.shards[0].wants_to_stop());
}
