//! Scripts with several shards: keys they declare and keys they do not, what is undone, and hostile ones.

use super::support::Host;

/// Two integers from anywhere are equal when nothing was lost or done twice.
fn sum(host: &mut Host, conn: usize, keys: &[&str]) -> i64 {
    keys.iter()
        .map(|key| {
            let reply = host.command(conn, &["GET", key]);
            let text = reply.split("\r\n").nth(1).unwrap_or("0");
            text.parse::<i64>().unwrap_or(0)
        })
        .sum()
}

fn assert_tidy(host: &Host) {
    for shard in &host.shards {
        assert!(shard.locks.is_empty(), "locks are left");
        assert_eq!(shard.lent, 0, "keys are left with a borrower");
        assert!(shard.parked.is_empty(), "requests are left");
    }
}

#[test]
fn undeclared_keys_work() {
    for shards in 1..=3 {
        for connected in 0..shards {
            let mut host = Host::new(shards);
            let conn = host.connect(usize::from(connected), false);
            let script = "for i=1,20 do redis.call('set','k'..i,i) end \
                          local s=0 for i=1,20 do s=s+redis.call('get','k'..i) end return s";
            assert_eq!(host.command(conn, &["EVAL", script, "0"]), ":210\r\n");
            for key in 1..=20 {
                let reply = host.command(conn, &["GET", &format!("k{key}")]);
                assert_eq!(reply, format!("${}\r\n{key}\r\n", key.to_string().len()));
            }
            assert_eq!(host.command(conn, &["DBSIZE"]), ":20\r\n");
            assert_tidy(&host);
        }
    }
}

#[test]
fn what_a_run_wrote_before_it_wanted_more_is_done_once() {
    for shards in 2..=3 {
        let mut host = Host::new(shards);
        let conn = host.connect(0, false);
        for key in ["a", "b", "c", "d", "e", "f"] {
            host.command(conn, &["RPUSH", &format!("list:{key}"), "x"]);
        }
        let script = "for _,k in ipairs({'a','b','c','d','e','f'}) do \
                      redis.call('incr',k) redis.call('rpush','list:'..k,'y') end return 'done'";
        for round in 1..=3 {
            assert_eq!(host.command(conn, &["EVAL", script, "0"]), "$4\r\ndone\r\n");
            let total = sum(&mut host, conn, &["a", "b", "c", "d", "e", "f"]);
            assert_eq!(total, 6 * round);
        }
        for key in ["a", "b", "c", "d", "e", "f"] {
            assert_eq!(host.command(conn, &["LLEN", &format!("list:{key}")]), ":4\r\n");
        }
        assert_tidy(&host);
    }
}

#[test]
fn declared_keys_of_one_other_shard_run_there() {
    let mut host = Host::new(2);
    for shard in 0..2 {
        let conn = host.connect(shard, false);
        for key in ["a", "b", "c", "d"] {
            let script = "return redis.call('incrby',KEYS[1],ARGV[1])";
            let reply = host.command(conn, &["EVAL", script, "1", key, "5"]);
            assert_eq!(reply, format!(":{}\r\n", 5 * (shard + 1)));
            // And one more key, which is not declared.
            let script = "redis.call('incr',KEYS[1]) redis.call('decr',KEYS[1]) \
                          return redis.call('incr',ARGV[1])";
            let other = format!("other:{key}");
            let reply = host.command(conn, &["EVAL", script, "1", key, &other]);
            assert_eq!(reply, format!(":{}\r\n", shard + 1));
        }
    }
    assert_tidy(&host);
}

