// rate-limiter-flexible: its limiters, over ioredis and node-redis.
//
//     rate_limiter_flexible.js HOST:PORT
"use strict";
const assert = require("node:assert");
const Redis = require("ioredis");
const { createClient } = require("redis");
const { RateLimiterRedis, RateLimiterRedisNonAtomic, RateLimiterUnion, RateLimiterQueue, BurstyRateLimiter } = require("rate-limiter-flexible");

const [host, port] = process.argv[2].split(":");
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function refused(promise) {
  try {
    await promise;
  } catch (refusal) {
    assert(!(refusal instanceof Error), refusal);
    return refusal;
  }
  throw new Error("what is over the limit is let through");
}

async function limits(make, atomic = true) {
  const plain = make({ keyPrefix: "plain", points: 3, duration: 1 });
  for (let left = 2; left >= 0; left -= 1) {
    const state = await plain.consume("user");
    assert.strictEqual(state.remainingPoints, left);
    assert(state.msBeforeNext > 0 && state.msBeforeNext <= 1000, state);
  }
  const over = await refused(plain.consume("user"));
  assert.deepStrictEqual([over.remainingPoints, over.consumedPoints, over.isFirstInDuration], [0, 4, false]);
  assert.strictEqual((await plain.consume("other", 2)).remainingPoints, 1);
  await sleep(1050);
  assert.strictEqual((await plain.consume("user")).consumedPoints, 1);

  const many = make({ keyPrefix: "many", points: 10, duration: 60 });
  if (atomic) {
    const got = await Promise.allSettled(Array.from({ length: 30 }, () => many.consume("crowd")));
    assert.strictEqual(got.filter(({ status }) => status === "fulfilled").length, 10);
    assert.strictEqual((await many.get("crowd")).consumedPoints, 30);
  }
  assert.strictEqual((await many.penalty("p", 3)).consumedPoints, 3);
  assert.strictEqual((await many.reward("p", 1)).consumedPoints, 2);
  assert.strictEqual((await many.set("p", 7, 30)).consumedPoints, 7);
  assert.strictEqual((await many.get("p")).remainingPoints, 3);
  assert.strictEqual(await many.delete("p"), true);
  assert.strictEqual(await many.get("p"), null);
  await many.block("bad", 30);
  assert((await refused(many.consume("bad"))).msBeforeNext > 29000);

  const blocks = make({ keyPrefix: "blocks", points: 1, duration: 1, blockDuration: 20 });
  await blocks.consume("user");
  assert((await refused(blocks.consume("user"))).msBeforeNext > 19000);

  const short = make({ keyPrefix: "short", points: 1, duration: 60 });
  const union = new RateLimiterUnion(many, short);
  await union.consume("both");
  await refused(union.consume("both"));

  const bursty = new BurstyRateLimiter(
    make({ keyPrefix: "slow", points: 1, duration: 10 }), make({ keyPrefix: "burst", points: 2, duration: 10 }));
  for (let n = 0; n < 3; n += 1) await bursty.consume("user");
  await refused(bursty.consume("user"));

  const queue = new RateLimiterQueue(make({ keyPrefix: "queue", points: 2, duration: 1 }));
  const started = Date.now();
  for (let n = 0; n < 3; n += 1) await queue.removeTokens(1, "q");
  assert(Date.now() - started >= 500, "a queue waits");
}

(async () => {
  const first = new Redis({ host, port: Number(port), enableOfflineQueue: false, lazyConnect: true });
  await first.connect();
  await first.flushall();
  await limits((options) => new RateLimiterRedis({ storeClient: first, ...options }));
  await first.flushall();
  await limits((options) => new RateLimiterRedisNonAtomic({ storeClient: first, ...options }), false);
  await first.flushall();
  const second = createClient({ url: `redis://${host}:${port}` });
  await second.connect();
  await limits((options) => new RateLimiterRedis({ storeClient: second, useRedisPackage: true, ...options }));
  console.log(`rate-limiter-flexible ${require("rate-limiter-flexible/package.json").version}: ok`);
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
