"""Huey: tasks with results, delays, retries and locks, by queues in order of arrival and of priority.

    huey_tasks.py HOST:PORT
"""

import sys
import time

import huey
from huey import PriorityRedisExpireHuey, RedisHuey
from huey.exceptions import TaskException, TaskLockedException

WAIT_S = 20
HOST, PORT = sys.argv[1].rsplit(":", 1)


def make(kind, name):
    tasks = kind(name, host=HOST, port=int(PORT))
    tasks.flush()
    return tasks


def at_last(result):
    """The result of a task that may fail first: each error is stored until the next try has ended."""
    until = time.monotonic() + WAIT_S
    while True:
        try:
            return result(blocking=True, timeout=WAIT_S)
        except TaskException:
            assert time.monotonic() < until
            result.reset()


def plain():
    tasks = make(RedisHuey, "plain")
    tries = []

    @tasks.task()
    def add(left, right):
        return left + right

    @tasks.task(retries=2, retry_delay=0)
    def third_time():
        tries.append(time.monotonic())
        if len(tries) < 3:
            raise ValueError("not yet")
        return len(tries)

    @tasks.task()
    def fails():
        raise ValueError("as asked")

    first = add(1, 2)
    assert len(tasks) == 1 and first() is None
    revoked = add(1, 1)
    revoked.revoke()
    consumer = tasks.create_consumer(workers=2, periodic=False, initial_delay=0.02, scheduler_interval=1)
    consumer.start()
    try:
        assert first(blocking=True, timeout=WAIT_S) == 3
        assert [add(n, n)(blocking=True, timeout=WAIT_S) for n in range(10)] == [2 * n for n in range(10)]
        assert add.map([(n, 1) for n in range(5)]).get(blocking=True, timeout=WAIT_S) == [1, 2, 3, 4, 5]
        assert at_last(third_time()) == 3
        started = time.monotonic()
        assert add.schedule((4, 4), delay=1)(blocking=True, timeout=WAIT_S) == 8
        assert time.monotonic() - started >= 0.9, "a delay is waited for"
        steps = tasks.enqueue(add.s(1, 1).then(add, 10).then(add, 100))
        assert steps.get(blocking=True, timeout=WAIT_S) == [2, 12, 112]
        try:
            fails()(blocking=True, timeout=WAIT_S)
        except TaskException as error:
            assert "as asked" in str(error)
        else:
            raise AssertionError("the error of a task is lost")
        assert revoked() is None
        with tasks.lock_task("one"):
            try:
                with tasks.lock_task("one"):
                    raise AssertionError("a lock is held twice")
            except TaskLockedException:
                pass
    finally:
        consumer.stop(graceful=True)
    tasks.put("kept", {"a": 1})
    assert tasks.get("kept", peek=True) == {"a": 1} and tasks.get("kept") == {"a": 1} and tasks.get("kept") is None
    assert tasks.pending_count() == 0 and tasks.scheduled_count() == 0


def priority():
    tasks, order = make(PriorityRedisExpireHuey, "priority"), []

    @tasks.task()
    def note(name):
        order.append(name)
        return name

    note("low", priority=1)
    note("high", priority=10)
    note("middle", priority=5)
    last = note("last", priority=0)
    consumer = tasks.create_consumer(workers=1, periodic=False, initial_delay=0.02)
    consumer.start()
    try:
        assert last(blocking=True, timeout=WAIT_S) == "last"
    finally:
        consumer.stop(graceful=True)
    assert order == ["high", "middle", "low", "last"], order


plain()
priority()
print(f"huey {huey.__version__}: ok")
