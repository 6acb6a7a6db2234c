// The cache through ioredis, plain and cluster.
//
//     node ioredis.js HOST:PORT [cluster [NODES]]
'use strict';
const assert = require('node:assert/strict');
const Redis = require('ioredis');

const [host, port] = [process.argv[2].split(':')[0], Number(process.argv[2].split(':').pop())];
const FAR = 33177117420;

async function strings(r) {
  assert.equal(await r.set('k', 'v'), 'OK');
  assert.equal(await r.get('k'), 'v');
  assert.equal(await r.get('missing'), null);
  assert.equal(await r.set('k', 'w', 'NX'), null);
  assert.equal(await r.set('k', 'w', 'XX'), 'OK');
  assert.equal(await r.set('k', 'x', 'GET'), 'w');
  assert.equal(await r.set('k', 'y', 'EXAT', FAR), 'OK');
  assert.equal(await r.set('k', 'z', 'KEEPTTL'), 'OK');
  assert.equal(await r.expiretime('k'), FAR);
  assert.equal(await r.setnx('k', '1'), 0);
  assert.equal(await r.setex('e', 100, 'v'), 'OK');
  assert.equal(await r.psetex('e', 100000, 'v'), 'OK');
  assert.equal(await r.getset('k', 'new'), 'z');
  assert.equal(await r.getdel('k'), 'new');
  assert.equal(await r.getex('e', 'PERSIST'), 'v');
  assert.equal(await r.ttl('e'), -1);
  assert.equal(await r.incr('n'), 1);
  assert.equal(await r.incrby('n', 10), 11);
  assert.equal(await r.decr('n'), 10);
  assert.equal(await r.decrby('n', 3), 7);
  assert.equal(await r.incrbyfloat('f', 1.5), '1.5');
  assert.equal(await r.append('s', 'hello world'), 11);
  assert.equal(await r.setrange('s', 6, 'redis'), 11);
  assert.equal(await r.getrange('s', 0, 4), 'hello');
  assert.equal(await r.strlen('s'), 11);
  assert.equal(await r.mset('{t}a', 'ohmytext', '{t}b', 'mynewtext'), 'OK');
  assert.deepEqual(await r.mget('{t}a', '{t}c'), ['ohmytext', null]);
  assert.equal(await r.msetnx('{t}a', '1', '{t}c', '2'), 0);
  assert.equal(await r.lcs('{t}a', '{t}b'), 'mytext');
  assert.equal(await r.lcs('{t}a', '{t}b', 'LEN'), 6);
  await assert.rejects(r.incr('s'), /not an integer/);
  await assert.rejects(r.set('k', 'v', 'NX', 'XX'), /syntax error/);
  const big = Buffer.alloc(1 << 20, 0xa5);
  assert.equal(await r.set('big', big), 'OK');
  assert.ok(big.equals(await r.getBuffer('big')));
}

async function keys(r) {
  assert.equal(await r.set('{t}1', 1), 'OK');
  assert.equal(await r.exists('{t}1', '{t}2'), 1);
  assert.equal(await r.type('{t}1'), 'string');
  assert.equal(await r.touch('{t}1'), 1);
  assert.equal(await r.rename('{t}1', '{t}2'), 'OK');
  assert.equal(await r.renamenx('{t}2', '{t}3'), 1);
  assert.equal(await r.copy('{t}3', '{t}4'), 1);
  assert.equal(await r.expire('{t}3', 100), 1);
  assert.equal(await r.expire('{t}3', 50, 'GT'), 0);
  assert.equal(await r.pexpire('{t}3', 50000, 'LT'), 1);
  assert.equal(await r.expireat('{t}3', FAR), 1);
  assert.equal(await r.pexpireat('{t}3', FAR * 1000 + 5), 1);
  assert.equal(await r.pexpiretime('{t}3'), FAR * 1000 + 5);
  assert.ok((await r.pttl('{t}3')) > 0);
  assert.equal(await r.persist('{t}3'), 1);
  assert.equal(await r.object('ENCODING', '{t}3'), 'int');
  assert.ok((await r.call('MEMORY', 'USAGE', '{t}3')) > 0);
  assert.equal(await r.del('{t}3', '{t}9'), 1);
  assert.equal(await r.unlink('{t}4'), 1);
}

