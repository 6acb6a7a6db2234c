"""kafka-python: compacted topics, with every codec: what stays of keyed updates, tombstones, and what is refused.

Usage: compaction.py HOST:PORT
"""

import sys
import time

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewTopic
from kafka.errors import KafkaError

SERVERS = sys.argv[1]
RUN = str(time.time_ns())
KEYS = 10
UPDATES = 60
WAIT_S = 30
admin = KafkaAdminClient(bootstrap_servers=SERVERS)
CONFIG = {
    "cleanup.policy": "compact",
    "segment.bytes": "2000",
    "min.cleanable.dirty.ratio": "0.01",
    "delete.retention.ms": "1500",
}


def create(name, config):
    name = f"{name}-{RUN}"
    admin.create_topics(
        [NewTopic(name=name, num_partitions=1, replication_factor=1, topic_configs=config)]
    )
    return name


def is_refused(call, *wanted):
    try:
        answer = str(call())
    except KafkaError as error:
        answer = repr(error)
    assert any(word in answer for word in wanted), answer


def described(topic):
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    return str(admin.describe_configs([resource]))


def read(topic):
    """Everything from the first offset on, and where the log ends."""
    partition = TopicPartition(topic, 0)
    consumer = KafkaConsumer(bootstrap_servers=SERVERS, enable_auto_commit=False)
    consumer.assign([partition])
    consumer.seek(partition, 0)
    end = consumer.end_offsets([partition])[partition]
    assert consumer.beginning_offsets([partition]) == {partition: 0}
    found, deadline = [], time.time() + WAIT_S
    while consumer.position(partition) < end and time.time() < deadline:
        for records in consumer.poll(timeout_ms=200).values():
            found.extend(records)
    assert consumer.position(partition) >= end, "the consumer got stuck"
    consumer.close()
    return found, end


def until(topic, what, holds):
    deadline = time.time() + WAIT_S
    while time.time() < deadline:
        found, end = read(topic)
        if holds(found):
            return found, end
        time.sleep(0.3)
    raise AssertionError(f"{what}: {[(one.offset, one.key, one.value) for one in found]}")


for codec in [None, "gzip", "snappy", "lz4", "zstd"]:
    topic = create(f"compacted-{codec}", CONFIG)
    for option, value in CONFIG.items():
        assert option in described(topic) and value in described(topic), described(topic)
    producer = KafkaProducer(
        bootstrap_servers=SERVERS, acks="all", linger_ms=2, compression_type=codec
    )
    sent, last = [], {}
    for update in range(UPDATES):
        for n in range(KEYS):
            key, value = f"k{n}".encode(), f"value {update} of key {n} {update * n}".encode()
            sent.append(producer.send(topic, key=key, value=value))
            last[key] = value
        if update == UPDATES // 2:
            sent.append(producer.send(topic, key=b"gone", value=b"soon"))
            sent.append(producer.send(topic, key=b"gone", value=None))
        producer.flush(WAIT_S)
    offsets = sorted(one.get(10).offset for one in sent)
    assert offsets == list(range(UPDATES * KEYS + 2)), offsets

    # What is in the active segment is not compacted: some keys are there twice.
    found, end = until(topic, "compacted", lambda found: len(found) < 8 * KEYS)
    assert end == len(sent)
    assert [one.offset for one in found] == sorted(one.offset for one in found)
    assert {one.key: one.value for one in found if one.key != b"gone"} == last, codec
    assert all(one.value != b"soon" for one in found), "superseded"
    consumer = KafkaConsumer(bootstrap_servers=SERVERS)
    place = TopicPartition(topic, 0)
    # The first record that is left of those that are as new.
    newest = found[-1]
    by_time = consumer.offsets_for_times({place: newest.timestamp})[place]
    assert by_time.timestamp >= newest.timestamp and by_time.offset in {r.offset for r in found}
    consumer.close()

    # Tombstones go with a later round, when they have been there for delete.retention.ms.
    update = UPDATES

    def gone(found):
        global update
        update += 1
        for n in range(KEYS):
            key, value = f"k{n}".encode(), f"value {update} of key {n} {update * n}".encode()
            producer.send(topic, key=key, value=value)
            last[key] = value
        producer.flush(WAIT_S)
        return all(one.key != b"gone" for one in found)

    until(topic, "without the tombstone", gone)
    found, _ = read(topic)
    assert {one.key: one.value for one in found} == last, codec

    # A record without a key has no place here.
    is_refused(lambda: producer.send(topic, value=b"no key").get(10), "InvalidRecord")
    producer.close()

is_refused(lambda: create("both", CONFIG | {"cleanup.policy": "compact,shred"}), "cleanup.policy")
lags = {"min.compaction.lag.ms": "10", "max.compaction.lag.ms": "5"}
is_refused(lambda: create("lags", CONFIG | lags), "min.compaction.lag.ms")
topic = create("both", CONFIG | {"cleanup.policy": "compact,delete"})
assert "compact,delete" in described(topic)

# Commits of groups are in a compacted topic too.
topic = create("commits", {})
producer = KafkaProducer(bootstrap_servers=SERVERS)
for n in range(50):
    producer.send(topic, value=str(n).encode())
producer.flush(WAIT_S)
place = TopicPartition(topic, 0)
consumer = KafkaConsumer(bootstrap_servers=SERVERS, group_id=f"g-{RUN}", enable_auto_commit=False)
consumer.assign([place])
for n in range(1, 50):
    consumer.seek(place, n)
    consumer.poll(timeout_ms=1000, max_records=1)
    consumer.commit()
    if n == 1:
        admin.alter_configs(
            [
                ConfigResource(
                    ConfigResourceType.TOPIC,
                    "__consumer_offsets",
                    configs={"cleanup.policy": "compact", "segment.bytes": "2000"},
                )
            ]
        )
assert consumer.committed(place) is not None
committed = consumer.committed(place)
consumer.close()
time.sleep(3)
again = KafkaConsumer(bootstrap_servers=SERVERS, group_id=f"g-{RUN}")
assert again.committed(place) == committed, (again.committed(place), committed)
again.close()
admin.close()
print("kafka-python: ok")
