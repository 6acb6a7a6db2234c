"""kafka-python over TLS: records, a group, and who is refused.

Usage: kafka_python_tls.py HOST:PORT DIRECTORY tls|mutual PLAIN_HOST:PORT
DIRECTORY: ca.pem, stranger-ca.pem, client.pem, client-key.pem
"""

import sys
import time

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import KafkaError

SERVERS, DIRECTORY, MODE, _ = sys.argv[1:5]
RUN = str(time.time_ns())
RECORDS = 500
TLS = {
    "bootstrap_servers": SERVERS,
    "security_protocol": "SSL",
    "ssl_cafile": f"{DIRECTORY}/ca.pem",
    "ssl_certfile": f"{DIRECTORY}/client.pem",
    "ssl_keyfile": f"{DIRECTORY}/client-key.pem",
}


def refused(what, **changes):
    try:
        KafkaProducer(**{**TLS, "bootstrap_timeout_ms": 3000, **changes}).close()
    except (KafkaError, ValueError):
        return
    raise AssertionError(what)


topic = f"tls-{RUN}"
admin = KafkaAdminClient(**TLS)
admin.create_topics([NewTopic(name=topic, num_partitions=2, replication_factor=1)])
producer = KafkaProducer(**TLS, acks="all", linger_ms=5)
values = [f"v{n}".encode() for n in range(RECORDS)] + [b"x" * 300_000]
sent = [producer.send(topic, value=value) for value in values]
producer.flush(30)
assert len({(one.get(10).partition, one.get(10).offset) for one in sent}) == len(values)
producer.close()
consumer = KafkaConsumer(
    topic, **TLS, group_id=f"tls-{RUN}", auto_offset_reset="earliest", enable_auto_commit=False
)
found, deadline = [], time.time() + 30
while len(found) < len(values) and time.time() < deadline:
    for records in consumer.poll(timeout_ms=10_000).values():
        found.extend(record.value for record in records)
assert sorted(found) == sorted(values), f"{len(found)} of {len(values)}"
consumer.commit()
assert sum(consumer.committed(TopicPartition(topic, n)) or 0 for n in range(2)) == len(values)
consumer.close()
admin.close()

refused("a server of a strange authority", ssl_cafile=f"{DIRECTORY}/stranger-ca.pem")
if MODE == "mutual":
    refused("a client that shows nothing", ssl_certfile=None, ssl_keyfile=None)
print("kafka-python over TLS: ok")
