"""kafka-python's own integration tests, as its source archive has them, but for those in EXCLUDED.

A test that fails, that skips itself, or that EXCLUDED names in vain fails the run.

Usage: kafka_python_suite.py HOST:PORT [PYTEST ARGUMENT...]
"""

import os
import pathlib
import sys
import types

import kafka
import pytest

TRANSACTIONS = "needs transactions"
ACLS = "needs access control lists"
OWN_SERVER = "starts a Kafka server of its own, whatever address it is given"
OLD_SERVER = "is about servers older than 0.10.1"

# Beginnings of test names, and why they are left out.
EXCLUDED = {
    "test_admin_integration.py::test_create_describe_delete_acls": ACLS,
    "test_consumer_integration.py::test_kafka_consumer_offsets_for_time_old": OLD_SERVER,
    "test_producer_integration.py::test_transactional_producer_messages": TRANSACTIONS,
    "test_producer_integration.py::test_transactional_producer_offsets": TRANSACTIONS,
    "test_sasl_integration.py::": OWN_SERVER,
    "test_ssl_integration.py::": OWN_SERVER,
}

SOURCE = pathlib.Path(sys.prefix) / "source"


class Suite:
    """Leaves out what EXCLUDED says, and notes what skips itself."""

    def __init__(self):
        self.skipped = []
        self.excluded = 0

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config, items):
        def matches(row, item):
            return item.nodeid.rpartition("/")[2].startswith(row)

        unused = [row for row in EXCLUDED if not any(matches(row, item) for item in items)]
        if unused and len(sys.argv) == 2:
            raise pytest.UsageError(f"no test of these names: {unused}")
        out = [item for item in items if any(matches(row, item) for row in EXCLUDED)]
        items[:] = [item for item in items if item not in out]
        config.hook.pytest_deselected(items=out)
        self.excluded = len(out)

    def pytest_runtest_logreport(self, report):
        if report.skipped:
            self.skipped.append(report.nodeid)


def prepare(address):
    """What the tests expect to find, and the archive does not hold."""

    class ExternalService:
        def __init__(self, host, port):
            self.address = (host, port)

        def dump_logs(self):
            """The server's own test prints its log."""

    # Python's standard library has a package of this name too.
    package = types.ModuleType("test")
    package.__path__ = [str(SOURCE / "test")]
    service = types.ModuleType("test.service")
    service.ExternalService, service.SpawnedService = ExternalService, None
    sys.modules.update({"test": package, "test.service": service})
    # The newest release that the client takes the broker for; a folder that exists, in place of an installation.
    os.environ.update(KAFKA_URI=f"kafka://{address}", KAFKA_VERSION="4.3", KAFKA_ROOT=str(SOURCE))
    # A client that is told to watch a topic while metadata is being answered forgets it until the next refresh,
    # after five minutes. (`ClusterMetadata.update_metadata` clears a wish newer than the request it answers.)
    for client in [kafka.KafkaConsumer, kafka.KafkaProducer, kafka.KafkaAdminClient]:
        client.DEFAULT_CONFIG["metadata_max_age_ms"] = 200


prepare(sys.argv[1])
suite = Suite()
options = ["-q", "-p", "no:cacheprovider", "-W", "ignore", "-c", os.devnull, f"--rootdir={SOURCE}"]
options += ["--timeout=60", "--tb=short", "--show-capture=no", "--durations=5"]
status = pytest.main([*options, *sys.argv[2:], str(SOURCE / "test" / "integration")], plugins=[suite])
assert not suite.skipped, f"skipped: {suite.skipped}"
assert status == 0, f"pytest: {status!r}"
print(f"kafka-python's integration tests, {suite.excluded} excluded: ok")
