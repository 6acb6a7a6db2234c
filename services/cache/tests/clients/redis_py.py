"""Every command of the cache through redis-py, over RESP2 and RESP3.

    redis_py.py HOST:PORT

Works with redis-py 5 and 8, against any server; asserts each result.
"""
import sys
import time

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

FAR = 33177117420


def check(got, expected, what=""):
    assert got == expected, "%s: got %r, expected %r" % (what, got, expected)


def fails(text, call, *args, **kwargs):
    try:
        got = call(*args, **kwargs)
    except RedisError as error:
        assert text in str(error), "expected %r, got %r" % (text, str(error))
    else:
        raise AssertionError("expected the error %r, got %r" % (text, got))


def strings(r):
    check(r.set("k", "v"), True)
    check(r.get("k"), b"v")
    check(r.get("missing"), None)
    check(r.set("k", "w", nx=True), None)
    check(r.set("k", "w", xx=True), True)
    check(r.set("k", "x", get=True), b"w")
    check(r.set("k", "y", ex=100), True)
    check(r.ttl("k") in (99, 100), True)
    check(r.set("k", "y", px=100000), True)
    check(r.set("k", "z", keepttl=True), True)
    check(90000 < r.pttl("k") <= 100000, True)
    check(r.set("k", "z", exat=FAR), True)
    check(r.expiretime("k"), FAR)
    check(r.set("k", "z", pxat=FAR * 1000 + 1), True)
    check(r.pexpiretime("k"), FAR * 1000 + 1)
    check(r.setnx("k", "1"), False)
    check(r.setex("e", 100, "v"), True)
    check(r.psetex("e", 100000, "v"), True)
    check(r.getset("k", "new"), b"z")
    check(r.getdel("k"), b"new")
    check(r.getex("e", persist=True), b"v")
    check(r.ttl("e"), -1)
    check(r.getex("e", ex=50), b"v")
    check(r.mset({"a": 1, "b": 2}), True)
    check(r.mget("a", "b", "missing"), [b"1", b"2", None])
    check(r.msetnx({"b": 1, "c": 2}), False)
    check(r.incr("n"), 1)
    check(r.incrby("n", 10), 11)
    check(r.decr("n"), 10)
    check(r.decrby("n", 3), 7)
    check(r.incrbyfloat("f", 1.5), 1.5)
    check(r.append("s", "hello"), 5)
    check(r.append("s", " world"), 11)
    check(r.strlen("s"), 11)
    check(r.setrange("s", 6, "redis"), 11)
    check(r.getrange("s", 0, 4), b"hello")
    check(r.get("s"), b"hello redis")
    r.mset({"l1": "ohmytext", "l2": "mynewtext"})
    check(r.lcs("l1", "l2"), b"mytext")
    check(r.lcs("l1", "l2", len=True), 6)
    idx = r.lcs("l1", "l2", idx=True, minmatchlen=2, withmatchlen=True)
    if isinstance(idx, list):
        idx = dict(zip(idx[::2], idx[1::2]))
    check({(k if isinstance(k, bytes) else k.encode()): v for k, v in idx.items()}[b"len"], 6)
    fails("not an integer", r.incr, "s")
    fails("syntax error", r.execute_command, "SET", "k", "v", "NX", "XX")
    fails("invalid expire time", r.set, "k", "v", ex=0)
    big = bytes(range(256)) * 4096
    check(r.set("big", big), True)
    check(r.get("big"), big)


def keys(r):
    r.mset({"k%d" % i: i for i in range(50)})
    check(r.dbsize(), 50)
    check(sorted(r.scan_iter(match="k1*", count=7)), sorted(r.keys("k1*")))
    check(len(set(r.scan_iter(count=3))), 50)
    check(r.exists("k1", "k2", "nope"), 2)
    check(r.delete("k1", "nope"), 1)
    check(r.unlink("k2", "k3"), 2)
    check(r.touch("k4", "nope"), 1)
    check(r.type("k4"), b"string")
    check(r.type("nope"), b"none")
    check(r.rename("k4", "r4"), True)
    check(r.renamenx("r4", "k5"), False)
    fails("no such key", r.rename, "nope", "x")
    check(r.copy("r4", "c4"), True)
    check(r.copy("r4", "c4"), False)
    check(r.copy("r4", "c4", replace=True, destination_db=3), True)
    check(r.randomkey().startswith((b"k", b"r", b"c")), True)
    check(r.expire("r4", 100), True)
    check(r.expire("r4", 50, gt=True), False)
    check(r.pexpire("r4", 50000, lt=True), True)
    check(r.expireat("r4", FAR, xx=True), True)
    check(r.pexpireat("r4", FAR * 1000, nx=True), False)
    check(r.expiretime("r4"), FAR)
    check(r.persist("r4"), True)
    check(r.ttl("r4"), -1)
    check(r.ttl("nope"), -2)
    r.set("short", "v", px=20)
    time.sleep(0.05)
    check(r.get("short"), None)
    check(r.object("encoding", "k6"), b"int")
    check(r.object("refcount", "k6") >= 1, True)
    check(r.object("idletime", "k6") >= 0, True)
    fails("LFU", r.object, "freq", "k6")
    check(r.memory_usage("k6") > 0, True)
    check(r.memory_usage("nope"), None)


