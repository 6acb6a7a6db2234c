"""The integration tests that come with pymemcache, from its source archive.

    pymemcache_own.py HOST:PORT
"""
import pathlib
import sys

import pytest


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    source = pathlib.Path(sys.prefix) / "source"
    tests = source / "pymemcache" / "test" / "test_integration.py"
    if not tests.exists():
        print("skipped: the source archive of pymemcache is missing: ok")
        return 0
    # test_misc changes the server's memory limit, which no client of this port may do here; TLS is not spoken.
    options = ["--server=" + host, "--port=" + port, "-q", "-p", "no:cacheprovider", "-k", "not tls and not misc"]
    code = pytest.main(["-c", "/dev/null", "--rootdir", str(source), *options, str(tests)])
    if code == 0:
        print("pymemcache's own tests: ok")
    return int(code)


sys.exit(main())
