"""Django channels: both layers of channels-redis, with channels and groups.

    channels_layers.py HOST:PORT
"""

import asyncio
import importlib.metadata
import sys

from asgiref.sync import async_to_sync  # noqa: F401  what users of the layers import beside them
from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer

HOSTS = [f"redis://{sys.argv[1]}/0"]


async def receive(layer, channel):
    return await asyncio.wait_for(layer.receive(channel), 10)


async def is_silent(layer, channel):
    try:
        got = await asyncio.wait_for(layer.receive(channel), 0.3)
    except asyncio.TimeoutError:
        return
    raise AssertionError(f"{channel} got {got}")


async def talks(kind):
    # Two processes of a site, each with a layer of its own.
    here, there = kind(hosts=HOSTS), kind(hosts=HOSTS)
    first, second = await here.new_channel(), await there.new_channel()
    waiting = asyncio.create_task(receive(there, second))
    await asyncio.sleep(0.1)
    await here.send(second, {"type": "one", "data": b"bytes"})
    assert await waiting == {"type": "one", "data": b"bytes"}
    await there.send(first, {"type": "back"})
    assert await receive(here, first) == {"type": "back"}
    for layer, channel in ((here, first), (there, second)):
        await layer.group_add("room", channel)
    # The layer of pub/sub does not wait until it is subscribed, and publishes over another connection.
    await asyncio.sleep(0.3)
    await here.group_send("room", {"type": "all", "n": 1})
    assert [await receive(here, first), await receive(there, second)] == [{"type": "all", "n": 1}] * 2
    await there.group_discard("room", second)
    await here.group_send("room", {"type": "rest"})
    assert await receive(here, first) == {"type": "rest"}
    await is_silent(there, second)
    if kind is RedisChannelLayer:
        await here.send("worker", {"type": "job"})
        assert await receive(there, "worker") == {"type": "job"}
        small = kind(hosts=HOSTS, capacity=2, prefix="small")
        for _ in range(2):
            await small.send("full", {"type": "x"})
        try:
            await small.send("full", {"type": "x"})
        except Exception as error:
            assert type(error).__name__ == "ChannelFull", error
        else:
            raise AssertionError("a full channel takes more")
        await small.close_pools()
        await here.close_pools()
        await there.close_pools()
    else:
        await here.flush()
        await there.flush()


for layer in (RedisChannelLayer, RedisPubSubChannelLayer):
    asyncio.run(talks(layer))
print(f"channels-redis {importlib.metadata.version('channels-redis')}: ok")
