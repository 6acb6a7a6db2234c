"""The own tests of redis-py and of fakeredis, from their source archives, against a server that is there.

    own_tests.py SUITE HOST:PORT [--several] [--slice] [--list] [--results FILE] [PYTEST ARGUMENT...]
    own_tests.py SUITE --record [PYTEST ARGUMENT...]

SUITE is `redis-py` or `fakeredis`; run it by the Python of the environment that `install.sh` made for it,
`<target>/clients/SUITE-suite`.

What a server has to pass is what redis-server 7.0.15 passed: `SUITE.baseline` beside this file, with those tests
only that open a connection to the server. `--record` writes it anew: the suite runs twice, each time against a
redis-server of its own, and what passed both times is kept.

`SUITE.exceptions` holds the tests of the baseline that this server does not pass, one a line: the test, ` | `, why.
A test without its parameters stands for all of them, and a reason that begins with
`several shards: ` holds with `--several` only. The list may only shrink: a failing test that is not listed
fails the run, and so does a listed one that passes.

`--list` writes the exceptions as this run has them: what passes goes, what does not comes with what it said, in place
of a reason, which is then written by hand. `--slice` leaves out the files of the suite that take long; with `--several`
also those that sleep over what does not depend on the number of shards. `--results` writes each test's end, as JSON.
"""

import contextlib
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import types

import pytest

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = pathlib.Path(sys.prefix) / "source"
REFERENCE = "7.0.15"
# Longer than any test of the baseline takes.
TEST_TIMEOUT_S = 30
SEVERAL = "several shards: "

SUITES = {
    "redis-py": {
        "tests": "tests",
        "port": 6379,
        "marks": "not onlycluster and not redismod and not ssl and not cp_integration and not multidb_integration",
        # Clusters, sentinels, modules, TLS, services of a company, and what asks no server at all.
        "ignored": [
            f"{folder}{place}"
            for folder in ("", "test_asyncio/")
            for place in (
                "maint_notifications", "test_auth", "test_background", "test_bloom", "test_cluster", "test_command_policies",
                "test_himport", "test_http", "test_json", "test_multidb", "test_observability", "test_scenario", "test_search",
                "test_sentinel", "test_ssl", "test_timeseries", "test_vsets",
            )
        ],
        "absent": ["redis_entraid", "redis_entraid.cred_provider", "redis_entraid.identity_provider"],
        # What the others do, once more by asyncio.
        "slow": ["test_asyncio/"],
        "alike": ["test_pubsub.py"],
    },
    "fakeredis": {
        "tests": "test/test_mixins",
        "port": 6390,
        # The half of each pair that runs against a real server.
        "marks": "real",
        "ignored": [],
        "absent": [],
        "slow": [],
        "alike": ["test_acl_commands.py", "test_connection_commands.py", "test_pubsub_commands.py"],
    },
}


class Run:
    """Runs what is asked for, and notes how each test ends."""

    def __init__(self, suite, port, wanted, slow):
        self.suite, self.port = suite, port
        self.wanted, self.slow = wanted, slow
        self.ends, self.collected, self.connections = {}, set(), 0
        self.prefix = suite["tests"] + "/"
        self.control = None

    def name(self, nodeid):
        return nodeid.removeprefix(self.prefix)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config, items):
        def runs(item):
            name = self.name(item.nodeid)
            return (self.wanted is None or name in self.wanted) and not is_in(name, self.slow)

        out = [item for item in items if not runs(item)]
        items[:] = [item for item in items if runs(item)]
        config.hook.pytest_deselected(items=out)
        self.collected = {self.name(item.nodeid) for item in items}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self.make_usable()
        self.connections = 0
        end = self.ends[self.name(item.nodeid)] = {"end": "passed", "text": "", "seconds": 0.0}
        try:
            return (yield)
        finally:
            end["connected"] = self.connections > 0

    def pytest_runtest_logreport(self, report):
        end = self.ends[self.name(report.nodeid)]
        end["seconds"] = round(end["seconds"] + report.duration, 3)
        if report.failed and end["end"] != "failed":
            end["end"], end["text"] = "failed", self.reason(report)
        elif report.skipped and end["end"] == "passed":
            end["end"], end["text"] = "skipped", str(report.longrepr)

    def make_usable(self):
        """What a test that failed halfway may leave behind must not fail the ones after it."""
        if self.control is None:
            self.control = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as fresh:
                fresh.sendall(b"PING\r\n")
                if fresh.recv(100) == b"+PONG\r\n":
                    return
        except OSError:
            pass
        # A connection from before a password was set needs none.
        with contextlib.suppress(OSError):
            for command in (b'CONFIG SET requirepass ""', b"ACL SETUSER default reset on nopass ~* &* +@all", b"CLIENT UNPAUSE"):
                self.control.sendall(command + b"\r\n")
                self.control.recv(1000)

    @staticmethod
    def reason(report):
        crash = getattr(report.longrepr, "reprcrash", None)
        return f"{report.when}: {crash.message if crash else report.longrepr}"

    def passed(self):
        return {name for name, end in self.ends.items() if end["end"] == "passed"}

    @contextlib.contextmanager
    def redirected(self):
        """The port that the suite takes for the server's leads to the server, and connections to it are counted."""
        connect, run = socket.socket.connect, self

        def connect_there(self, address):
            if isinstance(address, tuple) and address[1] in (run.suite["port"], run.port):
                run.connections += 1
                address = (address[0], run.port, *address[2:])
            return connect(self, address)

        socket.socket.connect = connect_there
        try:
            yield
        finally:
            socket.socket.connect = connect


