// socket.io: two servers that know each other by the Redis adapter, and clients of both.
//
//     socket_io.js HOST:PORT
"use strict";
const assert = require("node:assert");
const http = require("node:http");
const Redis = require("ioredis");
const { createClient } = require("redis");
const { Server } = require("socket.io");
const { io: connect } = require("socket.io-client");
const { createAdapter, createShardedAdapter } = require("@socket.io/redis-adapter");

const [host, port] = process.argv[2].split(":");
const once = (socket, event) => new Promise((done, failed) => {
  const timer = setTimeout(() => failed(new Error(`no ${event} came`)), 10000);
  socket.once(event, (...values) => (clearTimeout(timer), done(values)));
});
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function soon(call, what) {
  const until = Date.now() + 10000;
  while (!(await call())) {
    assert(Date.now() < until, what);
    await sleep(20);
  }
}

async function ioredis() {
  const pub = new Redis({ host, port: Number(port) });
  const sub = pub.duplicate();
  return { adapter: createAdapter(pub, sub), close: () => (pub.disconnect(), sub.disconnect()) };
}

async function sharded() {
  const pub = createClient({ url: `redis://${host}:${port}` });
  const sub = pub.duplicate();
  await Promise.all([pub.connect(), sub.connect()]);
  return { adapter: createShardedAdapter(pub, sub), close: () => (pub.destroy(), sub.destroy()) };
}

async function start(make) {
  const { adapter, close } = await make();
  const web = http.createServer();
  const io = new Server(web, { adapter });
  await new Promise((done) => web.listen(0, "127.0.0.1", done));
  io.on("connection", (socket) => {
    socket.on("join", async (room, done) => (await socket.join(room), done()));
    socket.on("say", (room, text) => io.to(room).emit("said", text));
    socket.on("question", (done) => done(`answer of ${socket.id}`));
  });
  return { io, url: `http://127.0.0.1:${web.address().port}`, close: () => (io.close(), close()) };
}

async function client(url) {
  const socket = connect(url, { transports: ["websocket"], forceNew: true });
  await once(socket, "connect");
  return socket;
}

async function talks(make) {
  const [here, there] = [await start(make), await start(make)];
  const [a, b, c] = [await client(here.url), await client(there.url), await client(there.url)];
  // Subscriptions are on their way.
  await soon(async () => (await here.io.fetchSockets()).length === 3, "every socket is known everywhere");

  let got = Promise.all([a, b, c].map((socket) => once(socket, "news")));
  here.io.emit("news", { text: "to all", bytes: Buffer.from([1, 2, 3]) });
  for (const [news] of await got) {
    assert.strictEqual(news.text, "to all");
    assert.deepStrictEqual([...news.bytes], [1, 2, 3]);
  }

  await new Promise((done) => a.emit("join", "room", done));
  await new Promise((done) => b.emit("join", "room", done));
  let strangers = 0;
  c.on("said", () => { strangers += 1; });
  await soon(async () => (await there.io.in("room").fetchSockets()).length === 2, "rooms are known everywhere");
  got = Promise.all([a, b].map((socket) => once(socket, "said")));
  c.emit("say", "room", "to the room");
  assert.deepStrictEqual(await got, [["to the room"], ["to the room"]]);
  assert.strictEqual(strangers, 0);

  b.on("ask", (done) => done("from b"));
  c.on("ask", (done) => done("from c"));
  a.on("ask", (done) => done("from a"));
  const answers = await here.io.timeout(5000).emitWithAck("ask");
  assert.deepStrictEqual(answers.sort(), ["from a", "from b", "from c"]);

  there.io.on("ping servers", (value, done) => done(value + 1));
  assert.deepStrictEqual(await here.io.serverSideEmitWithAck("ping servers", 1), [2]);

  const gone = once(c, "disconnect");
  here.io.in(c.id).disconnectSockets(true);
  await gone;
  await soon(async () => (await here.io.fetchSockets()).length === 2, "who left is known everywhere");
  a.close();
  b.close();
  here.close();
  there.close();
}

(async () => {
  await talks(ioredis);
  await talks(sharded);
  console.log(`socket.io ${require("socket.io/package.json").version}: ok`);
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
