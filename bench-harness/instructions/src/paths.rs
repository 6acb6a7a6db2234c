//! What is counted: the work of each path, so many times.
//!
//! Each is set up as its service uses it, with fixed seeds and clocks. Those of the engine run on a real ring; of a system call only
//! this side is counted. Next: the crates that the paths are in.

use std::hint::black_box;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use cache::clients::ConnInfo;
use cache::{Session, Shard, ShardConfig};
use engine::buf::DirectBuf;
use engine::driver::{OpenOptions, Setup};
use engine::event::{Level, Log};
use engine::exec::sync::{once, yield_now};
use engine::fs::File;
use engine::rng::Seed;
use engine::shard::launch::{Launch, launch};
use engine::shard::{ShardConfig as EngineConfig, ShardCx};
use view::{Flow, Input, Instant, Output, Session as _};
use wire::kafka::client::{Topic, produce as client};
use wire::kafka::records::{BatchMeta, Record, write_batch};
use wire::kafka::{Reader, TopicRef, batch, produce};
use wire::resp::{Args, Limits, ParseState, Parsed, parse_command};

/// A path.
pub(crate) struct Path {
    /// `crate.what`.
    pub(crate) name: &'static str,
    /// What an operation is.
    pub(crate) about: &'static str,
    /// Does it so many times.
    pub(crate) work: fn(u64) -> Result<()>,
}

/// All paths.
pub(crate) const ALL: &[Path] = &[
    Path {
        name: "resp.parse.get",
        about: "a GET of a 16-byte key is parsed",
        work: |times| parse(GET, times),
    },
    Path {
        name: "resp.parse.set",
        about: "a SET of 64 bytes is parsed",
        work: |times| parse(&set(), times),
    },
    Path {
        name: "kafka.produce",
        about: "a produce request (version 9) with one batch is read, without its checksum",
        work: read_produce,
    },
    Path {
        name: "kafka.batch",
        about: "a batch of ten records of 100 bytes is checked, with its checksum",
        work: check_batch,
    },
    Path {
        name: "cache.get",
        about: "a GET that finds 64 bytes, from the bytes received to the reply",
        work: |times| session(&[GET], times),
    },
    Path {
        name: "cache.get.pipeline",
        about: "sixteen of them that were received at once",
        work: |times| session(&[GET; 16], times),
    },
    Path {
        name: "cache.set",
        about: "a SET that overwrites 64 bytes",
        work: |times| session(&[&set()], times),
    },
    Path {
        name: "cache.incr",
        about: "an INCR of a number",
        work: |times| session(&[b"*2\r\n$4\r\nINCR\r\n$7\r\ncounter\r\n"], times),
    },
    Path {
        name: "engine.turn",
        about: "a task lets others run: one turn of the shard",
        work: |times| shard(move |_| turns(times)),
    },
    Path {
        name: "engine.spawn",
        about: "a task is started and waited for",
        work: |times| shard(move |cx| spawns(cx, times)),
    },
    Path {
        name: "engine.write",
        about: "4 KiB are written to a file by the ring, and waited for",
        work: |times| shard(move |cx| writes(cx, times)),
    },
];

const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000001\r\n";
/// A moment; the clock stands still.
const NOW: Instant = Instant { mono_ns: 1_000_000_000, unix_us: 1_700_000_000_000_000 };
/// The longest that a shard may take.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Of a produce request whose fields are flexible.
const PRODUCE_VERSION: i16 = 9;

/// The path of that name.
pub(crate) fn find(name: &str) -> Result<&'static Path> {
    ALL.iter().find(|path| path.name == name).with_context(|| format!("there is no path {name}"))
}

fn set() -> Vec<u8> {
    let mut line = b"*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000001\r\n$64\r\n".to_vec();
    line.extend([b'x'; 64]);
    line.extend(b"\r\n");
    line
}

fn parse(line: &[u8], times: u64) -> Result<()> {
    let (mut args, mut state) = (Args::new(), ParseState::new());
    for _ in 0..times {
        let parsed = parse_command(black_box(line), &mut args, &Limits::DEFAULT, &mut state);
        ensure!(matches!(parsed, Parsed::Command { .. }), "it is parsed as {parsed:?}");
        black_box(args.len());
    }
    Ok(())
}

fn batch_of_ten() -> Vec<u8> {
    let meta = BatchMeta { last_offset_delta: 9, ..BatchMeta::default() };
    let value = [b'x'; 100];
    let mut bytes = Vec::new();
    write_batch(&mut bytes, &meta, (0..10).map(|n| Record::new(n, 0, None, Some(&value))));
    bytes
}

