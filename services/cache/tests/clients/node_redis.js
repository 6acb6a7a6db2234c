// The cache through node-redis, plain over RESP2 and RESP3, and cluster.
//
//     node node_redis.js HOST:PORT [cluster [NODES]]
'use strict';
const assert = require('node:assert/strict');
const { createClient, createCluster } = require('redis');

const url = `redis://${process.argv[2]}`;
const FAR = 33177117420;

async function commands(r) {
  assert.equal(await r.set('k', 'v'), 'OK');
  assert.equal(await r.get('k'), 'v');
  assert.equal(await r.get('missing'), null);
  assert.equal(await r.set('k', 'w', { NX: true }), null);
  assert.equal(await r.set('k', 'w', { XX: true, GET: true }), 'v');
  assert.equal(await r.set('k', 'w', { EXAT: FAR }), 'OK');
  assert.equal(await r.expireTime('k'), FAR);
  assert.equal(await r.setNX('k', '1'), 0);
  assert.equal(await r.setEx('e', 100, 'v'), 'OK');
  assert.equal(await r.pSetEx('e', 100000, 'v'), 'OK');
  assert.equal(await r.getEx('e', { type: 'PERSIST' }), 'v');
  assert.equal(await r.ttl('e'), -1);
  assert.equal(await r.getSet('k', 'new'), 'w');
  assert.equal(await r.getDel('k'), 'new');
  assert.equal(await r.incr('n'), 1);
  assert.equal(await r.incrBy('n', 10), 11);
  assert.equal(await r.decr('n'), 10);
  assert.equal(await r.decrBy('n', 3), 7);
  assert.equal(await r.incrByFloat('f', 1.5), '1.5');
  assert.equal(await r.append('s', 'hello world'), 11);
  assert.equal(await r.setRange('s', 6, 'redis'), 11);
  assert.equal(await r.getRange('s', 0, 4), 'hello');
  assert.equal(await r.strLen('s'), 11);
  assert.equal(await r.mSet({ '{t}a': 'ohmytext', '{t}b': 'mynewtext' }), 'OK');
  assert.deepEqual(await r.mGet(['{t}a', '{t}c']), ['ohmytext', null]);
  assert.equal(await r.mSetNX({ '{t}a': '1', '{t}c': '2' }), 0);
  assert.equal(await r.lcs('{t}a', '{t}b'), 'mytext');
  assert.equal(await r.lcsLen('{t}a', '{t}b'), 6);
  assert.equal((await r.lcsIdx('{t}a', '{t}b')).len, 6);
  assert.equal(await r.exists(['{t}a', '{t}b']), 2);
  assert.equal(await r.touch(['{t}a', '{t}b']), 2);
  assert.equal(await r.type('{t}a'), 'string');
  assert.equal(await r.rename('{t}a', '{t}d'), 'OK');
  assert.equal(await r.renameNX('{t}d', '{t}b'), 0);
  assert.equal(await r.copy('{t}d', '{t}e'), 1);
  assert.equal(await r.expire('{t}d', 100), 1);
  assert.equal(await r.expire('{t}d', 50, 'GT'), 0);
  assert.equal(await r.pExpire('{t}d', 50000, 'LT'), 1);
  assert.equal(await r.expireAt('{t}d', FAR), 1);
  assert.equal(await r.pExpireAt('{t}d', FAR * 1000 + 5), 1);
  assert.equal(await r.pExpireTime('{t}d'), FAR * 1000 + 5);
  assert.ok((await r.pTTL('{t}d')) > 0);
  assert.equal(await r.persist('{t}d'), 1);
  assert.equal(await r.objectEncoding('{t}d'), 'embstr');
  assert.equal(typeof (await r.objectIdleTime('{t}d')), 'number');
  assert.equal(await r.objectRefCount('{t}d'), 1);
  assert.ok((await r.memoryUsage('{t}d')) > 0);
  assert.equal(await r.del(['{t}d', '{t}z']), 1);
  assert.equal(await r.unlink('{t}e'), 1);
  await assert.rejects(r.incr('s'), /not an integer/);
}

async function single(RESP) {
  const r = createClient({ url, RESP, name: 'node', socket: { reconnectStrategy: false } });
  r.on('error', () => {});
  await r.connect();
  await r.flushAll();
  await commands(r);
  assert.equal(await r.ping(), 'PONG');
  assert.equal(await r.echo('hi'), 'hi');
  assert.equal(await r.clientGetName(), 'node');
  assert.ok((await r.clientId()) > 0);
  assert.equal((await r.clientInfo()).name, 'node');
  assert.ok((await r.clientList()).some((client) => client.name === 'node'));
  assert.match(await r.info(), /redis_version:/);
  assert.equal((await r.configGet('maxmemory')).maxmemory, '0');
  assert.equal(await r.configSet('maxmemory', '0'), 'OK');
  assert.equal(await r.configResetStat(), 'OK');
  assert.ok((await r.commandCount()) > 60);
  assert.deepEqual(await r.commandGetKeys(['GET', 'k']), ['k']);
  assert.equal((await r.commandInfo(['get']))[0].name, 'get');
  assert.equal((await r.time()).length, 2);
  await r.mSet(Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`s:${i}`, String(i)])));
  const seen = new Set();
  for await (const page of r.scanIterator({ MATCH: 's:*', COUNT: 7 })) page.forEach((key) => seen.add(key));
  assert.equal(seen.size, 100);
  assert.equal((await r.keys('s:1*')).length, 11);
  // Calls of one turn leave as one pipeline.
  const values = await Promise.all(Array.from({ length: 500 }, (_, i) => r.set(`p${i}`, i).then(() => r.get(`p${i}`))));
  assert.deepEqual(values, Array.from({ length: 500 }, (_, i) => String(i)));
  assert.equal(await r.select(5), undefined);
  assert.equal(await r.dbSize(), 0);
  assert.equal(await r.randomKey(), null);
  assert.equal(await r.flushDb(), 'OK');
  await assert.rejects(r.sendCommand(['NOSUCH']), /unknown command/);
  await r.flushAll();
  await r.close();
}

async function cluster(expected) {
  const r = createCluster({ rootNodes: [{ url }] });
  r.on('error', () => {});
  await r.connect();
  assert.equal(r.masters.length, expected);
  const each = (use) => Promise.all(r.masters.map(async (node) => use(await r.nodeClient(node))));
  await each((client) => client.flushAll());
  await commands(r);
  await Promise.all(Array.from({ length: 1000 }, (_, i) => r.set(`key:${i}`, i)));
  const values = await Promise.all(Array.from({ length: 1000 }, (_, i) => r.get(`key:${i}`)));
  assert.deepEqual(values, Array.from({ length: 1000 }, (_, i) => String(i)));
  const sizes = await each((client) => client.dbSize());
  assert.ok(sizes.every((size) => size > 0), `keys per node: ${sizes}`);
  await each((client) => client.flushAll());
  await r.close();
}

(async () => {
  if (process.argv[3] === 'cluster') await cluster(Number(process.argv[4] || 1));
  else for (const RESP of [2, 3]) await single(RESP);
  console.log(`node-redis ${require('redis/package.json').version}${process.argv[3] ? ' cluster' : ''}: ok`);
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
