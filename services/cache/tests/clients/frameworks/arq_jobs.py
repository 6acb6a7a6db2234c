"""arq: jobs of asyncio with results, delays, retries and cancelling.

    arq_jobs.py HOST:PORT
"""

import asyncio
import sys

import arq
from arq import Retry, create_pool
from arq.connections import RedisSettings
from arq.jobs import JobStatus
from arq.worker import Worker


async def add(ctx, left, right):
    return left + right


async def third_time(ctx):
    if ctx["job_try"] < 3:
        raise Retry(defer=0.05)
    return ctx["job_try"]


async def fails(ctx):
    raise ValueError("as asked")


async def sleeps(ctx):
    await asyncio.sleep(60)


async def main(host, port):
    settings = RedisSettings(host=host, port=int(port))
    pool = await create_pool(settings)
    await pool.flushall()
    worker = Worker(
        functions=[add, third_time, fails, sleeps], redis_settings=settings, poll_delay=0.05,
        handle_signals=False, allow_abort_jobs=True,
    )
    job = await pool.enqueue_job("add", 2, 3)
    assert await job.status() == JobStatus.queued
    assert await pool.enqueue_job("add", 2, 3, _job_id=job.job_id) is None, "a job is unique by its number"
    working = asyncio.create_task(worker.async_run())
    try:
        assert await job.result(timeout=10, poll_delay=0.02) == 5
        assert await job.status() == JobStatus.complete
        later = await pool.enqueue_job("add", 1, 1, _defer_by=0.5)
        assert await later.status() == JobStatus.deferred
        assert await later.result(timeout=10, poll_delay=0.02) == 2
        assert await (await pool.enqueue_job("third_time")).result(timeout=10, poll_delay=0.02) == 3
        try:
            await (await pool.enqueue_job("fails")).result(timeout=10, poll_delay=0.02)
        except ValueError as error:
            assert str(error) == "as asked"
        else:
            raise AssertionError("the error of a job is lost")
        endless = await pool.enqueue_job("sleeps")
        while await endless.status() != JobStatus.in_progress:
            await asyncio.sleep(0.02)
        assert await endless.abort(timeout=10, poll_delay=0.02)
        many = [await pool.enqueue_job("add", n, n) for n in range(20)]
        assert [await each.result(timeout=10, poll_delay=0.02) for each in many] == [2 * n for n in range(20)]
        assert len(await pool.all_job_results()) >= 24
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await worker.close()
        await pool.aclose()
    print(f"arq {arq.VERSION}: ok")


asyncio.run(main(*sys.argv[1].rsplit(":", 1)))
