//! What one small command could make without an end: replies, packed tables and texts in which one value is many times, and
//! patterns that nest or are tried for ever.
//!
//! Each is refused at a bound, which tests have lower than servers, and the shard goes on.

use super::support::{Host, encode};

/// Long enough to reach a bound when it is there many times.
const LONG_BYTES: usize = 1 << 20;

fn eval(host: &mut Host, conn: usize, script: &str) -> String {
    let reply = host.command(conn, &["EVAL", script, "1", "k"]);
    assert_eq!(host.command(conn, &["EVAL", "return 7", "0"]), ":7\r\n", "after {script}");
    reply
}

#[test]
fn what_scripts_make_of_shared_values_is_bounded() {
    let mut host = Host::new(1);
    let conn = host.connect(0, false);
    for (script, what) in [
        // 2^40 tables, in memory for 40.
        ("local t={} for i=1,40 do t={t,t} end return t", "the reply of a script is too long"),
        (
            "local s,t=string.rep('x',1e6),{} for i=1,100 do t[i]=s end return t",
            "the reply of a script is too long",
        ),
        (
            "local t={} for i=1,15 do local u={} for j=1,50 do u[j]=t end t=u end return cmsgpack.pack(t)",
            "not enough memory",
        ),
        (
            "local s,t=string.rep('x',1e6),{} for i=1,100 do t[i]=s end return #cmsgpack.pack(t)",
            "not enough memory",
        ),
        (
            "local t={} for i=1,60 do t={[1.5]=t,[2.5]=t} end return cjson.encode(t)",
            "not enough memory",
        ),
        (
            "local s,t=string.rep('x',1e6),{} for i=1,100 do t[i]=s end
             return #struct.pack(string.rep('s',100), unpack(t))",
            "not enough memory",
        ),
        (
            "redis.call('set',KEYS[1],string.rep('x',1e6)) local t={} for i=1,100 do t[i]=KEYS[1] end
             return #redis.call('mget',unpack(t))",
            "the reply of a command is too long for a script",
        ),
        ("return string.rep('abc', 2^31-1)", "not enough memory"),
        (
            "return #string.gsub(string.rep('a',1e5),'a',string.rep('b',1e4))",
            "not enough memory",
        ),
    ] {
        let reply = eval(&mut host, conn, script);
        assert!(reply.starts_with("-ERR") && reply.contains(what), "{script}: {reply:.200}");
    }
    // Below the bound they work.
    let script =
        "local s,t=string.rep('x',1e6),{} for i=1,3 do t[i]=s end return #cmsgpack.pack(t)";
    assert_eq!(eval(&mut host, conn, script), ":3000016\r\n");
}

#[test]
fn patterns_neither_end_the_stack_nor_go_on_for_ever() {
    let mut host = Host::new(1);
    let conn = host.connect(0, false);
    for (function, more) in [("find", ""), ("match", ""), ("gsub", ",'x'"), ("gmatch", "")] {
        let (after, call) = (if function == "gmatch" { "()" } else { "" }, function);
        let script = format!(
            "local n=300000 return string.{call}(string.rep('a',n),string.rep('a?',n){more}){after}"
        );
        let reply = eval(&mut host, conn, &script);
        assert!(reply.contains("pattern too complex"), "{function}: {reply:.200}");
    }
    host.command(conn, &["CONFIG", "SET", "busy-reply-threshold", "1"]);
    let slow = [
        "string.find(string.rep('a',30),string.rep('a?',30)..string.rep('a',30))",
        "string.find(string.rep('a',200),string.rep('.-',50)..'b')",
        "string.find(string.rep('(',1e6),'%b()')",
        "string.find(string.rep('a',1e6),string.rep('a',1e5)..'b',1,true)",
        "string.gsub(string.rep('a',1e6),'.-b','')",
    ];
    let reply = eval(&mut host, conn, "local t={} for i=1,40 do t={t,t} end return t");
    assert_eq!(reply, "-ERR the reply of a script takes too long\r\n");
    for call in slow {
        let reply = eval(&mut host, conn, &format!("return {call}"));
        assert!(reply.starts_with("-ERR Script ended"), "{call}: {reply:.200}");
    }
}