def connection(r, protocol):
    check(r.ping(), True)
    check(r.echo("hi"), b"hi")
    check(r.client_id() > 0, True)
    check(r.client_setname("tester"), True)
    name = r.client_getname()
    check(name in ("tester", b"tester"), True)
    check(r.client_info()["name"], "tester")
    check(any(c["name"] == "tester" for c in r.client_list()), True)
    check(r.client_no_evict("ON") in (b"OK", "OK", True), True)
    check(r.execute_command("CLIENT", "NO-EVICT", "OFF") in (b"OK", "OK", True), True)
    hello = r.execute_command("HELLO", protocol)
    hello = dict(zip(hello[::2], hello[1::2])) if isinstance(hello, list) else hello
    check(hello[b"proto"], protocol)
    check(r.execute_command("SELECT", 0) in (b"OK", True), True)
    fails("AUTH", r.execute_command, "AUTH", "secret")


def server(r):
    info = r.info()
    check(info["redis_version"].count(".") >= 1, True)
    check("db0" in r.info("keyspace"), True)
    seconds, micros = r.time()
    check(abs(seconds - time.time()) < 10 and 0 <= micros < 1000000, True)
    check(r.config_get("maxmemory"), {"maxmemory": "0"})
    check(r.config_set("maxmemory", 100 << 20), True)
    check(r.config_get("maxmemory*")["maxmemory"], str(100 << 20))
    check(r.config_set("maxmemory", 0), True)
    fails("Unknown option", r.config_set, "nosuch", 1)
    check(r.config_resetstat(), True)
    check(r.command_count() > 60, True)
    check("get" in r.command(), True)
    check([str(k, "ascii") if isinstance(k, bytes) else k for k in r.command_getkeys("MSET", "a", 1, "b", 2)], ["a", "b"])
    check(b"get" in r.execute_command("COMMAND DOCS", "get"), True)
    check(len(r.execute_command("COMMAND INFO", "get", "set")), 2)
    fails("unknown command", r.execute_command, "NOSUCH", "a")


def pipelines(r):
    with r.pipeline(transaction=False) as p:
        for i in range(500):
            p.set("p%d" % i, i)
            p.get("p%d" % i)
        results = p.execute()
    check(results, [x for i in range(500) for x in (True, b"%d" % i)])
    with r.pipeline(transaction=False) as p:
        p.set("x", "abc").incr("x").get("x")
        results = p.execute(raise_on_error=False)
    check(results[0], True)
    check(isinstance(results[1], ResponseError), True)
    check(results[2], b"abc")


def databases(host, port, protocol):
    for db in (0, 1, 15):
        with redis.Redis(host, port, db=db, protocol=protocol) as r:
            check(r.set("db", db), True)
    for db in (0, 1, 15):
        with redis.Redis(host, port, db=db, protocol=protocol) as r:
            check(r.get("db"), b"%d" % db)
            check(r.flushdb(), True)
            check(r.dbsize(), 0)
    never = Retry(NoBackoff(), 0)
    with redis.Redis(host, port, db=16, protocol=protocol, retry=never) as r:
        fails("out of range", r.ping)


def kill(host, port, protocol):
    with redis.Redis(host, port, protocol=protocol) as r, redis.Redis(host, port, protocol=protocol) as victim:
        # Without retries the broken connection must be seen.
        connection = victim.connection_pool.get_connection()
        connection.send_command("CLIENT", "ID")
        number = connection.read_response()
        check(r.client_kill_filter(_id=number), 1)
        try:
            connection.send_command("PING")
            got = connection.read_response()
        except (redis.ConnectionError, ConnectionError):
            pass
        else:
            raise AssertionError("a killed client got %r" % got)


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    port = int(port)
    for protocol in (2, 3):
        with redis.Redis(host, port, protocol=protocol, single_connection_client=True) as r:
            check(r.flushall(), True)
            strings(r)
            r.flushall()
            keys(r)
            connection(r, protocol)
            server(r)
            pipelines(r)
            check(r.flushall(asynchronous=True), True)
        databases(host, port, protocol)
        kill(host, port, protocol)
        with redis.Redis(host, port, protocol=protocol, decode_responses=True) as r:
            r.set("text", "ü")
            check(r.get("text"), "ü")
    print("redis-py %s: ok" % redis.__version__)


main()
