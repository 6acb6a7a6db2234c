"""aiokafka: an idempotent producer with every codec, a group, and seeking by time.

Usage: aio.py HOST:PORT
"""

import asyncio
import sys
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

SERVERS = sys.argv[1]
RUN = str(time.time_ns())
RECORDS = 500


async def read(consumer, count):
    found = []
    deadline = time.time() + 30
    while len(found) < count and time.time() < deadline:
        batches = await consumer.getmany(timeout_ms=200)
        for records in batches.values():
            found.extend(records)
    assert len(found) == count, f"{len(found)} of {count}"
    return found


async def produce(topic, count, **options):
    producer = AIOKafkaProducer(bootstrap_servers=SERVERS, **options)
    await producer.start()
    sent = [await producer.send(topic, f"v{n}".encode(), key=f"k{n % 5}".encode()) for n in range(count)]
    await asyncio.gather(*sent)
    await producer.stop()


async def main():
    admin = AIOKafkaAdminClient(bootstrap_servers=SERVERS)
    await admin.start()
    for codec in [None, "gzip", "snappy", "lz4", "zstd"]:
        topic = f"aio-{codec}-{RUN}"
        await admin.create_topics([NewTopic(topic, 3, 1)])
        await produce(topic, RECORDS, compression_type=codec, enable_idempotence=True)
        consumer = AIOKafkaConsumer(
            topic,
            bootstrap_servers=SERVERS,
            group_id=f"g-{codec}-{RUN}",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await consumer.start()
        found = await read(consumer, RECORDS)
        assert {record.value for record in found} == {f"v{n}".encode() for n in range(RECORDS)}, codec
        await consumer.commit()
        total = 0
        for number in range(3):
            total += await consumer.committed(TopicPartition(topic, number)) or 0
        assert total == RECORDS, total
        await consumer.stop()

    topic = f"aio-times-{RUN}"
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await produce(topic, 20)
    await asyncio.sleep(0.05)
    middle = int(time.time() * 1000)
    await asyncio.sleep(0.05)
    await produce(topic, 10)
    consumer = AIOKafkaConsumer(bootstrap_servers=SERVERS)
    await consumer.start()
    partition = TopicPartition(topic, 0)
    assert (await consumer.offsets_for_times({partition: middle}))[partition].offset == 20
    consumer.assign([partition])
    consumer.seek(partition, 25)
    assert [record.offset for record in await read(consumer, 5)] == list(range(25, 30))
    await consumer.stop()
    await admin.close()


asyncio.run(main())
print("aiokafka: ok")
