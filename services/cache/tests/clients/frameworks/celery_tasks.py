"""Celery with the server as broker and as store of results: a worker of two processes, as `celery worker` starts it.

    celery_tasks.py HOST:PORT
"""

import os
import subprocess
import sys
import time

import celery
from celery import Celery, chain, chord, group
from celery.result import AsyncResult

SERVER = os.environ.get("FRAMEWORK_SERVER") or sys.argv[1]
WAIT_S = 20

app = Celery("celery_tasks", broker=f"redis://{SERVER}/0", backend=f"redis://{SERVER}/1")
app.conf.broker_connection_retry_on_startup = True


@app.task
def add(left, right):
    return left + right


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def fails(text):
    raise ValueError(text)


@app.task(bind=True, max_retries=3)
def third_time(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return self.request.retries


@app.task(bind=True)
def reports(self):
    self.update_state(state="HALFWAY", meta={"done": 50})
    time.sleep(0.5)
    return "done"


def is_soon(call, what):
    until = time.monotonic() + WAIT_S
    while not call():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def main():
    assert add.delay(2, 3).get(timeout=WAIT_S) == 5
    assert [add.delay(n, 1).get(timeout=WAIT_S) for n in range(20)] == list(range(1, 21))

    started = time.monotonic()
    assert add.apply_async((1, 1), countdown=1).get(timeout=WAIT_S) == 2
    assert time.monotonic() - started >= 0.9, "a countdown is waited for"
    assert third_time.delay().get(timeout=WAIT_S) == 2

    failed = fails.delay("as asked")
    try:
        failed.get(timeout=WAIT_S)
    except ValueError as error:
        assert str(error) == "as asked"
    else:
        raise AssertionError("the error of a task is lost")
    assert AsyncResult(failed.id, app=app).state == "FAILURE"

    half = reports.delay()
    is_soon(lambda: half.state == "HALFWAY" or half.ready(), "a state is stored")
    assert half.get(timeout=WAIT_S) == "done"
    half.forget()
    assert AsyncResult(half.id, app=app).state == "PENDING"

    assert chain(add.s(1, 2), add.s(10), add.s(100))().get(timeout=WAIT_S) == 113
    assert group(add.s(n, n) for n in range(10))().get(timeout=WAIT_S) == [2 * n for n in range(10)]
    assert chord([add.s(n, n) for n in range(10)])(total.s()).get(timeout=WAIT_S) == 90

    # Messages to every worker, by publish and subscribe.
    assert list(app.control.ping(timeout=1)[0].values()) == [{"ok": "pong"}]
    assert any("celery_tasks.add" in tasks for tasks in app.control.inspect(timeout=1).registered().values())
    later = add.apply_async((1, 1), countdown=2)
    is_soon(lambda: any(app.control.inspect(timeout=0.5).scheduled().values()), "a task waits for its time")
    later.revoke()
    is_soon(lambda: later.state == "REVOKED", "a task is revoked")
    app.control.broadcast("shutdown")


if __name__ == "__main__":
    environment = {**os.environ, "FRAMEWORK_SERVER": SERVER}
    command = [sys.executable, "-W", "ignore", "-m", "celery", "-A", "celery_tasks", "worker", "-c", "2", "-l", "WARNING"]
    worker = subprocess.Popen(command, cwd=os.path.dirname(os.path.abspath(__file__)), env=environment)
    try:
        # As a module, so that names of tasks are those of the worker.
        import celery_tasks

        celery_tasks.main()
        worker.wait(timeout=WAIT_S)
    finally:
        worker.kill()
    print(f"celery {celery.__version__}: ok")
