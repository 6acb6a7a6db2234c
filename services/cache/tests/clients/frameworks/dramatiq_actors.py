"""Dramatiq: messages with results, delays, retries, groups, pipelines and limits.

    dramatiq_actors.py HOST:PORT
"""

import sys
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.rate_limits import BucketRateLimiter, ConcurrentRateLimiter, WindowRateLimiter
from dramatiq.rate_limits.backends import RedisBackend as Limits
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from dramatiq.results.errors import ResultFailure

WAIT_MS = 20_000
URL = f"redis://{sys.argv[1]}/0"

broker = RedisBroker(url=URL)
broker.flush_all()
broker.add_middleware(Results(backend=RedisBackend(url=URL)))
dramatiq.set_broker(broker)
tries, done = [], []


@dramatiq.actor(store_results=True)
def add(left, right):
    return left + right


@dramatiq.actor(store_results=True, max_retries=3, min_backoff=50, max_backoff=100)
def third_time():
    tries.append(1)
    if len(tries) < 3:
        raise ValueError("not yet")
    return len(tries)


@dramatiq.actor(store_results=True, max_retries=0)
def fails():
    raise ValueError("as asked")


@dramatiq.actor
def note(name):
    done.append(name)


def result(message):
    return message.get_result(block=True, timeout=WAIT_MS)


def limits():
    backend = Limits(url=URL)
    mutex = ConcurrentRateLimiter(backend, "one", limit=1)
    with mutex.acquire() as held:
        with mutex.acquire(raise_on_failure=False) as second:
            assert held and not second
    for kind in (BucketRateLimiter(backend, "bucket", limit=2, bucket=60_000), WindowRateLimiter(backend, "window", limit=2, window=60)):
        got = []
        for _ in range(3):
            with kind.acquire(raise_on_failure=False) as held:
                got.append(held)
        assert got == [True, True, False], (kind, got)


worker = dramatiq.Worker(broker, worker_timeout=100)
worker.start()
try:
    assert result(add.send(2, 3)) == 5
    assert [result(add.send(n, n)) for n in range(10)] == [2 * n for n in range(10)]
    started = time.monotonic()
    assert result(add.send_with_options(args=(1, 1), delay=500)) == 2
    assert time.monotonic() - started >= 0.5, "a delay is waited for"
    assert result(third_time.send()) == 3
    try:
        result(fails.send())
    except ResultFailure as error:
        assert "as asked" in str(error)
    else:
        raise AssertionError("the error of an actor is lost")
    assert dramatiq.group(add.message(n, 1) for n in range(5)).run().wait(timeout=WAIT_MS) is None
    together = dramatiq.group([add.message(n, 1) for n in range(5)]).run()
    assert list(together.get_results(block=True, timeout=WAIT_MS)) == [1, 2, 3, 4, 5]
    assert dramatiq.pipeline([add.message(1, 1), add.message(10), add.message(100)]).run().get_result(block=True, timeout=WAIT_MS) == 112
    for n in range(200):
        note.send(n)
    broker.join("default", timeout=WAIT_MS)
    worker.join()
    assert sorted(done) == list(range(200))
    limits()
finally:
    worker.stop()
    broker.close()
print(f"dramatiq {dramatiq.__version__}: ok")
