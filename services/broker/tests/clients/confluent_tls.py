"""confluent-kafka (librdkafka) over TLS: records large and small, a group, who is told which ports, and who is refused.

Usage: confluent_tls.py HOST:PORT DIRECTORY tls|mutual PLAIN_HOST:PORT
DIRECTORY: ca.pem, stranger-ca.pem, client.pem, client-key.pem
"""

import sys
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

SERVERS, DIRECTORY, MODE, PLAIN = sys.argv[1:5]
RUN = str(time.time_ns())
RECORDS = 2000
LARGE = 400_000
TLS = {
    "bootstrap.servers": SERVERS,
    "security.protocol": "ssl",
    "ssl.ca.location": f"{DIRECTORY}/ca.pem",
    "ssl.certificate.location": f"{DIRECTORY}/client.pem",
    "ssl.key.location": f"{DIRECTORY}/client-key.pem",
}


def ports(config):
    client = AdminClient(config)
    brokers = client.list_topics(timeout=10).brokers
    return sorted(broker.port for broker in brokers.values())


def refused(what, **changes):
    config = {key: value for key, value in {**TLS, **changes}.items() if value is not None}
    client = AdminClient(config)
    try:
        client.list_topics(timeout=3)
    except KafkaException:
        return
    raise AssertionError(what)


topic = f"tls-{RUN}"
admin = AdminClient(TLS)
(made,) = admin.create_topics([NewTopic(topic, 4, 1)]).values()
made.result(10)
failed = []
producer = Producer({**TLS, "linger.ms": 5, "enable.idempotence": True})
values = [f"v{n}".encode() for n in range(RECORDS)] + [bytes([n]) * LARGE for n in range(8)]
for number, value in enumerate(values):
    producer.produce(
        topic, key=f"k{number % 50}", value=value, on_delivery=lambda error, _: failed.append(error) if error else None
    )
    producer.poll(0)
assert producer.flush(30) == 0, "not all delivered"
assert not failed, failed[:3]

group = {"group.id": f"tls-{RUN}", "auto.offset.reset": "earliest", "check.crcs": True, "enable.auto.commit": False}
consumer = Consumer({**TLS, **group})
consumer.subscribe([topic])
found, deadline = [], time.time() + 30
while len(found) < len(values) and time.time() < deadline:
    message = consumer.poll(0.2)
    if message is not None:
        assert message.error() is None, message.error()
        found.append(message.value())
assert sorted(found) == sorted(values), f"{len(found)} of {len(values)}"
consumer.commit(asynchronous=False)
committed = consumer.committed([TopicPartition(topic, n) for n in range(4)], timeout=10)
assert sum(partition.offset for partition in committed) == len(values), committed
consumer.close()

first, plain = int(SERVERS.rsplit(":", 1)[1]), int(PLAIN.rsplit(":", 1)[1])
there = ports(TLS)
assert there == list(range(first + 1, first + 1 + len(there))), there
there = ports({"bootstrap.servers": PLAIN})
assert there == list(range(plain + 1, plain + 1 + len(there))), there

refused("a server of a strange authority", **{"ssl.ca.location": f"{DIRECTORY}/stranger-ca.pem"})
refused("no TLS where it is wanted", **{"security.protocol": "plaintext"})
if MODE == "mutual":
    refused("a client that shows nothing", **{"ssl.certificate.location": None, "ssl.key.location": None})
print("confluent-kafka over TLS: ok")
