"""kafka-python: keyed records with every codec, a group, seeking by time, commits and administration.

Usage: kafka_python.py HOST:PORT
"""

import sys
import time

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewPartitions, NewTopic
from kafka.errors import TopicAlreadyExistsError

SERVERS = sys.argv[1]
RUN = str(time.time_ns())
RECORDS = 500
admin = KafkaAdminClient(bootstrap_servers=SERVERS)


def create(name, partitions=2):
    name = f"{name}-{RUN}"
    admin.create_topics([NewTopic(name=name, num_partitions=partitions, replication_factor=1)])
    return name


def produce(topic, count, **options):
    producer = KafkaProducer(bootstrap_servers=SERVERS, acks="all", linger_ms=5, **options)
    sent = [
        producer.send(topic, key=f"k{n % 7}".encode(), value=f"v{n}".encode(), headers=[("h", b"x")])
        for n in range(count)
    ]
    producer.flush(30)
    places = {(one.get(10).partition, one.get(10).offset) for one in sent}
    assert len(places) == count
    producer.close()


def read(consumer, count):
    found, deadline = [], time.time() + 30
    while len(found) < count and time.time() < deadline:
        for records in consumer.poll(timeout_ms=200).values():
            found.extend(records)
    assert len(found) == count, f"{len(found)} of {count}"
    return found


for codec in [None, "gzip", "snappy", "lz4", "zstd"]:
    topic = create(f"codec-{codec}")
    produce(topic, RECORDS, compression_type=codec)
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=SERVERS,
        group_id=f"g-{codec}-{RUN}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    found = read(consumer, RECORDS)
    assert {record.value for record in found} == {f"v{n}".encode() for n in range(RECORDS)}, codec
    assert all(record.headers[0][1] == b"x" for record in found)
    consumer.commit()
    consumer.close()
    again = KafkaConsumer(bootstrap_servers=SERVERS, group_id=f"g-{codec}-{RUN}")
    committed = [again.committed(TopicPartition(topic, n)) or 0 for n in range(2)]
    assert sum(committed) == RECORDS, committed
    again.close()

for codec in ["gzip", "snappy", "lz4", "zstd"]:
    # Within a batch, whose records are a second apart.
    topic = create(f"times-{codec}", partitions=1)
    options = {"compression_type": codec, "linger_ms": 200}
    producer = KafkaProducer(bootstrap_servers=SERVERS, acks="all", **options)
    begun = int(time.time() * 1000) - 100_000
    for n in range(10):
        producer.send(topic, value=b"v", timestamp_ms=begun + n * 1000)
    producer.flush(30)
    producer.close()
    consumer = KafkaConsumer(bootstrap_servers=SERVERS)
    partition = TopicPartition(topic, 0)
    found = consumer.offsets_for_times({partition: begun + 6500})[partition]
    assert (found.offset, found.timestamp) == (7, begun + 7000), (codec, found)
    consumer.close()

topic = create("times", partitions=1)
produce(topic, 20)
time.sleep(0.05)
middle = int(time.time() * 1000)
time.sleep(0.05)
produce(topic, 10)
consumer = KafkaConsumer(bootstrap_servers=SERVERS)
partition = TopicPartition(topic, 0)
assert consumer.offsets_for_times({partition: middle})[partition].offset == 20
assert consumer.beginning_offsets([partition]) == {partition: 0}
assert consumer.end_offsets([partition]) == {partition: 30}
consumer.assign([partition])
consumer.seek(partition, 25)
assert [record.offset for record in read(consumer, 5)] == list(range(25, 30))
consumer.close()

try:
    admin.create_topics([NewTopic(name=topic, num_partitions=1, replication_factor=1)])
    raise AssertionError("the topic exists")
except TopicAlreadyExistsError:
    pass
admin.create_partitions({topic: NewPartitions(3)})
assert topic in admin.list_topics()
admin.delete_topics([topic])
deadline = time.time() + 10
while topic in admin.list_topics():
    assert time.time() < deadline, "the topic is still there"
    time.sleep(0.1)
admin.close()
print("kafka-python: ok")
