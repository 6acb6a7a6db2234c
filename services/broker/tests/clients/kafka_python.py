"""kafka-python: keyed records with every codec, a group of three with a member killed, seeking by time, commits,
administration, and an idempotent producer whose connections are reset.

Usage: kafka_python.py HOST:PORT [resets | member TOPIC GROUP]
"""

import sys
import time

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewPartitions, NewTopic
from kafka.errors import TopicAlreadyExistsError

from members import group_of_three, saw, wait

SERVERS = sys.argv[1]
RUN = str(time.time_ns())
RECORDS = 500


def create(name, partitions=2):
    name = f"{name}-{RUN}"
    admin.create_topics([NewTopic(name=name, num_partitions=partitions, replication_factor=1)])
    return name


def produce(topic, count, padding="", **options):
    producer = KafkaProducer(bootstrap_servers=SERVERS, acks="all", linger_ms=5, **options)
    sent = [
        producer.send(topic, key=f"k{n % 7}".encode(), value=f"v{n}{padding}".encode(), headers=[("h", b"x")])
        for n in range(count)
    ]
    producer.flush(30)
    places = {(one.get(10).partition, one.get(10).offset) for one in sent}
    assert len(places) == count
    producer.close()


def consumer(*topics, **options):
    # The client may forget a wish for metadata that comes while it is being answered: until the next refresh.
    common = {"bootstrap_servers": SERVERS, "auto_offset_reset": "earliest", "metadata_max_age_ms": 500}
    return KafkaConsumer(*topics, **common, **options)


def read(client, count):
    found, deadline = [], time.time() + 30
    while len(found) < count and time.time() < deadline:
        # The client loses its partitions when this ends between the answer to its SyncGroup and their assignment.
        for records in client.poll(timeout_ms=10_000).values():
            found.extend(records)
    assert len(found) == count, f"{len(found)} of {count}"
    return found


def codecs():
    for codec in [None, "gzip", "snappy", "lz4", "zstd"]:
        topic = create(f"codec-{codec}")
        produce(topic, RECORDS, compression_type=codec)
        client = consumer(topic, group_id=topic, enable_auto_commit=False)
        found = read(client, RECORDS)
        assert {record.value for record in found} == {f"v{n}".encode() for n in range(RECORDS)}, codec
        assert all(record.headers[0][1] == b"x" for record in found)
        client.commit()
        client.close()
        again = consumer(group_id=topic)
        committed = [again.committed(TopicPartition(topic, n)) or 0 for n in range(2)]
        assert sum(committed) == RECORDS, committed
        again.close()


def times_within_batches():
    for codec in ["gzip", "snappy", "lz4", "zstd"]:
        # Records of one batch, a second apart.
        topic = create(f"times-{codec}", partitions=1)
        producer = KafkaProducer(bootstrap_servers=SERVERS, acks="all", compression_type=codec, linger_ms=200)
        begun = int(time.time() * 1000) - 100_000
        for n in range(10):
            producer.send(topic, value=b"v", timestamp_ms=begun + n * 1000)
        producer.flush(30)
        producer.close()
        client = consumer()
        partition = TopicPartition(topic, 0)
        found = client.offsets_for_times({partition: begun + 6500})[partition]
        assert (found.offset, found.timestamp) == (7, begun + 7000), (codec, found)
        client.close()


def resets():
    topic, padding = create("resets"), "x" * 100
    produce(topic, RECORDS, padding, enable_idempotence=True, batch_size=2000)
    client = consumer(topic, group_id=topic)
    found = sorted(record.value.decode() for record in read(client, RECORDS))
    assert found == sorted(f"v{n}{padding}" for n in range(RECORDS)), "each record once"
    assert not client.poll(timeout_ms=1000), "and none twice"
    client.close()


def member(topic, group):
    options = {"session_timeout_ms": 2000, "heartbeat_interval_ms": 400, "auto_commit_interval_ms": 100}
    for record in consumer(topic, group_id=group, **options):
        saw(record.partition, record.offset)


def groups():
    topic = create("group", partitions=6)
    group_of_three(SERVERS, topic, topic, lambda: produce(topic, 100) or 100)
    assert topic in {group["group_id"] for group in admin.list_groups()}
    state = lambda: admin.describe_groups([topic])[topic]["group_state"]
    # Its members were killed: their sessions have to end.
    wait(lambda: state() == "Empty", "the group is empty")
    assert admin.delete_groups([topic]) == {topic: "OK"}


def times_and_ends():
    topic = create("times", partitions=1)
    produce(topic, 20)
    time.sleep(0.05)
    middle = int(time.time() * 1000)
    time.sleep(0.05)
    produce(topic, 10)
    client = consumer()
    partition = TopicPartition(topic, 0)
    found = client.offsets_for_times({partition: middle})[partition]
    assert found.offset == 20
    assert client.beginning_offsets([partition]) == {partition: 0}
    assert client.end_offsets([partition]) == {partition: 30}
    client.assign([partition])
    client.seek(partition, found.offset)
    assert [record.offset for record in read(client, 10)] == list(range(20, 30))
    assert admin.delete_records({partition: 25})[partition]["low_watermark"] == 25
    assert client.beginning_offsets([partition]) == {partition: 25}
    client.close()


def administration():
    topic = create("admin", partitions=1)
    try:
        admin.create_topics([NewTopic(name=topic, num_partitions=1, replication_factor=1)])
        raise AssertionError("the topic exists")
    except TopicAlreadyExistsError:
        pass
    admin.create_partitions({topic: NewPartitions(3)})
    (described,) = admin.describe_topics([topic])
    assert len(described["partitions"]) == 3
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "90000"})])
    configs = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    assert configs["topic"][topic]["retention.ms"]["value"] == "90000", configs
    assert topic in admin.list_topics()
    admin.delete_topics([topic])
    wait(lambda: topic not in admin.list_topics(), "the topic is gone")


match sys.argv[2:]:
    case ["member", topic, group]:
        member(topic, group)
    case ["resets"]:
        admin = KafkaAdminClient(bootstrap_servers=SERVERS)
        resets()
    case _:
        admin = KafkaAdminClient(bootstrap_servers=SERVERS)
        codecs()
        groups()
        times_and_ends()
        times_within_batches()
        administration()
        admin.close()
print("kafka-python: ok")
