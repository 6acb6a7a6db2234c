// kafkajs: records with the codecs it has, a group of three with a member killed, seeking by time, administration, and
// an idempotent producer whose connections are reset.
//
// Usage: kafka.js HOST:PORT [resets | member TOPIC GROUP]
'use strict';
const assert = require('node:assert');
const { spawn } = require('node:child_process');
const readline = require('node:readline');
const { setTimeout: sleep } = require('node:timers/promises');
const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = require('kafkajs');
const SnappyCodec = require('kafkajs-snappy');

CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec;
const [address, part, ...rest] = process.argv.slice(2);
const run = String(process.hrtime.bigint());
// Reset connections are errors to its log.
const kafka = new Kafka({ brokers: [address], logLevel: logLevel.NOTHING, retry: { initialRetryTime: 50 } });
const admin = kafka.admin();
const RECORDS = 500;

async function until(condition, what) {
  const deadline = Date.now() + 30000;
  while (!(await condition())) {
    assert(Date.now() < deadline, what);
    await sleep(20);
  }
}

async function create(name, numPartitions = 4) {
  const topic = `js-${name}-${run}`;
  assert.strictEqual(await admin.createTopics({ topics: [{ topic, numPartitions }] }), true);
  return topic;
}

async function produce(topic, { compression = CompressionTypes.None, batch = RECORDS, ...options } = {}) {
  const producer = kafka.producer(options);
  await producer.connect();
  for (let first = 0; first < RECORDS; first += batch) {
    const messages = [];
    for (let n = first; n < first + batch; n += 1) {
      messages.push({ key: `k${n % 11}`, value: `v${n}${'x'.repeat(100)}`, headers: { h: 'x' } });
    }
    await producer.send({ topic, compression, messages });
  }
  await producer.disconnect();
  return RECORDS;
}

async function consumer(topic, groupId, eachMessage, options = {}) {
  const client = kafka.consumer({ groupId, sessionTimeout: 6000, maxWaitTimeInMs: 200, ...options });
  await client.connect();
  await client.subscribe({ topic, fromBeginning: true });
  await client.run({ eachMessage, autoCommitThreshold: 10 });
  return client;
}

// Every record of a topic, each as often as it is there.
async function read(topic, count) {
  const found = [];
  const client = await consumer(topic, topic, async ({ message }) => {
    assert.strictEqual(message.headers.h.toString(), 'x');
    found.push(message.value.toString());
  });
  await until(() => found.length >= count, `all records, ${found.length} seen`);
  await sleep(500);
  await client.disconnect();
  const expected = Array.from({ length: count }, (_, n) => `v${n}${'x'.repeat(100)}`);
  assert.deepStrictEqual(found.sort(), expected.sort(), 'each record once');
  const committed = await admin.fetchOffsets({ groupId: topic, topics: [topic] });
  assert.strictEqual(committed[0].partitions.reduce((sum, one) => sum + Math.max(0, Number(one.offset)), 0), count);
}

async function codecs() {
  for (const compression of [CompressionTypes.None, CompressionTypes.GZIP, CompressionTypes.Snappy]) {
    const topic = await create(`codec-${compression}`);
    await produce(topic, { compression });
    await read(topic, RECORDS);
  }
}

async function resets() {
  const topic = await create('resets');
  await produce(topic, { idempotent: true, batch: 20 });
  await read(topic, RECORDS);
}

async function member(topic, group) {
  const saw = async ({ partition, message }) => console.log(`${partition} ${message.offset}`);
  await consumer(topic, group, saw, { sessionTimeout: 2000, heartbeatInterval: 400, rebalanceTimeout: 5000 });
}

async function groups() {
  const topic = await create('group', 6);
  const members = [1, 2, 3].map(() => {
    const process_ = spawn(process.execPath, [__filename, address, 'member', topic, topic]);
    const seen = new Set();
    readline.createInterface({ input: process_.stdout }).on('line', (line) => seen.add(line));
    return { seen, kill: () => process_.kill('SIGKILL') };
  });
  const all = () => new Set(members.flatMap(({ seen }) => [...seen])).size;
  try {
    let sent = 0;
    await until(async () => {
      sent += await produce(topic);
      await sleep(300);
      return members.every(({ seen }) => seen.size > 0);
    }, 'each member has partitions');
    await until(() => all() === sent, 'all records by three members');
    members[2].kill();
    sent += await produce(topic);
    await until(() => all() === sent, 'all records by the two that are left');
  } finally {
    members.forEach(({ kill }) => kill());
  }
  assert((await admin.listGroups()).groups.some(({ groupId }) => groupId === topic));
  // Its members were killed: their sessions have to end.
  await until(async () => (await admin.describeGroups([topic])).groups[0].state === 'Empty', 'the group is empty');
  await admin.deleteGroups([topic]);
}

async function times() {
  const topic = await create('times', 1);
  await produce(topic);
  await sleep(50);
  const middle = Date.now();
  await sleep(50);
  await produce(topic);
  const [{ offset }] = await admin.fetchTopicOffsetsByTimestamp(topic, middle);
  assert.strictEqual(Number(offset), RECORDS);
  const found = [];
  const client = await consumer(topic, topic, async ({ message }) => found.push(Number(message.offset)));
  client.seek({ topic, partition: 0, offset });
  await until(() => found.at(-1) === 2 * RECORDS - 1, 'the end');
  assert.deepStrictEqual(found.slice(found.lastIndexOf(RECORDS)), Array.from({ length: RECORDS }, (_, n) => RECORDS + n));
  await client.disconnect();
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: String(RECORDS) }] });
  const [ends] = await admin.fetchTopicOffsets(topic);
  assert.deepStrictEqual([Number(ends.low), Number(ends.high)], [RECORDS, 2 * RECORDS]);
}

async function administration() {
  const topic = await create('admin', 1);
  assert.strictEqual(await admin.createTopics({ topics: [{ topic }] }), false);
  await admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] });
  const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
  assert.strictEqual(topics[0].partitions.length, 3);
  const resource = { type: ConfigResourceTypes.TOPIC, name: topic };
  const configEntries = [{ name: 'retention.ms', value: '90000' }];
  await admin.alterConfigs({ resources: [{ ...resource, configEntries }] });
  const { resources } = await admin.describeConfigs({ resources: [resource] });
  const retention = resources[0].configEntries.find(({ configName }) => configName === 'retention.ms');
  assert.strictEqual(retention.configValue, '90000');
  await admin.deleteTopics({ topics: [topic] });
  assert(!(await admin.listTopics()).includes(topic));
}

async function main() {
  await admin.connect();
  const parts = part === 'resets' ? [resets] : [codecs, groups, times, administration];
  for (const one of parts) await one();
  await admin.disconnect();
}

const done = () => {
  console.log('kafkajs: ok');
  process.exit(0);
};
const failed = (error) => {
  console.error(error);
  process.exit(1);
};
if (part === 'member') member(...rest).catch(failed);
else main().then(done, failed);
