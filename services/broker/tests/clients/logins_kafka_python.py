"""kafka-python against a broker with users and quotas: log-ins by every mechanism, wrong passwords, and being slowed
down.

Users and quotas as in logins_confluent.py.

Usage: logins_kafka_python.py HOST:PORT
"""

import logging
import sys
import time

from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import KafkaError

SERVERS = sys.argv[1]
TOPIC = f"logins-{time.time_ns()}"


def config(mechanism, user, password, **options):
    return {
        "bootstrap_servers": SERVERS,
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": mechanism,
        "sasl_plain_username": user,
        "sasl_plain_password": password,
        **options,
    }


class Messages(logging.Handler):
    """What the client logs: it tries again and again, and raises at the end that it ran out of time."""

    def __init__(self):
        super().__init__()
        self.text = ""

    def emit(self, record):
        self.text += record.getMessage() + "\n"


def refused(**options):
    messages = Messages()
    logging.getLogger("kafka").addHandler(messages)
    try:
        KafkaAdminClient(bootstrap_timeout_ms=1500, **options).close()
        raise AssertionError("not refused")
    except KafkaError:
        return messages.text
    finally:
        logging.getLogger("kafka").removeHandler(messages)


def throttle(client, name):
    for group in client.metrics().values():
        for key, value in group.items():
            if key == name:
                return value
    raise AssertionError(f"no metric {name}")


alice = config("SCRAM-SHA-512", "alice", "wonder")
admin = KafkaAdminClient(**alice)
admin.create_topics([NewTopic(name=TOPIC, num_partitions=1, replication_factor=1)])
admin.close()
total = 0
for mechanism, user, password in [
    ("PLAIN", "alice", "wonder"),
    ("SCRAM-SHA-256", "alice", "wonder"),
    ("SCRAM-SHA-512", "alice", "wonder"),
    ("PLAIN", "bob", "pencil"),
    ("SCRAM-SHA-256", "bob", "pencil"),
]:
    options = config(mechanism, user, password)
    producer = KafkaProducer(**options, acks="all")
    sent = [producer.send(TOPIC, f"v{number}".encode()) for number in range(50)]
    producer.flush(30)
    assert all(one.get(10) for one in sent)
    producer.close()
    total += 50
    consumer = KafkaConsumer(TOPIC, **options, auto_offset_reset="earliest", consumer_timeout_ms=1500)
    assert sum(1 for _ in consumer) == total, mechanism
    consumer.close()

for mechanism, user, password in [
    ("PLAIN", "alice", "wrong"),
    ("SCRAM-SHA-256", "bob", "wrong"),
    ("SCRAM-SHA-512", "nobody", "wonder"),
]:
    text = refused(**config(mechanism, user, password))
    assert "SaslAuthenticationFailed" in text, (mechanism, user, text)
refused(bootstrap_servers=SERVERS)

producer = KafkaProducer(**alice, client_id="slow", acks="all", linger_ms=0)
for _ in range(24):
    producer.send(TOPIC, b"x" * 1000).get(10)
assert throttle(producer, "throttle-time-max") > 0
producer.close()
print("kafka-python log-ins: ok")