#[test]
fn scripts_at_the_same_time_do_not_mix() {
    for seed in 0..40 {
        let shards = 2 + (seed % 2) as u16;
        let mut host = Host::new(shards);
        host.seed(seed);
        let connections: Vec<usize> =
            (0..4).map(|at| host.connect(at % usize::from(shards), false)).collect();
        let keys = ["p", "q", "r", "s", "t", "u"];
        // Moves one from a key to another: the sum stays. Each reads what the other has written.
        let script = "local a = redis.call('get',ARGV[1]) or 0 local b = redis.call('get',ARGV[2]) or 0 \
                      redis.call('set',ARGV[1],a-1) redis.call('set',ARGV[2],b+1) return 1";
        for round in 0..10 {
            for &conn in &connections {
                let from = keys[host.random(keys.len())];
                let to = keys[host.random(keys.len())];
                if from == to {
                    continue;
                }
                let command = if round % 2 == 0 {
                    super::support::encode(&[
                        b"EVAL",
                        script.as_bytes(),
                        b"0",
                        from.as_bytes(),
                        to.as_bytes(),
                    ])
                } else {
                    let declared = script.replace("ARGV", "KEYS");
                    super::support::encode(&[
                        b"EVAL",
                        declared.as_bytes(),
                        b"2",
                        from.as_bytes(),
                        to.as_bytes(),
                    ])
                };
                host.feed(conn, &command);
            }
            if round % 3 == 0 {
                for _ in 0..7 {
                    host.step();
                }
            }
        }
        host.settle();
        for &conn in &connections {
            let replies = host.take(conn);
            assert!(!replies.contains(&b'-'), "{}", String::from_utf8_lossy(&replies));
        }
        let conn = connections[0];
        assert_eq!(sum(&mut host, conn, &keys), 0, "seed {seed}");
        assert_tidy(&host);
    }
}

#[test]
fn databases_and_moves_are_followed() {
    let mut host = Host::new(3);
    let conn = host.connect(0, false);
    for key in ["a", "b", "c", "d"] {
        let script = format!(
            "redis.call('set','{key}','zero') redis.call('select',1) redis.call('set','{key}','one') \
             redis.call('select',0) redis.call('copy','{key}','{key}','db',2) \
             return redis.call('exists','{key}')"
        );
        assert_eq!(host.command(conn, &["EVAL", &script, "0"]), ":1\r\n");
        for (db, value) in [("1", "$3\r\none\r\n"), ("2", "$4\r\nzero\r\n")] {
            host.command(conn, &["SELECT", db]);
            assert_eq!(host.command(conn, &["GET", key]), value, "{key} in {db}");
        }
        host.command(conn, &["SELECT", "0"]);
    }
    assert_tidy(&host);
}

#[test]
fn scripts_and_functions_are_known_to_all_shards() {
    let mut host = Host::new(3);
    let connections: Vec<usize> = (0..3).map(|shard| host.connect(shard, false)).collect();
    host.command(connections[0], &["EVAL", "return 1", "0"]);
    let sha = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
    for &conn in &connections {
        assert_eq!(host.command(conn, &["EVALSHA", sha, "0"]), ":1\r\n");
        assert_eq!(host.command(conn, &["SCRIPT", "EXISTS", sha]), "*1\r\n:1\r\n");
    }
    host.command(connections[1], &["SCRIPT", "FLUSH"]);
    for &conn in &connections {
        let reply = host.command(conn, &["EVALSHA", sha, "0"]);
        assert!(reply.starts_with("-NOSCRIPT"), "{reply}");
    }
    let code = "#!lua name=l\nredis.register_function('f', function(keys) \
                return redis.call('incr', keys[1]) end)";
    host.command(connections[2], &["FUNCTION", "LOAD", code]);
    for (at, &conn) in connections.iter().enumerate() {
        for key in ["a", "b", "c"] {
            let reply = host.command(conn, &["FCALL", "f", "1", key]);
            assert_eq!(reply, format!(":{}\r\n", at + 1));
        }
    }
    host.command(connections[0], &["FUNCTION", "DELETE", "l"]);
    for &conn in &connections {
        assert_eq!(host.command(conn, &["FCALL", "f", "0"]), "-ERR Function not found\r\n");
    }
    assert_tidy(&host);
}

#[test]
fn what_cannot_be_done_with_several_shards_is_an_error() {
    let mut host = Host::new(2);
    let conn = host.connect(0, false);
    let reply = host.command(conn, &["EVAL", "return redis.call('swapdb', 0, 1)", "0"]);
    assert!(reply.starts_with("-ERR This command concerns all shards"), "{reply}");
    let script = "for i=1,1000 do redis.call('incr','k'..i) end return 1";
    let reply = host.command(conn, &["EVAL", script, "0"]);
    assert!(reply.contains("declare all keys in KEYS"), "{reply}");
    assert_eq!(host.command(conn, &["DBSIZE"]), ":0\r\n");
    assert_tidy(&host);
    let mut host = Host::new(1);
    let conn = host.connect(0, false);
    assert_eq!(host.command(conn, &["EVAL", "return redis.call('swapdb', 0, 1)", "0"]), "+OK\r\n");
    assert_eq!(host.command(conn, &["EVAL", script, "0"]), ":1\r\n");
}

