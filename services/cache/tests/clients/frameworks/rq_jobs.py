"""RQ: jobs, their results, retries, delays and dependencies, done by workers that fork.

    rq_jobs.py HOST:PORT
"""

import datetime
import sys
import threading
import time

import redis
import rq
from rq import Queue, Retry, Worker, get_current_job
from rq.command import send_shutdown_command
from rq.job import Job
from rq.registry import FailedJobRegistry, FinishedJobRegistry, ScheduledJobRegistry


def add(left, right):
    return left + right


def fails_once():
    job = get_current_job()
    if not job.meta.get("tried"):
        job.meta["tried"] = True
        job.save_meta()
        raise ValueError("the first time")
    return "the second time"


def fails():
    raise ValueError("as asked")


def work(queue, **options):
    assert Worker([queue], connection=queue.connection).work(burst=True, logging_level="ERROR", **options) is True


def main(host, port):
    import rq_jobs as jobs

    connection = redis.Redis(host, int(port))
    connection.flushall()
    queue = Queue(connection=connection)

    job = queue.enqueue(jobs.add, 2, 3)
    assert job.get_status() == "queued" and queue.count == 1 and queue.job_ids == [job.id]
    again = queue.enqueue(jobs.fails_once, retry=Retry(max=1))
    failed = queue.enqueue(jobs.fails)
    first = queue.enqueue(jobs.add, 1, 1)
    second = queue.enqueue(jobs.add, 2, 2, depends_on=first)
    assert second.get_status() == "deferred"
    queue.enqueue_many([Queue.prepare_data(jobs.add, (n, n), job_id=f"many-{n}") for n in range(5)])
    urgent = queue.enqueue(jobs.add, 5, 5, at_front=True)
    assert queue.job_ids[0] == urgent.id
    work(queue)

    assert job.return_value() == 5 and job.get_status(refresh=True) == "finished"
    assert again.return_value() == "the second time"
    assert failed.get_status(refresh=True) == "failed" and "as asked" in failed.latest_result().exc_string
    assert failed.id in FailedJobRegistry(queue=queue)
    assert second.return_value() == 4
    found = Job.fetch_many([f"many-{n}" for n in range(5)], connection=connection)
    assert [each.return_value() for each in found] == [0, 2, 4, 6, 8]
    assert len(FinishedJobRegistry(queue=queue)) == 10 and queue.is_empty()
    assert Job.exists(job.id, connection=connection)
    job.delete()
    assert not Job.exists(job.id, connection=connection)
    FailedJobRegistry(queue=queue).requeue(failed.id)
    work(queue)
    assert failed.get_status(refresh=True) == "failed"

    # Later, and by a worker that waits until it is told to end.
    later = queue.enqueue_in(datetime.timedelta(seconds=1), jobs.add, 3, 4)
    assert later.id in ScheduledJobRegistry(queue=queue)
    worker = Worker([queue], connection=connection, name="waits")

    def end():
        until = time.monotonic() + 15
        while later.get_status(refresh=True) != "finished" and time.monotonic() < until:
            time.sleep(0.05)
        send_shutdown_command(redis.Redis(host, int(port)), "waits")

    ending = threading.Thread(target=end)
    ending.start()
    worker.work(with_scheduler=True, logging_level="ERROR")
    ending.join()
    assert later.return_value() == 7
    assert Worker.all(connection=connection) == []
    print(f"rq {rq.VERSION}: ok")


if __name__ == "__main__":
    main(*sys.argv[1].rsplit(":", 1))
