// Redlock: locks that exclude, are extended, expire and are given back.
//
//     redlock.js HOST:PORT
"use strict";
const assert = require("node:assert");
const Redis = require("ioredis");
const Redlock = require("redlock");

const [host, port] = process.argv[2].split(":");
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

(async () => {
  const client = new Redis({ host, port: Number(port) });
  await client.flushall();
  const once = new Redlock([client], { retryCount: 0 });
  const patient = new Redlock([client], { retryCount: -1, retryDelay: 10, retryJitter: 10 });

  let lock = await once.lock("resource", 1000);
  assert.strictEqual(await client.get("resource"), lock.value);
  await assert.rejects(once.lock("resource", 1000), { name: "LockError" });
  lock = await lock.extend(5000);
  assert((await client.pttl("resource")) > 4000);
  await lock.unlock();
  assert.strictEqual(await client.exists("resource"), 0);
  await assert.rejects(lock.unlock(), { name: "LockError" });

  // Several at once: all of them or none.
  const both = await once.lock(["a", "b"], 1000);
  await assert.rejects(once.lock(["b", "c"], 1000), { name: "LockError" });
  assert.strictEqual(await client.exists("c"), 0);
  await both.unlock();

  const short = await once.lock("short", 100);
  await sleep(150);
  await (await once.lock("short", 1000)).unlock();
  await assert.rejects(short.extend(1000), { name: "LockError" });

  let inside = 0;
  let most = 0;
  await Promise.all(Array.from({ length: 20 }, async () => {
    const held = await patient.lock("critical", 5000);
    inside += 1;
    most = Math.max(most, inside);
    await sleep(2);
    inside -= 1;
    await held.unlock();
  }));
  assert.strictEqual(most, 1);
  console.log(`redlock ${require("redlock/package.json").version}: ok`);
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