/// What scripts do with all keys: the same with any number of shards.
const ALL_KEYS: &[(&str, &str)] = &[
    ("return redis.call('dbsize')", ":40\r\n"),
    ("redis.call('set','more',1) return redis.call('dbsize')", ":41\r\n"),
    ("return #redis.call('keys','key:1*')", ":11\r\n"),
    ("return #redis.call('keys','*') + #redis.call('keys','none*')", ":41\r\n"),
    ("return string.sub(redis.call('randomkey'),1,1)", ""),
    (
        "local c,n = '0',0 repeat local r = redis.call('scan',c,'match','key:*') c = r[1] n = n + #r[2] \
         until c == '0' return n",
        ":40\r\n",
    ),
    // A write is seen by what follows it.
    ("redis.call('del','more','key:39') return redis.call('dbsize')", ":39\r\n"),
    // More keys than a script could want one by one.
    ("for i=1,600 do redis.call('set', KEYS[i], i) end return redis.call('dbsize')", "declared"),
    (
        "local n = 0 for _,k in ipairs(redis.call('keys','many:*')) do n = n + redis.call('del',k) end return n",
        ":600\r\n",
    ),
    (
        "local c,n = '0',0 repeat local r = redis.call('scan',c) c = r[1] for _,k in ipairs(r[2]) do \
         n = n + redis.call('del',k) end until c == '0' return {n, redis.call('dbsize')}",
        "*2\r\n:39\r\n:0\r\n",
    ),
    (
        "redis.call('mset','a',1,'b',2,'c',3,'d',4) redis.call('select',1) redis.call('set','e',5) return 1",
        ":1\r\n",
    ),
    (
        "redis.call('set','f',6) redis.call('flushdb') redis.call('set','b',7) \
         return {redis.call('dbsize'), redis.call('get','a') == false, redis.call('keys','*')[1]}",
        "*3\r\n:1\r\n:1\r\n$1\r\nb\r\n",
    ),
    ("redis.call('select',1) return redis.call('dbsize')", ":1\r\n"),
    (
        "redis.call('flushall') redis.call('incr','n') redis.call('rpush','l','x','y') return redis.call('llen','l')",
        ":2\r\n",
    ),
    ("redis.call('select',1) return redis.call('dbsize')", ":0\r\n"),
    (
        "return {redis.call('dbsize'), redis.call('get','n'), redis.call('lrange','l',0,-1)}",
        "*3\r\n:2\r\n$1\r\n1\r\n*2\r\n$1\r\nx\r\n$1\r\ny\r\n",
    ),
];

#[test]
fn scripts_see_and_empty_all_keys() {
    let many: Vec<String> = (1..=600).map(|key| format!("many:{key}")).collect();
    for (shards, at) in [(1, 0), (2, 0), (2, 1), (3, 2)] {
        let mut host = Host::new(shards);
        let conn = host.connect(at, false);
        for key in 0..40 {
            host.command(conn, &["SET", &format!("key:{key}"), "v"]);
        }
        for (script, expected) in ALL_KEYS {
            let declares = *expected == "declared";
            let mut command = vec!["EVAL", script, if declares { "600" } else { "0" }];
            command.extend(many.iter().filter(|_| declares).map(String::as_str));
            let reply = host.command(conn, &command);
            match *expected {
                "" => assert!(reply == "$1\r\nk\r\n" || reply == "$1\r\nm\r\n", "{reply}"),
                "declared" => assert_eq!(reply, ":639\r\n"),
                expected => assert_eq!(reply, expected, "{shards} shards at {at}: {script}"),
            }
            assert_tidy(&host);
        }
        // From another connection everything is where it belongs.
        let other = host.connect(0, false);
        assert_eq!(host.command(other, &["DBSIZE"]), ":2\r\n");
        assert_eq!(host.command(other, &["MGET", "n", "a"]), "*2\r\n$1\r\n1\r\n$-1\r\n");
    }
}

/// With several shards a script may run more than once; what it publishes is heard once.
#[test]
fn what_scripts_publish_is_heard_once() {
    for shards in 1..=3 {
        let mut host = Host::new(shards);
        let listeners: Vec<usize> =
            (0..usize::from(shards)).map(|shard| host.connect(shard, false)).collect();
        for &listener in &listeners {
            host.command(listener, &["SUBSCRIBE", "c"]);
        }
        let conn = host.connect(0, false);
        let script = "redis.call('publish','c','m') for i=1,9 do redis.call('incr','k'..i) end \
                      return redis.call('publish','c','n')";
        // Those of the script's own shard are counted.
        assert_eq!(host.command(conn, &["EVAL", script, "0"]), ":1\r\n");
        host.settle();
        host.carry_mail();
        for &listener in &listeners {
            let heard = String::from_utf8_lossy(&host.take(listener)).into_owned();
            let message = |text| format!("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\n{text}\r\n");
            assert_eq!(heard, message("m") + &message("n"));
        }
        assert_tidy(&host);
    }
}

