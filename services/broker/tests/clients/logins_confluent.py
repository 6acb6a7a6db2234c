"""confluent-kafka (librdkafka) against a broker with users and quotas: log-ins by every mechanism, wrong passwords,
an expired log-in that is renewed, and being slowed down.

The users are alice, whose password is wonder, and bob, whose password is pencil and known as a SCRAM-SHA-256 verifier. The
client id slow has a produce and a fetch quota of 2000 bytes a second.

Usage: logins_confluent.py HOST:PORT
"""

import sys
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

SERVERS = sys.argv[1]
RUN = str(time.time_ns())
TOPIC = f"logins-{RUN}"


def config(mechanism, user, password, **options):
    return {
        "bootstrap.servers": SERVERS,
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": mechanism,
        "sasl.username": user,
        "sasl.password": password,
        **options,
    }


def produce(count, **options):
    failed = []
    producer = Producer(options)
    for number in range(count):
        producer.produce(TOPIC, value=f"v{number}", on_delivery=lambda error, _: error and failed.append(error))
    assert producer.flush(30) == 0 and not failed, failed[:3]


def consume(count, **options):
    client = Consumer({"group.id": f"g-{time.time_ns()}", "auto.offset.reset": "earliest", **options})
    client.subscribe([TOPIC])
    found, deadline = 0, time.time() + 40
    while found < count and time.time() < deadline:
        message = client.poll(0.2)
        if message is not None:
            assert message.error() is None, message.error()
            found += 1
    client.close()
    assert found == count, f"{found} of {count}"


def refused(**options):
    """The errors that a client meets."""
    errors = []
    client = AdminClient({"error_cb": errors.append, **options})
    try:
        client.list_topics(timeout=3)
        raise AssertionError("not refused")
    except KafkaException:
        pass
    client.poll(0.5)
    return errors


alice = config("SCRAM-SHA-512", "alice", "wonder")
admin = AdminClient(alice)
admin.create_topics([NewTopic(TOPIC, 2, 1)])[TOPIC].result(10)
total = 0
for mechanism, user, password in [
    ("PLAIN", "alice", "wonder"),
    ("SCRAM-SHA-256", "alice", "wonder"),
    ("SCRAM-SHA-512", "alice", "wonder"),
    # The first has to be derived, the second is known.
    ("PLAIN", "bob", "pencil"),
    ("PLAIN", "bob", "pencil"),
    ("SCRAM-SHA-256", "bob", "pencil"),
]:
    options = config(mechanism, user, password)
    produce(100, **options)
    total += 100
    consume(total, **options)

for mechanism, user, password in [
    ("PLAIN", "alice", "wrong"),
    ("PLAIN", "bob", "wrong"),
    ("PLAIN", "nobody", "wonder"),
    ("SCRAM-SHA-256", "alice", "wrong"),
    ("SCRAM-SHA-512", "alice", "wrong"),
    ("SCRAM-SHA-512", "bob", "pencil"),
    ("SCRAM-SHA-256", "nobody", "wonder"),
]:
    errors = refused(**config(mechanism, user, password))
    codes = {error.code() for error in errors}
    assert KafkaError._AUTHENTICATION in codes, (mechanism, user, errors)
    text = " ".join(error.str() for error in errors)
    assert "nvalid credentials" in text or "Invalid username or password" in text, text
# Without a log-in, and by a mechanism that is not offered.
assert refused(**{"bootstrap.servers": SERVERS})

# Log-ins last two seconds here; the client renews its own.
errors = []
client = Consumer(
    {**alice, "group.id": f"renewed-{RUN}", "auto.offset.reset": "earliest", "error_cb": errors.append}
)
client.subscribe([TOPIC])
found, end = 0, time.time() + 6
while time.time() < end:
    message = client.poll(0.2)
    found += message is not None and message.error() is None
client.close()
assert found == total, f"{found} of {total}"
assert not errors, errors

# 20 kB at once are ten seconds' worth: 24 kB wait for two seconds.
throttled = []
slow = {"client.id": "slow", "throttle_cb": throttled.append}
producer = Producer({**alice, **slow, "linger.ms": 50})
for _ in range(24):
    producer.produce(TOPIC, value=b"x" * 1000, partition=0)
    producer.flush(10)
producer.poll(1)
assert any(event.throttle_time > 0 for event in throttled), throttled
print("confluent-kafka log-ins: ok")
