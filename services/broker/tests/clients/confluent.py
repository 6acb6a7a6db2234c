"""confluent-kafka (librdkafka): every codec, a group of three with a member killed, seeking by time, administration, and an
idempotent producer whose connections are reset.

Usage: confluent.py HOST:PORT [resets | member TOPIC GROUP]
"""

import sys
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
)

from members import group_of_three, saw, wait

SERVERS = sys.argv[1]
RUN = str(time.time_ns())
RECORDS = 3000
# A reset connection is the test's own doing.
COMMON = {"bootstrap.servers": SERVERS, "log_level": 2}
admin = AdminClient(COMMON)


def result(futures):
    (future,) = futures.values()
    return future.result(10)


def create(name, partitions=3, config=None):
    name = f"{name}-{RUN}"
    result(admin.create_topics([NewTopic(name, partitions, 1, config=config or {})]))
    return name


def produce(topic, count, padding="", **options):
    failed = []
    producer = Producer({"linger.ms": 5, **COMMON, **options})
    for number in range(count):
        producer.produce(
            topic,
            key=f"k{number % 50}",
            value=f"v{number}{padding}",
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
        producer.poll(0)
    assert producer.flush(30) == 0, "not all delivered"
    assert not failed, failed[:3]


def consumer(group, **options):
    return Consumer(
        {
            "group.id": group,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 6000,
            "check.crcs": True,
            **COMMON,
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
        client = consumer(topic)
        client.subscribe([topic])
        found = read(client, RECORDS)
        assert {m.value() for m in found} == {f"v{n}".encode() for n in range(RECORDS)}, codec
        by_key = {}
        for message in found:
            by_key.setdefault(message.key(), []).append(int(message.value()[1:]))
        assert all(values == sorted(values) for values in by_key.values()), "order by key"
        client.close()


def resets():
    topic, padding = create("resets"), "x" * 100
    produce(topic, RECORDS, padding, **{"enable.idempotence": True, "batch.num.messages": 100})
    client = consumer(topic)
    client.subscribe([topic])
    found = sorted(m.value().decode() for m in read(client, RECORDS))
    assert found == sorted(f"v{n}{padding}" for n in range(RECORDS)), "each record once"
    assert client.poll(1) is None, "and none twice"
    client.close()


def member(topic, group):
    options = {"session.timeout.ms": 2000, "heartbeat.interval.ms": 400}
    client = consumer(group, **options, **{"auto.commit.interval.ms": 100})
    client.subscribe([topic])
    while True:
        message = client.poll(0.1)
        if message is not None and message.error() is None:
            saw(message.partition(), message.offset())


def groups():
    topic = create("group", partitions=6)
    group_of_three(SERVERS, topic, topic, lambda: produce(topic, 300) or 300)
    listed = admin.list_consumer_groups().result(10).valid
    assert any(group.group_id == topic for group in listed), listed
    state = lambda: result(admin.describe_consumer_groups([topic])).state.name
    # Its members were killed: their sessions have to end.
    wait(lambda: state() == "EMPTY", "the group is empty")
    result(admin.delete_consumer_groups([topic]))
    assert state() == "DEAD"


def times_and_ends():
    topic = create("times", partitions=1)
    produce(topic, 100)
    time.sleep(0.05)
    middle = int(time.time() * 1000)
    time.sleep(0.05)
    produce(topic, 50)
    client = consumer(topic)
    (found,) = client.offsets_for_times([TopicPartition(topic, 0, middle)], timeout=10)
    assert found.offset == 100, found
    assert client.get_watermark_offsets(TopicPartition(topic, 0), timeout=10) == (0, 150)
    client.assign([TopicPartition(topic, 0, found.offset)])
    assert [m.offset() for m in read(client, 50)] == list(range(100, 150))
    result(admin.delete_records([TopicPartition(topic, 0, 120)]))
    assert client.get_watermark_offsets(TopicPartition(topic, 0), timeout=10) == (120, 150)
    client.close()


def refused(request, code):
    try:
        request()
        raise AssertionError(f"{code} is missing")
    except KafkaException as error:
        assert error.args[0].name() == code, error


def administration():
    topic = create("admin", partitions=2, config={"retention.ms": "60000"})
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    config = result(admin.describe_configs([resource]))
    assert config["retention.ms"].value == "60000"
    assert config["flush.mode"].value == "sync"
    change = ConfigEntry("retention.ms", "90000", incremental_operation=AlterConfigOpType.SET)
    changed = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[change])
    result(admin.incremental_alter_configs([changed]))
    assert result(admin.describe_configs([resource]))["retention.ms"].value == "90000"
    result(admin.create_partitions([NewPartitions(topic, 5)]))
    metadata = admin.list_topics(timeout=10)
    assert len(metadata.topics[topic].partitions) == 5
    assert metadata.cluster_id
    refused(lambda: create("admin"), "TOPIC_ALREADY_EXISTS")
    refused(lambda: create("bad/name"), "TOPIC_EXCEPTION")
    result(admin.delete_topics([topic]))
    wait(lambda: topic not in admin.list_topics(timeout=10).topics, "the topic is gone")


match sys.argv[2:]:
    case ["member", topic, group]:
        member(topic, group)
    case ["resets"]:
        resets()
    case _:
        codecs()
        groups()
        times_and_ends()
        administration()
print("confluent-kafka: ok")
