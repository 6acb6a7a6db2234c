// express-session with connect-redis: sessions of a web server, and what the store can do beside.
//
//     connect_redis.js HOST:PORT
"use strict";
const assert = require("node:assert");
const { promisify } = require("node:util");
const express = require("express");
const session = require("express-session");
const { createClient } = require("redis");
const { RedisStore } = require("connect-redis");

const [host, port] = process.argv[2].split(":");

async function store(client) {
  const store = new RedisStore({ client, prefix: "store:", ttl: 100, scanCount: 3 });
  const call = (name) => promisify(store[name].bind(store));
  const cookie = { maxAge: 20000, originalMaxAge: 20000 };
  assert.strictEqual((await call("get")("missing")) ?? null, null);
  for (let n = 0; n < 20; n += 1) await call("set")(`s${n}`, { n, cookie: {} });
  assert.strictEqual((await call("get")("s7")).n, 7);
  assert.strictEqual(await call("length")(), 20);
  assert.strictEqual((await call("ids")()).length, 20);
  assert.deepStrictEqual((await call("all")()).map(({ n }) => n).sort((a, b) => a - b), Array.from({ length: 20 }, (_, n) => n));
  const ttl = await client.ttl("store:s1");
  assert(ttl > 60 && ttl <= 100, ttl);
  await call("touch")("s1", { cookie: { ...cookie, expires: new Date(Date.now() + 20000) } });
  assert((await client.ttl("store:s1")) <= 20);
  await call("destroy")("s1");
  assert.strictEqual(await call("length")(), 19);
  await call("clear")();
  assert.strictEqual(await call("length")(), 0);
}

async function web(client) {
  const app = express();
  app.use(session({ store: new RedisStore({ client }), secret: "of a test", resave: false, saveUninitialized: false }));
  app.get("/count", (request, response) => {
    request.session.count = (request.session.count ?? 0) + 1;
    response.json(request.session.count);
  });
  app.get("/leave", (request, response) => request.session.destroy(() => response.json("gone")));
  const server = await new Promise((done) => { const made = app.listen(0, "127.0.0.1", () => done(made)); });
  const url = `http://127.0.0.1:${server.address().port}`;
  let cookie;
  const get = async (path) => {
    const response = await fetch(url + path, { headers: cookie ? { cookie } : {} });
    cookie ??= response.headers.get("set-cookie")?.split(";")[0];
    return response.json();
  };
  assert.deepStrictEqual([await get("/count"), await get("/count"), await get("/count")], [1, 2, 3]);
  const [key] = await client.keys("sess:*");
  assert.strictEqual(JSON.parse(await client.get(key)).count, 3);
  assert((await client.ttl(key)) > 86000);
  assert.strictEqual(await get("/leave"), "gone");
  assert.deepStrictEqual(await client.keys("sess:*"), []);
  assert.strictEqual(await get("/count"), 1);
  server.close();
}

(async () => {
  const client = createClient({ url: `redis://${host}:${port}` });
  await client.connect();
  await client.flushAll();
  await store(client);
  await web(client);
  console.log("connect-redis with express-session: ok");
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
