#!/usr/bin/env python3
"""Records the golden corpus from redis-server 7.0.15, standard library only.

    record_golden.py [--check] [--addr HOST:PORT] [FILE...]

Starts its own redis-server, runs every case of golden/*.txt over RESP2 and RESP3
and rewrites the expected replies in place; `--check` only compares and exits 1 on
a difference. `--addr` compares with a server that is already running instead.
An expected reply that holds a matcher (`<any>`, `<int 1..5>`, ...) is kept as
written, and it is an error when redis does not satisfy it.

The format of a corpus file is described in golden/README.md; golden.rs replays it.
"""
import glob
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "golden")
LONG_BULK = 400
QUIET_S = 0.12


# ---- replies -----------------------------------------------------------------
class Closed(Exception):
    """The server closed the connection."""


class Conn:
    def __init__(self, addr):
        self.sock = socket.create_connection(addr, timeout=10)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buf = b""

    def fill(self):
        try:
            chunk = self.sock.recv(65536)
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            raise Closed()
        self.buf += chunk

    def line(self):
        while b"\r\n" not in self.buf:
            self.fill()
        line, self.buf = self.buf.split(b"\r\n", 1)
        return line

    def exactly(self, n):
        while len(self.buf) < n:
            self.fill()
        out, self.buf = self.buf[:n], self.buf[n:]
        return out

    def reply(self):
        """A reply as a tuple (kind, value)."""
        line = self.line()
        kind, rest = chr(line[0]), line[1:]
        if kind in "+-":
            return (kind, rest)
        if kind == ":":
            return (":", int(rest))
        if kind in "$=!":
            n = int(rest)
            if n < 0:
                return ("nil", None)
            return (kind, self.exactly(n + 2)[:-2])
        if kind in "*~>":
            n = int(rest)
            if n < 0:
                return ("nilarray", None)
            return (kind, [self.reply() for _ in range(n)])
        if kind == "%":
            return ("%", [self.reply() for _ in range(2 * int(rest))])
        if kind == "_":
            return ("null", None)
        if kind in ",#(":
            return (kind, rest)
        raise ValueError("not RESP: %r" % line)

    def quiet(self):
        """True when nothing arrives for a while; raises Closed at end of stream."""
        if self.buf:
            return False
        self.sock.settimeout(QUIET_S)
        try:
            self.fill()
            return False
        except (socket.timeout, TimeoutError):
            return True
        finally:
            self.sock.settimeout(10)

    def close(self):
        self.sock.close()


# ---- the text form of a reply -------------------------------------------------
def escape(data):
    out = []
    for b in data:
        c = chr(b)
        if c in '"\\':
            out.append("\\" + c)
        elif c == "\r":
            out.append("\\r")
        elif c == "\n":
            out.append("\\n")
        elif c == "\t":
            out.append("\\t")
        elif 32 <= b < 127:
            out.append(c)
        else:
            out.append("\\x%02x" % b)
    return '"' + "".join(out) + '"'