def is_in(name, places):
    return any(name.startswith(place) for place in places)


def split(name):
    """A test without its parameters, and these."""
    test, bracket, parameters = name.partition("[")
    return test, bracket + parameters


class Absent(types.ModuleType):
    """A package of a company's service: its tests are not run, but a file with others imports its names."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def run(suite, address, wanted, slow, arguments):
    host, _, port = address.rpartition(":")
    sys.path.insert(0, str(SOURCE))
    for name in suite["absent"]:
        sys.modules[name] = Absent(name)
    state = Run(suite, int(port), wanted, slow)
    root = SOURCE / suite["tests"]
    options = ["-q", "-p", "no:cacheprovider", "-W", "ignore", "-c", str(SOURCE / "pyproject.toml")]
    options += [f"--rootdir={SOURCE}", "-o", "addopts=", "-m", suite["marks"], f"--timeout={TEST_TIMEOUT_S}"]
    # Not while a failure is written out, on a machine that others use too.
    options += ["-o", "timeout_func_only=true"]
    options += ["--tb=native", "--no-summary", "--show-capture=no", "--continue-on-collection-errors", "-o", "filterwarnings=ignore"]
    if suite["tests"] == "tests":
        options.append(f"--redis-url=redis://{host}:{port}/0")
    if wanted is None:
        files = {str(path.relative_to(root)) for path in root.rglob("test_*.py")}
    else:
        files = {name.partition("::")[0] for name in wanted}
    # One by one: in a folder that it is given, pytest loads the conftest.py of every folder below.
    paths = [str(root / file) for file in sorted(files) if not is_in(file, [*suite["ignored"], *slow])]
    with state.redirected():
        pytest.main([*options, *arguments, *paths], plugins=[state])
    return state


# ---- files -------------------------------------------------------------------------------------------------------
def read_baseline(path):
    """Tests by file and class: a head line, then a line a test, with its parameters behind tabs."""
    tests, head = [], ""
    for line in path.read_text().splitlines():
        if line.startswith("#") or not line:
            continue
        if not line.startswith("\t"):
            head = line
            continue
        name, *parameters = line[1:].split("\t")
        tests += [f"{head}::{name}{each}" for each in parameters or [""]]
    return tests


def write_baseline(path, suite, tests):
    lines = [
        f"# Tests of {suite} that talk to a server and pass on redis-server {REFERENCE}.",
        f"# Written by `own_tests.py {suite} --record`.",
    ]
    head, row = "", ""
    for name in tests:
        test, parameters = split(name)
        place, _, function = test.rpartition("::")
        if place != head:
            lines.append(place)
            head, row = place, ""
        if function != row or not parameters:
            lines.append("\t" + function)
            row = function
        if parameters:
            lines[-1] += "\t" + parameters
    path.write_text("\n".join(lines) + "\n")


def read_exceptions(path):
    rows = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        if line.startswith("#") or not line.strip():
            continue
        name, bar, why = line.partition(" | ")
        assert bar and why.strip(), f"{path.name}: no reason: {line}"
        assert name not in rows, f"{path.name}: twice: {name}"
        rows[name] = why.strip()
    return rows


# ---- judging -----------------------------------------------------------------------------------------------------
def judge(suite, state, wanted, slow, whole, several):
    """What is wrong, one a line."""
    exceptions = read_exceptions(HERE / f"{suite}.exceptions")
    exceptions = {name: why for name, why in exceptions.items() if several or not why.startswith(SEVERAL)}
    known = set(wanted) | {split(name)[0] for name in wanted}
    wrong = [f"in the exceptions, but not in the baseline: {name}" for name in exceptions if name not in known]

    def listed(name):
        return next((row for row in (name, split(name)[0]) if row in exceptions), None)

    passed, expected = state.passed(), {name for name in wanted if not is_in(name, slow)}
    if whole:
        wrong += [f"in the baseline, but not collected: {name}" for name in sorted(expected - state.collected)]
    excused = 0
    for name in sorted(state.collected):
        end = state.ends.get(name, {"end": "failed", "text": "was not run"})
        if name not in passed and listed(name) is None:
            wrong.append(f"{end['end']}: {name}\n    {end['text']}")
        elif name in passed and listed(name) is not None:
            wrong.append(f"passes, take it off the exceptions: {name}")
        excused += name not in passed
    return wrong, f"{len(passed)} of {len(state.collected)} pass, {excused} do not"


def write_exceptions(path, state, wanted, several):
    """The reasons that are there stay; a test of which nothing passes takes one line."""
    old, passed, rows = read_exceptions(path), state.passed(), {}
    for name in wanted:
        test = split(name)[0]
        if name in passed or name not in state.ends:
            continue
        variants = [each for each in wanted if split(each)[0] == test]
        row = name if any(each in passed or each not in state.ends for each in variants) else test
        said = " ".join(state.ends[name]["text"].split())[:160]
        rows.setdefault(row, old.get(row) or old.get(test) or (SEVERAL if several else "") + said)
    def stays(row, why):
        return row not in rows and (not run_of(row, state) or (why.startswith(SEVERAL) and not several))

    kept = {row: why for row, why in old.items() if stays(row, why)}
    head = f"# Tests of {path.stem} that redis-server {REFERENCE} passes and this server does not: TEST | WHY"
    path.write_text("\n".join([head, *(f"{row} | {why}" for row, why in {**kept, **rows}.items())]) + "\n")


def run_of(row, state):
    return any(row in (name, split(name)[0]) for name in state.ends)


# ---- recording ---------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def redis_server():
    program = shutil.which("redis-server")
    version = program and subprocess.run([program, "--version"], capture_output=True, text=True).stdout
    assert version and f"v={REFERENCE} " in version, f"redis-server {REFERENCE} is needed, found {version}"
    with tempfile.TemporaryDirectory() as folder:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        # As the suite wants it: DEBUG is called, and what is written to disk is not looked at.
        options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--enable-debug-command", "yes"]
        server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        try:
            for _ in range(100):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.05)
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


def record(suite, arguments):
    runs = []
    for _ in range(2):
        with redis_server() as address, tempfile.NamedTemporaryFile() as results:
            command = [sys.executable, "-W", "ignore", __file__, suite, address, "--all", "--results", results.name, *arguments]
            subprocess.run(command, check=False)
            runs.append(json.loads(pathlib.Path(results.name).read_text()))

    def good(end):
        return end is not None and end["end"] == "passed" and end["connected"]

    tests = [name for name, end in runs[0].items() if good(end) and good(runs[1].get(name))]
    write_baseline(HERE / f"{suite}.baseline", suite, tests)
    print(f"{suite}: {len(tests)} tests of {len(runs[0])} pass on redis-server {REFERENCE}: ok")


def take(arguments, flag, value=False):
    """The flag, or what follows it, taken out of the arguments."""
    if flag not in arguments:
        return None
    at = arguments.index(flag)
    taken = arguments[at : at + 1 + value]
    del arguments[at : at + 1 + value]
    return taken[-1]


def main():
    suite, *arguments = sys.argv[1:]
    if take(arguments, "--record"):
        return record(suite, arguments)
    address = arguments.pop(0)
    results, everything = take(arguments, "--results", value=True), take(arguments, "--all")
    listing, several = take(arguments, "--list"), bool(take(arguments, "--several"))
    slow = []
    if take(arguments, "--slice"):
        slow = SUITES[suite]["slow"] + (SUITES[suite]["alike"] if several else [])
    wanted = None if everything else read_baseline(HERE / f"{suite}.baseline")
    state = run(SUITES[suite], address, wanted and set(wanted), slow, arguments)
    if results:
        pathlib.Path(results).write_text(json.dumps(state.ends, indent=1))
    if everything:
        return None
    if listing:
        write_exceptions(HERE / f"{suite}.exceptions", state, wanted, several)
    wrong, summary = judge(suite, state, wanted, slow, not arguments, several)
    print(*wrong, sep="\n")
    assert not wrong, f"{suite}: {summary}; {len(wrong)} not as listed"
    print(f"{suite}'s own tests, {summary}, as listed: ok")
    return None


if __name__ == "__main__":
    main()