fn check_batch(times: u64) -> Result<()> {
    let bytes = batch_of_ten();
    for _ in 0..times {
        let (batch, _) = batch::Batch::split(black_box(&bytes))
            .map_err(|problem| anyhow::anyhow!("split: {problem:?}"))?;
        batch.check().map_err(|problem| anyhow::anyhow!("check: {problem:?}"))?;
    }
    Ok(())
}

fn read_produce(times: u64) -> Result<()> {
    let records = batch_of_ten();
    let partitions = [produce::Partition { index: 0, records: Some(&records) }];
    let topics = [Topic { topic: TopicRef::Name("topic"), partitions: &partitions[..] }];
    let request =
        client::Request { transactional_id: None, acks: -1, timeout_ms: 1000, topics: &topics };
    let mut bytes = Vec::new();
    request.write(&mut bytes, PRODUCE_VERSION);
    for _ in 0..times {
        let request = produce::Request::read(Reader::new(black_box(&bytes)), PRODUCE_VERSION)?;
        for (topic, partitions) in request.topics() {
            black_box(topic);
            for partition in partitions {
                black_box(partition);
            }
        }
    }
    Ok(())
}

/// Gives a session the same bytes again and again. What they ask for is there.
fn session(lines: &[&[u8]], times: u64) -> Result<()> {
    let mut shard = Shard::new(ShardConfig { seed: 1, ..ShardConfig::default() }, NOW);
    let peer = SocketAddr::from(([127, 0, 0, 1], 1)).to_string();
    let info = ConnInfo { id: 1, peer: &peer, local: "", conn: 0, fd: -1, shard_port: false };
    let mut session = Session::new(info, &mut shard, NOW);
    let mut out = Output::default();
    let mut give = |bytes: &[u8]| -> Result<()> {
        let mut input = Input::borrowed(black_box(bytes));
        let flow = session.on_bytes(&mut input, &mut out, &mut shard, NOW);
        if !matches!(flow, Flow::NeedInput) || input.consumed() != bytes.len() {
            bail!("the session stopped after {} of {} bytes", input.consumed(), bytes.len());
        }
        out.clear();
        Ok(())
    };
    give(&set())?;
    let bytes = lines.concat();
    for _ in 0..times {
        give(&bytes)?;
    }
    Ok(())
}

/// Runs a task on a shard of its own.
fn shard<F, Fut>(task: F) -> Result<()>
where
    F: FnOnce(ShardCx) -> Fut + Send + 'static,
    Fut: Future<Output = Result<()>> + 'static,
{
    let plan = Launch {
        shards: 1,
        cpus: Vec::new(),
        setup: Setup::default(),
        shard: EngineConfig::default(),
        seed: Seed(1),
        log: Log::new(Level::Error),
    };
    let (send, receive) = mpsc::channel();
    let task = Mutex::new(Some((task, send)));
    let mut running = launch(&plan, move |cx| {
        let taken = task.lock().ok().and_then(|mut task| task.take());
        if let Some((task, send)) = taken {
            let work = task(cx.clone());
            let shard = cx.clone();
            cx.spawn("work", async move {
                // The other end waits for it, unless time is up.
                let _ = send.send(work.await);
                // Not by the other thread: Valgrind lets none run while one waits for its ring.
                shard.stop();
            });
        }
        Ok(())
    })?;
    let done = receive.recv_timeout(TIMEOUT).context("the shard did not end in time");
    running.stop();
    ensure!(running.join(TIMEOUT), "the shard did not stop");
    done?
}

async fn turns(times: u64) -> Result<()> {
    for _ in 0..times {
        yield_now().await;
    }
    Ok(())
}

async fn spawns(cx: ShardCx, times: u64) -> Result<()> {
    for n in 0..times {
        let (send, receive) = once();
        cx.spawn("one", async move { send.send(n) });
        receive.recv().await.context("the task is gone")?;
    }
    Ok(())
}

async fn writes(cx: ShardCx, times: u64) -> Result<()> {
    let path = PathBuf::from(format!("/dev/shm/instructions-{}", std::process::id()));
    let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
    let file = File::open(&cx, &path, &options)?;
    // It stays until it is closed.
    std::fs::remove_file(&path)?;
    let mut buf = DirectBuf::zeroed(4096);
    for _ in 0..times {
        buf = file.write_at(buf, 4096, 0).await?;
    }
    Ok(())
}
