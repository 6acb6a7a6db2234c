// kafkajs: administration, keyed records, a group of two, seeking, and committed offsets.
//
// Usage: kafka.js HOST:PORT
'use strict';
const assert = require('node:assert');
const { Kafka, CompressionTypes, logLevel } = require('kafkajs');

const run = String(process.hrtime.bigint());
const kafka = new Kafka({ brokers: [process.argv[2]], logLevel: logLevel.ERROR });
const RECORDS = 500;

async function until(condition, what) {
  const deadline = Date.now() + 30000;
  while (!(await condition())) {
    assert(Date.now() < deadline, what);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function main() {
  const admin = kafka.admin();
  await admin.connect();
  const topic = `js-${run}`;
  assert.strictEqual(await admin.createTopics({ topics: [{ topic, numPartitions: 4 }] }), true);
  assert.strictEqual(await admin.createTopics({ topics: [{ topic, numPartitions: 4 }] }), false);
  const producer = kafka.producer({ idempotent: true });
  await producer.connect();
  for (const compression of [CompressionTypes.None, CompressionTypes.GZIP]) {
    const messages = [];
    for (let n = 0; n < RECORDS; n += 1) messages.push({ key: `k${n % 11}`, value: `v${n}`, headers: { h: 'x' } });
    await producer.send({ topic, compression, messages });
  }
  await producer.disconnect();

  const seen = new Set();
  const groupId = `g-${run}`;
  const members = [];
  for (let n = 0; n < 2; n += 1) {
    const consumer = kafka.consumer({ groupId, sessionTimeout: 10000, rebalanceTimeout: 10000 });
    await consumer.connect();
    await consumer.subscribe({ topic, fromBeginning: true });
    await consumer.run({
      eachMessage: async ({ partition, message }) => {
        assert.strictEqual(message.headers.h.toString(), 'x');
        seen.add(`${partition}-${message.offset}`);
      },
    });
    members.push(consumer);
  }
  await until(() => seen.size === 2 * RECORDS, `all records, ${seen.size} seen`);
  const group = (await admin.describeGroups([groupId])).groups[0];
  assert.strictEqual(group.protocolType, 'consumer');
  // A rebalance makes a member handle its last record again, and commit it then.
  await until(async () => {
    const [committed] = await admin.fetchOffsets({ groupId, topics: [topic] });
    const total = committed.partitions.reduce((sum, one) => sum + Math.max(0, Number(one.offset)), 0);
    return total === 2 * RECORDS;
  }, 'all records are committed');
  for (const consumer of members) await consumer.disconnect();

  const offsets = await admin.fetchTopicOffsets(topic);
  assert.strictEqual(offsets.reduce((sum, one) => sum + Number(one.high), 0), 2 * RECORDS);
  await admin.deleteGroups([groupId]);
  await admin.deleteTopics({ topics: [topic] });
  assert(!(await admin.listTopics()).includes(topic));
  await admin.disconnect();
}

main().then(
  () => {
    console.log('kafkajs: ok');
    process.exit(0);
  },
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
