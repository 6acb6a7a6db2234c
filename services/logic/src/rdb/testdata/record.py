#!/usr/bin/env python3
"""Records payloads of DUMP, and whole files of SAVE, from redis-server 7.0.15; standard library only.

Writes payloads.txt beside this file: a name, `=` when ours must be equal to the byte or `~` when only what it holds
must be equal, and the payload in hexadecimal digits; and dump.rdb, which holds all of these keys.
"""
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))


class Redis:
    def __init__(self, *options):
        self.dir = tempfile.mkdtemp()
        probe = socket.socket()
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        self.server = subprocess.Popen(
            ["redis-server", "--port", str(port), "--save", "", "--dir", self.dir, *options],
            stdout=subprocess.DEVNULL)
        for _ in range(200):
            try:
                self.sock = socket.create_connection(("127.0.0.1", port))
                break
            except OSError:
                time.sleep(0.05)
        self.file = self.sock.makefile("rb")

    def __call__(self, *words):
        words = [w if isinstance(w, bytes) else str(w).encode() for w in words]
        request = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)
        self.sock.sendall(request)
        return self.reply()

    def reply(self):
        line = self.file.readline()[:-2]
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise SystemExit(line)
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [self.reply() for _ in range(int(rest))]
        return rest

    def close(self):
        self.server.terminate()
        self.server.wait()
        shutil.rmtree(self.dir)


def strings(redis, chance):
    for name, text in [("empty", ""), ("byte", "7"), ("minus", "-128"), ("short", "32767"), ("word", "-2147483648"),
                       ("long", "2147483648"), ("longest", "9223372036854775807"), ("zero-led", "007"), ("text", "hello"),
                       ("twenty", "x" * 20), ("twenty-one", "x" * 21), ("sixty-four", "ab" * 32), ("many", "x" * 16384),
                       ("far", "abcdefgh" * 3000 + "q" * 300 + "abcdefgh" * 30)]:
        redis("SET", "=string-" + name, text)
    redis("SET", "=string-binary", bytes(range(256)))
    redis("SET", "=string-noise", chance.randbytes(5000))
    redis("SET", "=string-words", " ".join(chance.choice(["alpha", "beta", "gamma", "delta"]) for _ in range(900)))
    redis("SET", "=string-close", bytes(chance.choice(b"abc") for _ in range(3000)))
    for run in (17, 18, 19, 20, 21, 33, 263, 264, 265, 266, 267, 300):
        redis("SET", "=string-run-%d" % run, "0123456789" + "z" * run + "!" * 5)


def collections(redis, chance):
    redis("RPUSH", "=list-small", "a", "b", "", "12", "-1", "x" * 63, "x" * 64, 4095, 4096, -4097, 32768, 8388608, 1 << 40)
    redis("RPUSH", "~list-nodes", *["element-%d" % n for n in range(3000)])
    redis("RPUSH", "=list-wide", "w" * 5000)
    redis("RPUSH", "~list-plain", "w" * 9000, "b", "w" * 20000)
    redis("SADD", "=set-ints", 1, 2, 3)
    redis("SADD", "=set-ints-32", 1, -70000, 3)
    redis("SADD", "=set-ints-64", 1, 1 << 40, -(1 << 50))
    redis("SADD", "=set-one", "a")
    redis("SADD", "~set-text", "a", "b", "12", "x" * 100)
    redis("SADD", "~set-large", *["member-%d" % n for n in range(1000)])
    redis("HSET", "=hash-small", "field", "value", "n", 12, "", "", "x" * 64, "y" * 64)
    redis("HSET", "=hash-one", "x" * 65, "y")
    redis("HSET", "~hash-large", *[word for n in range(600) for word in ("field-%d" % n, n)])
    scores = [0, "-0", 1, -1, 1.5, 0.1, 3.3, 1e20, 1e-7, "inf", "-inf", 100.25, 5e18, 4e18, 1234.567, 1e17, "1.7976931348623157e308", 5e-324]
    redis("ZADD", "=zset-small", *[word for n, score in enumerate(scores) for word in (score, "m%d" % n)])
    redis("ZADD", "=zset-large", *[word for n in range(300) for word in (n / 8, "member-%d" % n)])
    redis("ZADD", "=zset-wide", 1, "x" * 65, "-inf", "b", "inf", "c", 0.1, "d")
    redis("PFADD", "=hll", "a", "b", "c")


def streams(redis):
    for n in range(250):
        redis("XADD", "=stream-many", "%d-%d" % (1000 + n // 3, n % 3 + 1), "temperature", n, "name", "sensor-%d" % (n % 7))
    redis("XADD", "=stream-fields", "1-1", "a", "1", "b", "2")
    redis("XADD", "=stream-fields", "1-2", "a", "3", "c", "4")
    redis("XADD", "=stream-fields", "5-0", "a", "-5", "b", "x" * 200)
    redis("XADD", "=stream-fields", "18446744073709551615-18446744073709551614", "a", "", "b", "2")
    for n in range(20):
        redis("XADD", "=stream-deleted", "%d-0" % (n + 1), "f", n)
    redis("XDEL", "=stream-deleted", "3-0", "7-0")
    redis("XADD", "=stream-empty", "9-9", "f", "v")
    redis("XDEL", "=stream-empty", "9-9")
    redis("XGROUP", "CREATE", "=stream-empty", "g", "0")
    for n in range(10):
        redis("XADD", "=stream-groups", "%d-1" % (n + 1), "f", n)
    redis("XGROUP", "CREATE", "=stream-groups", "one", "0")
    redis("XGROUP", "CREATE", "=stream-groups", "two", "$")
    redis("XGROUP", "CREATE", "=stream-groups", "three", "5-1", "ENTRIESREAD", "5")
    redis("XGROUP", "CREATECONSUMER", "=stream-groups", "two", "idle")
    redis("XREADGROUP", "GROUP", "one", "alice", "COUNT", 4, "STREAMS", "=stream-groups", ">")
    redis("XREADGROUP", "GROUP", "one", "bob", "COUNT", 3, "STREAMS", "=stream-groups", ">")
    redis("XACK", "=stream-groups", "one", "2-1", "5-1")


def main():
    lines = []
    redis = Redis()
    chance = random.Random(7)
    strings(redis, chance)
    collections(redis, chance)
    streams(redis)
    for key in sorted(redis("KEYS", "*")):
        lines.append("%s %s %s\n" % (key[1:].decode(), key[:1].decode(), redis("DUMP", key).hex()))
    redis("SELECT", 3)
    redis("SET", "other", "database", "PXAT", 4102444800123)
    redis("SAVE")
    shutil.copy(os.path.join(redis.dir, "dump.rdb"), os.path.join(HERE, "dump.rdb"))
    redis.close()
    with open(os.path.join(HERE, "payloads.txt"), "w") as out:
        out.writelines(lines)
    print(len(lines), "payloads")


if __name__ == "__main__":
    main()