async function single() {
  for (const db of [0, 9]) {
    const r = new Redis({ host, port, db, connectionName: 'io', retryStrategy: null });
    await r.flushall();
    await strings(r);
    await keys(r);
    assert.equal(await r.client('GETNAME'), 'io');
    assert.ok((await r.client('ID')) > 0);
    assert.match(await r.client('LIST'), /name=io/);
    assert.equal(await r.ping(), 'PONG');
    assert.equal(await r.echo('hi'), 'hi');
    assert.match(await r.info(), /redis_version:/);
    assert.equal((await r.time()).length, 2);
    assert.deepEqual(await r.config('GET', 'maxmemory'), ['maxmemory', '0']);
    assert.equal(await r.config('RESETSTAT'), 'OK');
    assert.deepEqual(await r.command('GETKEYS', 'MSET', 'a', 1, 'b', 2), ['a', 'b']);
    assert.ok((await r.command('COUNT')) > 60);
    await r.mset(Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`s${i}`, i])));
    const seen = new Set();
    for await (const page of r.scanStream({ match: 's?*', count: 7 })) page.forEach((key) => seen.add(key));
    assert.equal([...seen].filter((key) => /^s\d+$/.test(key)).length, 100);
    const pipeline = r.pipeline();
    for (let i = 0; i < 300; i++) pipeline.set(`p${i}`, i).get(`p${i}`);
    const results = await pipeline.exec();
    results.forEach(([error, value], i) => {
      assert.equal(error, null);
      assert.equal(value, i % 2 ? String((i - 1) / 2) : 'OK');
    });
    assert.ok((await r.dbsize()) > 300);
    assert.ok(await r.randomkey());
    assert.equal(await r.flushdb(), 'OK');
    assert.deepEqual(await r.keys('*'), []);
    await assert.rejects(r.call('NOSUCH'), /unknown command/);
    assert.equal(await r.quit(), 'OK');
  }
  const auto = new Redis({ host, port, enableAutoPipelining: true });
  await Promise.all(Array.from({ length: 200 }, (_, i) => auto.set(`auto${i}`, i)));
  const values = await Promise.all(Array.from({ length: 200 }, (_, i) => auto.get(`auto${i}`)));
  assert.deepEqual(values, Array.from({ length: 200 }, (_, i) => String(i)));
  await auto.flushall();
  auto.disconnect();
}

async function cluster(expected) {
  const clusterRetryStrategy = (attempt) => (attempt > 5 ? null : 100);
  const r = new Redis.Cluster([{ host, port }], { slotsRefreshTimeout: 5000, clusterRetryStrategy });
  r.on('error', () => {});
  await r.set('warm', 'up');
  assert.equal(r.nodes('master').length, expected);
  await Promise.all(r.nodes('master').map((node) => node.flushall()));
  await strings(r);
  await keys(r);
  await Promise.all(Array.from({ length: 1000 }, (_, i) => r.set(`key:${i}`, i)));
  const values = await Promise.all(Array.from({ length: 1000 }, (_, i) => r.get(`key:${i}`)));
  assert.deepEqual(values, Array.from({ length: 1000 }, (_, i) => String(i)));
  const sizes = await Promise.all(r.nodes('master').map((node) => node.dbsize()));
  assert.ok(sizes.every((size) => size > 0), `keys per node: ${sizes}`);
  assert.equal(await r.cluster('KEYSLOT', 'foo'), 12182);
  assert.equal((await r.cluster('SLOTS')).length >= expected, true);
  await Promise.all(r.nodes('master').map((node) => node.flushall()));
  await r.quit();
}

(async () => {
  if (process.argv[3] === 'cluster') await cluster(Number(process.argv[4] || 1));
  else await single();
  console.log(`ioredis ${require('ioredis/package.json').version}${process.argv[3] ? ' cluster' : ''}: ok`);
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
