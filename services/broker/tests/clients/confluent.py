"""confluent-kafka (librdkafka): every codec, an idempotent producer, a group of three whose members come and go, seeking
by time, and administration.

Usage: confluent.py HOST:PORT
"""

import sys
import threading
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    ConfigResource,
    NewPartitions,
    NewTopic,
)

SERVERS = sys.argv[1]
RUN = str(time.time_ns())
RECORDS = 3000
admin = AdminClient({"bootstrap.servers": SERVERS})


def result(futures):
    (future,) = futures.values()
    return future.result(10)


def create(name, partitions=3, config=None):
    name = f"{name}-{RUN}"
    result(admin.create_topics([NewTopic(name, partitions, 1, config=config or {})]))
    return name


def produce(topic, count, **options):
    failed = []
    producer = Producer({"bootstrap.servers": SERVERS, "linger.ms": 5, **options})
    for number in range(count):
        producer.produce(
            topic,
            key=f"k{number % 50}",
            value=f"v{number}",
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
        producer.poll(0)
    assert producer.flush(30) == 0, "not all delivered"
    assert not failed, failed[:3]


def consumer(group, **options):
    return Consumer(
        {
            "bootstrap.servers": SERVERS,
            "group.id": f"{group}-{RUN}",
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 6000,
            **options,
        }
    )


def read(client, count, seconds=30):
    found, deadline = [], time.time() + seconds
    while len(found) < count and time.time() < deadline:
        message = client.poll(0.2)
        if message is None:
            continue
        assert message.error() is None, message.error()
        found.append(message)
    assert len(found) == count, f"{len(found)} of {count}"
    return found


def codecs():
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
        topic = create(f"codec-{codec}")
        produce(topic, RECORDS, **{"compression.type": codec})
        client = consumer(f"codec-{codec}")
        client.subscribe([topic])
        found = read(client, RECORDS)
        assert {m.value() for m in found} == {f"v{n}".encode() for n in range(RECORDS)}, codec
        by_key = {}
        for message in found:
            by_key.setdefault(message.key(), []).append(int(message.value()[1:]))
        assert all(values == sorted(values) for values in by_key.values()), "order by key"
        client.close()


def idempotent():
    topic = create("idempotent")
    produce(topic, RECORDS, **{"enable.idempotence": True})
    client = consumer("idempotent", **{"check.crcs": True})
    client.subscribe([topic])
    assert len({m.value() for m in read(client, RECORDS)}) == RECORDS
    client.close()


def group_of_three():
    topic = create("group", partitions=6)
    seen, stop = [], [threading.Event() for _ in range(3)]

    def member(number):
        client = consumer("three", **{"enable.auto.commit": True, "auto.commit.interval.ms": 100})
        client.subscribe([topic])
        while not stop[number].is_set():
            message = client.poll(0.1)
            if message is not None and message.error() is None:
                seen.append((message.partition(), message.offset()))
        client.close()

    threads = [threading.Thread(target=member, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    produce(topic, RECORDS)
    wait(lambda: len(set(seen)) == RECORDS, "all records by three members")
    stop[0].set()
    threads[0].join()
    produce(topic, RECORDS)
    wait(lambda: len(set(seen)) == 2 * RECORDS, "all records by the two that are left")
    for event in stop:
        event.set()
    for thread in threads:
        thread.join()
    client = consumer("three")
    committed = client.committed([TopicPartition(topic, n) for n in range(6)], timeout=10)
    assert sum(partition.offset for partition in committed) == 2 * RECORDS, committed
    client.close()


def wait(condition, what, seconds=30):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, what
        time.sleep(0.05)


def times_and_ends():
    topic = create("times", partitions=1)
    produce(topic, 100)
    time.sleep(0.05)
    middle = int(time.time() * 1000)
    time.sleep(0.05)
    produce(topic, 50)
    client = consumer("times")
    (found,) = client.offsets_for_times([TopicPartition(topic, 0, middle)], timeout=10)
    assert found.offset == 100, found
    assert client.get_watermark_offsets(TopicPartition(topic, 0), timeout=10) == (0, 150)
    client.assign([TopicPartition(topic, 0, found.offset)])
    assert [m.offset() for m in read(client, 50)] == list(range(100, 150))
    client.close()


def administration():
    topic = create("admin", partitions=2, config={"retention.ms": "60000"})
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    config = result(admin.describe_configs([resource]))
    assert config["retention.ms"].value == "60000"
    assert config["flush.mode"].value == "sync"
    result(admin.create_partitions([NewPartitions(topic, 5)]))
    metadata = admin.list_topics(timeout=10)
    assert len(metadata.topics[topic].partitions) == 5
    assert metadata.cluster_id
    try:
        result(admin.create_topics([NewTopic(topic, 1, 1)]))
        raise AssertionError("the topic exists")
    except KafkaException as error:
        assert error.args[0].name() == "TOPIC_ALREADY_EXISTS", error
    try:
        result(admin.create_topics([NewTopic("bad/name", 1, 1)]))
        raise AssertionError("the name is bad")
    except KafkaException as error:
        assert error.args[0].name() == "TOPIC_EXCEPTION", error
    produce(topic, 100)
    groups = admin.list_consumer_groups().result(10).valid
    assert any(group.group_id == f"three-{RUN}" for group in groups), groups
    described = result(admin.describe_consumer_groups([f"three-{RUN}"]))
    assert described.state.name == "EMPTY", described.state
    result(admin.delete_consumer_groups([f"three-{RUN}"]))
    result(admin.delete_topics([topic]))
    wait(lambda: topic not in admin.list_topics(timeout=10).topics, "the topic is gone")


codecs()
idempotent()
group_of_three()
times_and_ends()
administration()
print("confluent-kafka: ok")