#[test]
fn connections_that_go_away_leave_nothing_behind() {
    for steps in 0..40 {
        let mut host = Host::new(2);
        let conn = host.connect(0, false);
        let script = "for i=1,6 do redis.call('incr','k'..i) end return 1";
        host.feed(conn, &super::support::encode(&[b"EVAL", script.as_bytes(), b"0"]));
        for _ in 0..steps {
            host.step();
        }
        host.hang_up(conn);
        host.settle();
        let conn = host.connect(1, false);
        let total = sum(&mut host, conn, &["k1", "k2", "k3", "k4", "k5", "k6"]);
        assert!(total == 0 || total == 6, "{total} after {steps} steps");
        assert_tidy(&host);
    }
}

#[test]
fn scripts_end_when_they_run_too_long() {
    let mut host = Host::new(1);
    let conn = host.connect(0, false);
    host.command(conn, &["CONFIG", "SET", "busy-reply-threshold", "1"]);
    for script in [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "while true do xpcall(function() while true do end end, function() while true do end end) end",
        "local co = coroutine.wrap(function() while true do end end) while true do pcall(co) end",
        "table.sort({3,2,1}, function() while true do end end)",
        "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
    ] {
        let reply = host.command(conn, &["EVAL", script, "0"]);
        assert!(reply.starts_with("-ERR Script ended after 12 ms"), "{script}: {reply}");
    }
    assert_eq!(host.command(conn, &["EVAL", "return 1", "0"]), ":1\r\n");
    let reply = host.command(conn, &["FUNCTION", "LOAD", "#!lua name=a\nwhile true do end"]);
    assert!(reply.contains("FUNCTION LOAD timeout"), "{reply}");
}

#[test]
fn hostile_scripts_do_no_harm() {
    let mut host = Host::new(1);
    let conn = host.connect(0, false);
    for script in [
        "return string.rep('x', 2^31)",
        "local t = {} for i=1,1e9 do t[i] = string.rep('x', 1e6)..i end",
        "local s = 'x' while true do s = s..s end",
        "local function f() return f() + 1 end return f()",
        "local t = {} for i=1,1e5 do t = {t} end return t",
        "local t = {} t[1] = t return t",
        "return cjson.encode(string.rep('\\0', 1e8))",
        "return cjson.decode(string.rep('[', 1e6))",
        "return cjson.decode(string.rep('{\"a\":', 1e6))",
        "cjson.encode_max_depth(1e9) local t = {} for i=1,1e5 do t = {t} end return cjson.encode(t)",
        "cjson.encode_sparse_array(true,0,0) return #cjson.encode({[1e9]=1})",
        "return cmsgpack.unpack(string.rep('\\145', 1e6))",
        "return cmsgpack.unpack(string.rep('\\129', 1e6))",
        "return cmsgpack.unpack(string.rep('\\1', 1e6))",
        "return cmsgpack.unpack('\\221\\255\\255\\255\\255')",
        "return struct.pack('c2147483647', 'x')",
        "return struct.unpack(string.rep('b', 1e5), string.rep('x', 1e5))",
        "return struct.unpack('!1073741824i32i32', string.rep('x', 100))",
        "return loadstring('\\27Lua')",
        "return load(function() return '\\27Lua' end)",
        "return string.dump(loadstring('return 1'))",
        "return unpack({}, 1, 1e8)",
        "return redis.call(unpack({'del', unpack({1,2,3}, 1, 6000)}))",
        "collectgarbage('stop') return 1",
        "getmetatable('').__index = nil return 1",
        "return redis.call('set', 'k', string.rep('x', 1e6), 'EX')",
    ] {
        let reply = host.command(conn, &["EVAL", script, "0"]);
        let short: String = reply.chars().take(120).collect();
        assert!(reply.ends_with("\r\n"), "{script}: {short}");
        assert_eq!(host.command(conn, &["EVAL", "return 1", "0"]), ":1\r\n", "after {script}");
    }
    assert_eq!(host.command(conn, &["PING"]), "+PONG\r\n");
}