#[test]
fn patterns_work_in_scripts_as_in_lua() {
    let mut host = Host::new(1);
    let conn = host.connect(0, false);
    for (script, reply) in [
        ("{string.find('hello','l')}", "*2\r\n:3\r\n:3\r\n"),
        ("{('hello'):find('(l)(l)')}", "*4\r\n:3\r\n:4\r\n$1\r\nl\r\n$1\r\nl\r\n"),
        ("{string.find('a.b','.',2,true)}", "*2\r\n:2\r\n:2\r\n"),
        ("{string.find('abc','b',-1)}", "*0\r\n"),
        ("{string.find('abc','',10)}", "*2\r\n:4\r\n:3\r\n"),
        ("{string.match('key=val','(%w+)=(%w+)')}", "*2\r\n$3\r\nkey\r\n$3\r\nval\r\n"),
        ("{string.match('abc','()b()')}", "*2\r\n:2\r\n:3\r\n"),
        ("#string.rep('', 2^31-1)", ":0\r\n"),
        (
            "{string.rep('ab',3),string.rep('a',-1),string.rep(7,2.9)}",
            "*3\r\n$6\r\nababab\r\n$0\r\n\r\n$2\r\n77\r\n",
        ),
        ("string.match(12345,'3.')", "$2\r\n34\r\n"),
        ("{string.gsub('abc','%w','%0%0')}", "*2\r\n$6\r\naabbcc\r\n:3\r\n"),
        ("{string.gsub('abc','','-')}", "*2\r\n$7\r\n-a-b-c-\r\n:4\r\n"),
        ("{string.gsub('abc','','-',2)}", "*2\r\n$5\r\n-a-bc\r\n:2\r\n"),
        ("{string.gsub('aaa','^a','b')}", "*2\r\n$3\r\nbaa\r\n:1\r\n"),
        ("{string.gsub('a b','(%w) (%w)','%2 %1%%')}", "*2\r\n$4\r\nb a%\r\n:1\r\n"),
        ("{string.gsub('abc','%w',{a='1',b=false,c=3})}", "*2\r\n$3\r\n1b3\r\n:3\r\n"),
        (
            "{string.gsub('abc','(b)()',function(c,at) return c..at end)}",
            "*2\r\n$4\r\nab3c\r\n:1\r\n",
        ),
        (
            "{string.gsub('abc','b*',function(c) return '['..c..']' end)}",
            "*2\r\n$11\r\n[]a[b][]c[]\r\n:4\r\n",
        ),
        ("{string.gsub('hello','^h',string.upper)}", "*2\r\n$5\r\nHello\r\n:1\r\n"),
    ] {
        let got = host.command(conn, &["EVAL", &format!("return {script}"), "0"]);
        assert_eq!(got, *reply, "{script}");
    }
    let script =
        "local t = {} for k, v in string.gmatch('a=1, b=2', '(%w)=(%w)') do t[#t+1] = k..v end
        for w in ('one two'):gmatch('%a+') do t[#t+1] = w end
        for e in string.gmatch('ab', '') do t[#t+1] = 'e' end return table.concat(t, ' ')";
    let got = host.command(conn, &["EVAL", script, "0"]);
    assert_eq!(got, "$19\r\na1 b2 one two e e e\r\n");
}

#[test]
fn wrong_patterns_are_told_in_scripts_as_in_lua() {
    let mut host = Host::new(1);
    let conn = host.connect(0, false);
    for (script, wrong) in [
        ("string.find('a','[a')", "user_script:1: malformed pattern (missing ']')"),
        ("string.gsub('a','%1','b')", "user_script:1: invalid capture index"),
        ("string.gsub('a','a','%2')", "user_script:1: invalid capture index"),
        (
            "string.gsub('a','a')",
            "user_script:1: bad argument #3 to 'gsub' (string/function/table expected)",
        ),
        (
            "string.gsub('a')",
            "user_script:1: bad argument #2 to 'gsub' (string expected, got no value)",
        ),
        (
            "string.gsub('a','a',function() return {} end)",
            "user_script:1: invalid replacement value (a table)",
        ),
        (
            "string.match(nil,'a')",
            "user_script:1: bad argument #1 to 'match' (string expected, got nil)",
        ),
        (
            "string.gmatch('a')",
            "user_script:1: bad argument #2 to 'gmatch' (string expected, got no value)",
        ),
        ("string.match('a','(a')", "user_script:1: unfinished capture"),
    ] {
        let script = format!("return {{pcall(function() local r = {script} return r end)}}");
        let got = host.command(conn, &["EVAL", &script, "0"]);
        assert!(got.contains(wrong), "{script}: {got}");
    }
}

#[test]
fn a_long_element_is_not_picked_without_an_end() {
    let mut host = Host::new(1);
    let conn = host.connect(0, false);
    let long = vec![b'x'; LONG_BYTES];
    host.send(conn, &encode(&[b"SADD", b"s", &long]));
    host.send(conn, &encode(&[b"HSET", b"h", &long, b"v"]));
    host.send(conn, &encode(&[b"ZADD", b"z", b"1", &long]));
    for (name, key) in [("SRANDMEMBER", "s"), ("HRANDFIELD", "h"), ("ZRANDMEMBER", "z")] {
        let few = host.command(conn, &[name, key, "-10"]);
        assert!(few.starts_with("*10\r\n") && few.len() > 10 * LONG_BYTES, "{name}");
        let many = host.command(conn, &[name, key, "-1000000"]);
        assert!(many.starts_with("-ERR value is out of range"), "{name}: {many:.100}");
    }
}
