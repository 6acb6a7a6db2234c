// BullMQ: jobs with results, delays, retries, priorities, schedules, children and limits.
//
//     bullmq.js HOST:PORT
"use strict";
const assert = require("node:assert");
const { Queue, Worker, QueueEvents, FlowProducer, UnrecoverableError } = require("bullmq");

const [host, port] = process.argv[2].split(":");
// `maxRetriesPerRequest: null` is what BullMQ demands of a worker's connection.
const connection = { host, port: Number(port), maxRetriesPerRequest: null };
const WAIT_MS = 20000;
const open = [];
const opened = (thing) => (open.push(thing), thing);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function soon(call, what) {
  const until = Date.now() + WAIT_MS;
  while (!(await call())) {
    assert(Date.now() < until, what);
    await sleep(20);
  }
}

async function jobs() {
  const queue = opened(new Queue("jobs", { connection }));
  const events = opened(new QueueEvents("jobs", { connection }));
  await events.waitUntilReady();
  const seen = [];
  const worker = opened(new Worker("jobs", async (job) => {
    seen.push(job.name);
    if (job.name === "add") return job.data.left + job.data.right;
    if (job.name === "third") {
      if (job.attemptsMade < 2) throw new Error("not yet");
      return job.attemptsMade;
    }
    if (job.name === "progress") {
      await job.updateProgress(50);
      await job.log("half of it");
      return "done";
    }
    if (job.name === "fails") throw new UnrecoverableError("as asked");
    return job.name;
  }, { connection, concurrency: 4 }));
  const result = (job) => job.waitUntilFinished(events, WAIT_MS);

  assert.strictEqual(await result(await queue.add("add", { left: 2, right: 3 })), 5);
  const many = await queue.addBulk(Array.from({ length: 50 }, (_, n) => ({ name: "add", data: { left: n, right: n } })));
  assert.deepStrictEqual(await Promise.all(many.map(result)), Array.from({ length: 50 }, (_, n) => 2 * n));

  const started = Date.now();
  assert.strictEqual(await result(await queue.add("later", {}, { delay: 500 })), "later");
  assert(Date.now() - started >= 490, "a delay is waited for");
  const third = await queue.add("third", {}, { attempts: 3, backoff: { type: "exponential", delay: 50 } });
  assert.strictEqual(await result(third), 2);
  await assert.rejects(result(await queue.add("fails", {}, { attempts: 5 })), /as asked/);

  const progress = [];
  events.on("progress", ({ data }) => progress.push(data));
  const logged = await queue.add("progress", {});
  assert.strictEqual(await result(logged), "done");
  assert.deepStrictEqual((await queue.getJobLogs(logged.id)).logs, ["half of it"]);
  await soon(() => progress.includes(50), "progress is told");

  assert.strictEqual((await queue.add("once", {}, { jobId: "unique" })).id, "unique");
  await result(await queue.add("once", {}, { jobId: "unique" }));
  assert.strictEqual(seen.filter((name) => name === "once").length, 1);
  await soon(async () => (await queue.getJobCounts("active")).active === 0, "nothing runs");
  const counts = await queue.getJobCounts();
  assert.strictEqual(counts.failed, 1);
  assert.strictEqual(counts.completed, seen.length - 2 - 1, JSON.stringify(counts));
  const [failed] = await queue.getFailed();
  assert.strictEqual(failed.failedReason, "as asked");
  await failed.retry();
  await soon(async () => (await failed.getState()) === "failed" && seen.filter((name) => name === "fails").length === 2, "a retry");
  assert((await queue.clean(0, 100, "completed")).length > 50);
  await worker.close();
}

async function order() {
  const queue = opened(new Queue("order", { connection }));
  for (const [name, priority] of [["low", 10], ["high", 1], ["middle", 5]]) await queue.add(name, {}, { priority });
  await queue.add("first", {}, { lifo: true });
  assert.strictEqual(await queue.getWaitingCount() + (await queue.getPrioritizedCount()), 4);
  const seen = [];
  await queue.pause();
  assert(await queue.isPaused());
  const worker = opened(new Worker("order", async (job) => { seen.push(job.name); }, { connection }));
  await sleep(200);
  assert.deepStrictEqual(seen, []);
  await queue.resume();
  await soon(() => seen.length === 4, "a queue goes on");
  assert.deepStrictEqual(seen, ["first", "high", "middle", "low"]);
  await worker.close();
}

async function schedule() {
  const queue = opened(new Queue("schedule", { connection }));
  let ticks = 0;
  const worker = opened(new Worker("schedule", async () => { ticks += 1; }, { connection }));
  await queue.upsertJobScheduler("tick", { every: 200 }, { name: "tick", data: {} });
  await soon(() => ticks >= 3, "a schedule repeats");
  assert.strictEqual((await queue.getJobSchedulers()).length, 1);
  assert(await queue.removeJobScheduler("tick"));
  await worker.close();
}

async function family() {
  const flows = opened(new FlowProducer({ connection }));
  const children = opened(new Worker("children", async (job) => job.data.n * 10, { connection }));
  const parents = opened(new Worker("parents", async (job) => {
    const values = Object.values(await job.getChildrenValues());
    return values.reduce((sum, value) => sum + value, 0);
  }, { connection }));
  const events = opened(new QueueEvents("parents", { connection }));
  await events.waitUntilReady();
  const tree = await flows.add({
    name: "sum", queueName: "parents",
    children: [1, 2, 3].map((n) => ({ name: "child", data: { n }, queueName: "children" })),
  });
  assert.strictEqual(await tree.job.waitUntilFinished(events, WAIT_MS), 60);
  await children.close();
  await parents.close();
}

async function limited() {
  const queue = opened(new Queue("limited", { connection }));
  let done = 0;
  await queue.addBulk(Array.from({ length: 4 }, () => ({ name: "x", data: {} })));
  const started = Date.now();
  const worker = opened(new Worker("limited", async () => { done += 1; }, { connection, limiter: { max: 2, duration: 500 } }));
  await soon(() => done === 4, "a limited queue goes on");
  assert(Date.now() - started >= 450, "a limit holds");
  await worker.close();
  await queue.obliterate({ force: true });
  assert.deepStrictEqual(await queue.getJobs(), []);
}

(async () => {
  for (const part of [jobs, order, schedule, family, limited]) await part();
  await Promise.all(open.map((thing) => thing.close()));
  console.log(`bullmq ${require("bullmq/package.json").version}: ok`);
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