#[test]
fn libraries_take_any_bytes() {
    let mut host = Host::new(1);
    let conn = host.connect(0, false);
    let scripts: [&[u8]; 4] = [
        b"local r = {pcall(cmsgpack.unpack, ARGV[1])} return #r",
        b"return {pcall(cjson.decode, ARGV[1])}",
        b"return {pcall(struct.unpack, ARGV[1], ARGV[2])}",
        b"return {pcall(struct.size, ARGV[1])}",
    ];
    let alphabet =
        b"[]{},:\"\\u019aeE+-.tfn <>!bBhHlLTiIxcsd\x81\x91\xa1\xc0\xc4\xdb\xdd\xdf\xff\0";
    for round in 0..600 {
        let mut random = |len: usize, of: &[u8]| -> Vec<u8> {
            (0..len).map(|_| of[host.random(of.len())]).collect()
        };
        let first = random(1 + round % 24, alphabet);
        let second = random(round % 40, &(0..=255).collect::<Vec<u8>>());
        let script = scripts[round % scripts.len()];
        let command = super::support::encode(&[b"EVAL", script, b"0", &first, &second]);
        let reply = host.send(conn, &command);
        assert!(reply.ends_with(b"\r\n"), "{first:?}");
    }
    assert_eq!(host.command(conn, &["PING"]), "+PONG\r\n");
}

/// A script may do what its user may, wherever its keys are and however it came to run.
#[test]
fn scripts_have_the_rights_of_their_user() {
    const CANNOT: &str = "-ERR The user executing the script can't ";
    let call =
        |command: &str| format!("redis.call('set', 'app:a', 1) return redis.call({command})");
    for shards in 1..=3 {
        let mut host = Host::new(shards);
        let admin = host.connect(0, false);
        for key in 0..6 {
            host.command(admin, &["SET", &format!("other:{key}"), "secret"]);
        }
        let user =
            ["ACL", "SETUSER", "u", "on", "nopass", "+@all", "-flushall", "~app:*", "&app:*"];
        assert_eq!(host.command(admin, &user), "+OK\r\n");
        let library = "#!lua name=mine\nredis.register_function('peek', function(keys, args) \
                       return redis.call('get', args[1]) end)";
        host.command(admin, &["FUNCTION", "LOAD", library]);
        let conn = host.connect(usize::from(shards) - 1, false);
        assert_eq!(host.command(conn, &["AUTH", "u", "x"]), "+OK\r\n");
        let mut is_denied = |words: &[&str], what: &str| {
            let reply = host.command(conn, words);
            let denied = reply.contains(CANNOT) && reply.contains(what);
            assert!(denied && !reply.contains("secret"), "{words:?}, {shards} shards: {reply}");
        };
        for key in 0..6 {
            let script = call(&format!("'get', 'other:{key}'"));
            is_denied(&["EVAL", &script, "0"], "access at least one of the keys");
            is_denied(&["EVAL", &script, "1", "app:b"], "access at least one of the keys");
            is_denied(&["EVAL", &script, "3", "app:b", "app:c", "app:d"], "access at least");
            is_denied(&["FCALL", "peek", "0", &format!("other:{key}")], "access at least one");
        }
        is_denied(&["EVAL", &call("'flushall'"), "0"], "run this command or subcommand");
        is_denied(&["EVAL", &call("'publish', 'other', 1"), "0"], "publish to the channel");
        let sort = "redis.call('rpush', 'app:list', 1) \
                    return redis.pcall('sort', 'app:list', 'get', 'other:*').err";
        let reply = host.command(conn, &["EVAL", sort, "0"]);
        assert!(reply.contains("GET option of SORT denied"), "{shards} shards: {reply}");
        for line in [&["MULTI"][..], &["SET", "app:b", "1"], &["SET", "app:c", "1"]] {
            host.command(conn, line);
        }
        host.command(conn, &["EVAL", &call("'get', 'other:1'"), "0"]);
        let reply = host.command(conn, &["EXEC"]);
        assert!(reply.contains(CANNOT), "{shards} shards: {reply}");
        let script = "redis.call('set', KEYS[1], 5) return redis.call('get', 'app:e')";
        host.command(conn, &["SET", "app:e", "mine"]);
        assert_eq!(host.command(conn, &["EVAL", script, "1", "app:d"]), "$4\r\nmine\r\n");
        let log = host.command(admin, &["ACL", "LOG"]);
        assert!(log.contains("lua") && log.contains("other:1"), "{shards} shards: {log}");
    }
}
