"""aiokafka: every codec, a group of three with a member killed, seeking by time, administration, and an idempotent
producer whose connections are reset.

Usage: aio.py HOST:PORT [resets | member TOPIC GROUP]
"""

import asyncio
import sys
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from members import group_of_three, saw

SERVERS = sys.argv[1]
RUN = str(time.time_ns())
RECORDS = 500


async def create(admin, name, partitions=3):
    topic = f"aio-{name}-{RUN}"
    await admin.create_topics([NewTopic(topic, partitions, 1)])
    return topic


async def read(consumer, count):
    found = []
    deadline = time.time() + 30
    while len(found) < count and time.time() < deadline:
        batches = await consumer.getmany(timeout_ms=200)
        for records in batches.values():
            found.extend(records)
    assert len(found) == count, f"{len(found)} of {count}"
    return found


async def produce(topic, count, padding="", **options):
    async with AIOKafkaProducer(bootstrap_servers=SERVERS, **options) as producer:
        sent = [
            await producer.send(topic, f"v{n}{padding}".encode(), key=f"k{n % 50}".encode())
            for n in range(count)
        ]
        await asyncio.gather(*sent)


def consumer(*topics, **options):
    return AIOKafkaConsumer(*topics, bootstrap_servers=SERVERS, auto_offset_reset="earliest", **options)


async def codecs(admin):
    for codec in [None, "gzip", "snappy", "lz4", "zstd"]:
        topic = await create(admin, f"codec-{codec}")
        await produce(topic, RECORDS, compression_type=codec)
        async with consumer(topic, group_id=topic, enable_auto_commit=False) as client:
            found = await read(client, RECORDS)
            assert {record.value for record in found} == {f"v{n}".encode() for n in range(RECORDS)}, codec
            await client.commit()
            committed = [await client.committed(TopicPartition(topic, number)) or 0 for number in range(3)]
            assert sum(committed) == RECORDS, committed


async def resets(admin):
    topic, padding = await create(admin, "resets"), "x" * 100
    await produce(topic, RECORDS, padding, enable_idempotence=True, max_batch_size=2000)
    async with consumer(topic, group_id=topic) as client:
        found = sorted(record.value.decode() for record in await read(client, RECORDS))
        assert found == sorted(f"v{n}{padding}" for n in range(RECORDS)), "each record once"
        assert not await client.getmany(timeout_ms=1000), "and none twice"


async def member(topic, group):
    options = {"session_timeout_ms": 2000, "heartbeat_interval_ms": 400, "auto_commit_interval_ms": 100}
    async with consumer(topic, group_id=group, **options) as client:
        async for record in client:
            saw(record.partition, record.offset)


async def groups(admin):
    topic = await create(admin, "group", partitions=6)

    def send():
        asyncio.run(produce(topic, 100))
        return 100

    await asyncio.to_thread(group_of_three, SERVERS, topic, topic, send)
    assert topic in {group for group, *_ in await admin.list_consumer_groups()}
    deadline = time.time() + 30
    while True:
        (described,) = await admin.describe_consumer_groups([topic])
        (_, name, state, *_), = described.groups
        assert name == topic
        # Its members were killed: their sessions have to end.
        if state == "Empty":
            break
        assert time.time() < deadline, described
        await asyncio.sleep(0.1)


async def times(admin):
    topic = await create(admin, "times", partitions=1)
    await produce(topic, 20)
    await asyncio.sleep(0.05)
    middle = int(time.time() * 1000)
    await asyncio.sleep(0.05)
    await produce(topic, 10)
    partition = TopicPartition(topic, 0)
    async with consumer() as client:
        found = (await client.offsets_for_times({partition: middle}))[partition]
        assert found.offset == 20
        client.assign([partition])
        client.seek(partition, found.offset)
        assert [record.offset for record in await read(client, 10)] == list(range(20, 30))
        assert await admin.delete_records({partition: RecordsToDelete(25)}) == {partition: 25}
        assert await client.beginning_offsets([partition]) == {partition: 25}


async def administration(admin):
    topic = await create(admin, "admin", partitions=1)
    await admin.create_partitions({topic: NewPartitions(3)})
    (described,) = await admin.describe_topics([topic])
    assert len(described["partitions"]) == 3
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs={"retention.ms": "90000"})
    await admin.alter_configs([resource])
    (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    (_, _, _, _, entries), = response.resources
    assert {entry[0]: entry[1] for entry in entries}["retention.ms"] == "90000", entries
    await admin.delete_topics([topic])
    assert topic not in await admin.list_topics()


async def main():
    if sys.argv[2:3] == ["member"]:
        return await member(*sys.argv[3:])
    admin = AIOKafkaAdminClient(bootstrap_servers=SERVERS)
    await admin.start()
    if sys.argv[2:] == ["resets"]:
        await resets(admin)
    else:
        for part in [codecs, groups, times, administration]:
            await part(admin)
    await admin.close()


asyncio.run(main())
print("aiokafka: ok")