def fnv(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def render(reply, top=True):
    kind, value = reply
    if kind in ("nil", "nilarray", "null"):
        return kind
    if kind in "+-":
        plain = re.fullmatch(rb"[!#-~]+" if not top else rb"[!#-~][ !#-~]*", value)
        plain = plain and not value.endswith(b" ") and b"<" not in value
        return kind + (value.decode() if plain else escape(value))
    if kind == "$" or kind in "=!":
        mark = "" if kind == "$" else kind
        if len(value) > LONG_BULK:
            return "%s#%d:%016x" % (mark, len(value), fnv(value))
        return mark + escape(value)
    if kind == ":":
        return ":%d" % value
    if kind in ",#(":
        return kind + value.decode()
    open_, close = "{}" if kind == "%" else "[]"
    mark = "" if kind in "*%" else kind
    return mark + open_ + " ".join(render(v, False) for v in value) + close


# ---- patterns -----------------------------------------------------------------
class Parser:
    """Parses the text form, with matchers, into ('lit', reply) or matcher tuples."""

    def __init__(self, text):
        self.s, self.i = text, 0

    def space(self):
        while self.i < len(self.s) and self.s[self.i] == " ":
            self.i += 1

    def word(self):
        start = self.i
        while self.i < len(self.s) and self.s[self.i] not in " []{}>":
            self.i += 1
        return self.s[start:self.i]

    def quoted(self):
        assert self.s[self.i] == '"', "quote expected in %r at %d" % (self.s, self.i)
        end = self.i + 1
        while self.s[end] != '"':
            end += 2 if self.s[end] == "\\" else 1
        body = self.s[self.i + 1:end]
        self.i = end + 1
        return unescape(body)

    def until(self, close):
        items = []
        while True:
            self.space()
            if self.s.startswith(close, self.i):
                self.i += len(close)
                return items
            if self.s.startswith("...", self.i):
                self.i += 3
                items.append(("more",))
            else:
                items.append(self.value(False))

    def value(self, top=True):
        self.space()
        c = self.s[self.i]
        if c in "+-":
            self.i += 1
            if self.s[self.i:self.i + 1] == '"':
                return ("lit", c, self.quoted())
            if top:
                rest, self.i = self.s[self.i:], len(self.s)
                return ("lit", c, rest.encode())
            return ("lit", c, self.word().encode())
        if c in ":,(" or self.s.startswith(("#t", "#f"), self.i):
            self.i += 1
            w = self.word()
            return ("lit", c, int(w) if c == ":" else w.encode())
        if c == '"':
            return ("lit", "$", self.quoted())
        if c == "#":
            self.i += 1
            return ("long", "$", self.word())
        if c in "=!":
            self.i += 1
            if self.s[self.i] == "#":
                self.i += 1
                return ("long", c, self.word())
            return ("lit", c, self.quoted())
        if c == "[":
            self.i += 1
            return ("seq", "*", self.until("]"))
        if c == "{":
            self.i += 1
            return ("seq", "%", self.until("}"))
        if c in "~>":
            self.i += 2
            return ("seq", c, self.until("]"))
        if c == "<":
            self.i += 1
            return self.matcher()
        w = self.word()
        assert w in ("nil", "nilarray", "null"), "unknown value %r in %r" % (w, self.s)
        return ("lit", w, None)

    def matcher(self):
        name = self.word()
        if name == "int":
            self.space()
            if self.s[self.i] == ">":
                self.i += 1
                return ("int", -(1 << 63), (1 << 63) - 1)
            lo, hi = self.word().split("..")
            assert self.s[self.i] == ">"
            self.i += 1
            return ("int", int(lo), int(hi))
        if name in ("save", "err"):
            self.space()
            w = self.word()
            assert self.s[self.i] == ">"
            self.i += 1
            return (name, w)
        if name in ("any", "bulk", "closed", "nothing", "glob", "text", "unordered", "map", "has", "oneof"):
            return (name, self.until(">"))
        raise ValueError("unknown matcher %r in %r" % (name, self.s))


def unescape(body):
    out, i = bytearray(), 0
    while i < len(body):
        c = body[i]
        if c != "\\":
            out += c.encode("latin-1")
            i += 1
            continue
        e = body[i + 1]
        if e == "x":
            out.append(int(body[i + 2:i + 4], 16))
            i += 4
            continue
        out += {"n": b"\n", "r": b"\r", "t": b"\t", "0": b"\0"}.get(e, e.encode())
        i += 2
    return bytes(out)


def glob_match(pattern, data):
    rx = b"".join(b".*" if p == b"*" else re.escape(p) for p in re.split(rb"(\*)", pattern))
    return re.fullmatch(rx, data, re.S) is not None


def same_elements(patterns, replies, saved, more=False):
    """Each pattern is met by a different reply, in any order (greedy)."""
    left = list(replies)
    for p in patterns:
        for j, r in enumerate(left):
            if matches(p, r, saved):
                del left[j]
                break
        else:
            return False
    return more or not left


def pairs(items):
    return [("pair", items[k], items[k + 1]) for k in range(0, len(items) - 1, 2)]


def matches(p, r, saved):
    kind, value = r
    tag = p[0]
    if tag == "pair":
        return kind == "pair" and matches(p[1], value[0], saved) and matches(p[2], value[1], saved)
    if tag == "lit":
        return p[1] == kind and p[2] == value
    if tag == "long":
        return p[1] == kind and "%d:%016x" % (len(value), fnv(value)) == p[2]
    if tag == "seq":
        if p[1] != kind:
            return False
        items = p[2]
        if items and items[-1] == ("more",):
            items = items[:-1]
            value = value[:len(items)]
        return len(items) == len(value) and all(matches(a, b, saved) for a, b in zip(items, value))
    if tag == "any":
        return kind != "closed"
    if tag == "int":
        if kind == "$" and re.fullmatch(rb"-?\d+", value):
            value, kind = int(value), ":"
        return kind == ":" and p[1] <= value <= p[2]
    if tag == "bulk":
        return kind == "$"
    if tag == "glob":
        return kind in "$+-" and any(glob_match(q[2], value) for q in p[1])
    if tag == "text":
        if saved["_proto"] == 3:
            return kind == "=" and value[:4] == b"txt:" and glob_match(p[1][0][2], value[4:])
        return kind == "$" and glob_match(p[1][0][2], value)
    if tag == "err":
        return kind == "-" and value.split(b" ")[0].decode() == p[1]
    if tag == "save":
        if kind not in (":", "$", "+"):
            return False
        saved[p[1]] = value if isinstance(value, bytes) else str(value).encode()
        return True
    if tag == "unordered":
        return kind in "*~" and same_elements(p[1], value, saved)
    if tag in ("map", "has"):
        if kind not in ("*", "%"):
            return False
        got = [("pair", (value[k], value[k + 1])) for k in range(0, len(value) - 1, 2)]
        return same_elements(pairs(p[1]), got, saved, tag == "has")
    if tag == "oneof":
        return any(matches(q, r, saved) for q in p[1])
    if tag == "closed":
        return kind == "closed"
    if tag == "nothing":
        return kind == "nothing"
    return False


# ---- corpus files --------------------------------------------------------------
class Step:
    """Requests sent in one write on one connection, and the replies expected."""

    def __init__(self):
        self.lines, self.sends, self.expected = [], [], {}
        self.conn, self.open = "", True


class Case:
    def __init__(self, name):
        self.name, self.protos, self.items = name, [2, 3], []


REQUEST = re.compile(r"^(\w*)>(\+|raw|scan|sleep)? ?(.*)$")
EXPECT = re.compile(r"^<([23]?) ?(.*)$")


def parse_file(path):
    """([header lines], directives, [cases]); a case's items are strings (comments) or Steps."""
    head, directives, cases, step, case = [], {}, [], None, None
    for raw in open(path, encoding="latin-1"):
        line = raw.rstrip("\n")
        if line.startswith("== "):
            case, step = Case(line[3:].strip()), None
            cases.append(case)
        elif case is None:
            head.append(line)
            if line.startswith("@"):
                key, _, val = line[1:].partition(" ")
                directives[key] = val
        elif line.startswith("proto "):
            case.protos = [int(x) for x in line[6:].split()]
        elif line.strip() == "" or line.startswith("#"):
            if line.strip():
                case.items.append(line)
        elif EXPECT.match(line):
            which, text = EXPECT.match(line).groups()
            for proto in ([int(which)] if which else [2, 3]):
                step.expected.setdefault(proto, []).append(text)
            step.open = False
        else:
            m = REQUEST.match(line)
            assert m, "%s: cannot read %r" % (path, line)
            conn, form, text = m.groups()
            if step is None or not step.open:
                step = Step()
                step.conn = conn
                case.items.append(step)
            step.lines.append(line)
            step.sends.append((form or "", text))
            step.open = form == "+"
    return head, directives, cases


def split_args(text, saved):
    """Arguments as redis-cli reads them, plus %rep:TEXT:COUNT, %hexrange and $saved."""
    args, i = [], 0
    while i < len(text):
        if text[i] == " ":
            i += 1
            continue
        if text[i] == '"':
            p = Parser(text)
            p.i = i
            args.append(p.quoted())
            i = p.i
            continue
        j = text.find(" ", i)
        j = len(text) if j < 0 else j
        token, i = text[i:j], j
        if token.startswith("%rep:"):
            _, what, count = token.split(":")
            args.append(what.encode("latin-1") * int(count))
        elif token.startswith("$now"):
            unit = 1000 if token.startswith("$nowms") else 1
            off = token.lstrip("$nowms") or "0"
            args.append(str(int(time.time() * unit) + int(off)).encode())
        elif token.startswith("$"):
            args.append(saved.get(token[1:], b"?"))
        else:
            args.append(token.encode("latin-1"))
    return args


def encode(args):
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%s\r\n" % (len(a), a) for a in args)


# ---- running -------------------------------------------------------------------
class Runner:
    def __init__(self, addr, proto):
        self.addr, self.proto, self.conns, self.saved = addr, proto, {}, {"_proto": proto}

    def open(self, name):
        if name not in self.conns:
            conn = Conn(self.addr)
            if self.proto == 3:
                conn.sock.sendall(encode([b"HELLO", b"3"]))
                conn.reply()
            if not self.conns:
                conn.sock.sendall(encode([b"FLUSHALL"]))
                assert conn.reply() == ("+", b"OK")
            self.conns[name] = conn
        return self.conns[name]

    def scan(self, conn, text):
        """Runs SCAN, or SSCAN and its kin, until its cursor is 0: the sorted, deduplicated keys."""
        args, keys = split_args(text, self.saved), set()
        at = 1 if args[0].upper() == b"SCAN" else 2
        while True:
            conn.sock.sendall(encode(args))
            reply = conn.reply()
            if reply[0] == "-":
                return reply
            keys.update(k[1] for k in reply[1][1][1])
            args[at] = reply[1][0][1]
            if args[at] == b"0":
                return ("*", [("$", k) for k in sorted(keys)])

    def step(self, step):
        conn, out, data, expected, raw = self.open(step.conn), [], b"", 0, False
        for form, text in step.sends:
            if form == "sleep":
                time.sleep(int(text) / 1000)
            elif form == "scan":
                out.append(self.scan(conn, text))
            elif form == "raw":
                raw = True
                data += b"".join(split_args(text, self.saved))
            else:
                data += encode(split_args(text, self.saved))
                expected += 1
        try:
            if data:
                conn.sock.sendall(data)
            if raw:
                while not conn.quiet():
                    out.append(conn.reply())
                if not out:
                    out.append(("nothing", None))
            else:
                out += [conn.reply() for _ in range(expected)]
        except (Closed, BrokenPipeError):
            out.append(("closed", None))
        return out

    def close(self):
        for conn in self.conns.values():
            conn.close()


def show(reply):
    return "<%s>" % reply[0] if reply[0] in ("closed", "nothing") else render(reply)


def run_case(case, addr, proto, report, failures):
    runner = Runner(addr, proto)
    try:
        for step in (s for s in case.items if isinstance(s, Step)):
            got = runner.step(step)
            want = step.expected.get(proto)
            shown = [show(r) for r in got]
            if want is None and not got:
                continue  # a step that only waits
            if want is None:
                report[(id(step), proto)] = shown
                failures.append((case.name, proto, step, "(none recorded)", shown))
                continue
            parsed = [Parser(w).value() for w in want]
            ok = len(parsed) == len(got) and all(matches(p, r, runner.saved) for p, r in zip(parsed, got))
            special = [bool(re.search(r"<[a-z]|\.\.\.", w)) and w not in ("<closed>", "<nothing>") for w in want]
            if ok:
                report[(id(step), proto)] = want
            else:
                failures.append((case.name, proto, step, want, shown))
                report[(id(step), proto)] = want if any(special) else shown
    except Exception as error:
        failures.append((case.name, proto, None, "a run to the end", [repr(error)]))
    finally:
        runner.close()


def write_file(path, head, cases, report):
    lines = list(head)
    while lines and not lines[-1].strip():
        lines.pop()
    for case in cases:
        lines += ["", "== " + case.name]
        if case.protos != [2, 3]:
            lines.append("proto " + " ".join(map(str, case.protos)))
        for item in case.items:
            if isinstance(item, str):
                lines.append(item)
                continue
            lines += item.lines
            by = {p: report.get((id(item), p)) or item.expected.get(p, []) for p in case.protos}
            first = by[case.protos[0]]
            if all(v == first for v in by.values()):
                lines += ["< " + text for text in first]
            else:
                for proto in case.protos:
                    lines += ["<%d %s" % (proto, text) for text in by[proto]]
    open(path, "w", encoding="latin-1").write("\n".join(lines) + "\n")


def start_server(extra):
    exe = shutil.which("redis-server")
    if not exe:
        sys.exit("record_golden.py: redis-server is not installed")
    version = subprocess.run([exe, "--version"], capture_output=True, text=True).stdout
    if "v=7.0.15" not in version:
        sys.exit("record_golden.py: the corpus is recorded from redis-server 7.0.15, found: " + version)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if port > 55000:
        port -= 20000  # the cluster bus listens on port + 10000
    folder = tempfile.mkdtemp(prefix="golden-")
    args = [exe, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--appendonly", "no"]
    proc = subprocess.Popen(args + extra, stdout=subprocess.DEVNULL)
    for _ in range(200):
        try:
            Conn(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.02)
    return proc, port, folder


def stop_server(proc, folder):
    proc.kill()
    proc.wait()
    shutil.rmtree(folder, ignore_errors=True)


def main():
    args = sys.argv[1:]
    check = "--check" in args
    addr = None
    if "--addr" in args:
        i = args.index("--addr")
        host, port = args[i + 1].rsplit(":", 1)
        addr, check = (host, int(port)), True
        del args[i:i + 2]
    files = [a for a in args if not a.startswith("--")] or sorted(glob.glob(os.path.join(GOLDEN, "*.txt")))
    total = runs = bad = 0
    for path in files:
        head, directives, cases = parse_file(path)
        reason = directives.get("skip") if addr else directives.get("unrecorded")
        if reason:
            print("%-18s skipped: %s" % (os.path.basename(path), reason))
            continue
        proc, target = None, addr
        if target is None:
            proc, port, folder = start_server(directives.get("server", "").split())
            target = ("127.0.0.1", port)
            if "cluster-enabled" in directives.get("server", ""):
                conn = Conn(target)
                conn.sock.sendall(encode([b"CLUSTER", b"ADDSLOTSRANGE", b"0", b"16383"]))
                conn.reply()
                while True:
                    conn.sock.sendall(encode([b"CLUSTER", b"INFO"]))
                    if b"cluster_state:ok" in conn.reply()[1]:
                        break
                    time.sleep(0.05)
                conn.close()
        names = [c.name for c in cases]
        for name in {n for n in names if names.count(n) > 1}:
            sys.exit("%s: two cases named %r" % (path, name))
        report, failures = {}, []
        try:
            for case in cases:
                for proto in case.protos:
                    run_case(case, target, proto, report, failures)
                    runs += 1
        finally:
            if proc:
                stop_server(proc, folder)
        if not check:
            write_file(path, head, cases, report)
        total += len(cases)
        for name, proto, step, want, got in failures:
            unmatched = check or (isinstance(want, list) and any(re.search(r"<[a-z]|\.\.\.", w) for w in want)) or step is None
            if unmatched:
                bad += 1
                print("%s: %s (RESP%d)\n  sent     %s\n  expected %s\n  got      %s"
                      % (os.path.basename(path), name, proto, step and step.lines, want, got))
        print("%-18s %4d cases" % (os.path.basename(path), len(cases)))
    print("%d cases, %d runs, %d differences" % (total, runs, bad))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
