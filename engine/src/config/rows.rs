//! The engine's own options, and their typed form.

use super::{CPU_MAX, CpuList, Kind, Row, Values};
use crate::error::{Error, Kind as ErrorKind};
use crate::event::Level;
use std::net::SocketAddr;
use std::path::PathBuf;

const MIB: u64 = 1 << 20;
const MS: u64 = 1_000_000;
const S: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * S;

/// A row with the fields that most of them share.
const fn row(name: &'static str, key: &'static str, kind: Kind, default: &'static str) -> Row {
    Row { name, key, kind, default: Some(default), optional: false, reload: false, doc: "" }
}

/// A row that is unset unless given.
const fn unset(name: &'static str, key: &'static str, kind: Kind) -> Row {
    Row { name, key, kind, default: None, optional: true, reload: false, doc: "" }
}

const fn whole(min: u64, max: u64) -> Kind {
    Kind::Integer { min, max }
}

const fn size(min_bytes: u64, max_bytes: u64) -> Kind {
    Kind::Size { min_bytes, max_bytes }
}

const fn time(min_ns: u64, max_ns: u64) -> Kind {
    Kind::Duration { min_ns, max_ns }
}

/// The options every service has, because the engine has them.
pub const ENGINE: &[Row] = &[
    Row { doc: "a TOML file with options", ..unset("config", "", Kind::Path) },
    Row { doc: "the directory for data", ..row("data", "data", Kind::Path, "./data") },
    Row {
        optional: true,
        doc: "where metrics and health are served over HTTP",
        ..row("admin", "admin", Kind::Address, "127.0.0.1:9900")
    },
    Row {
        reload: true,
        doc: "the least important log lines that are written",
        ..row("log-level", "log_level", Kind::Choice(Level::WORDS), "info")
    },
    Row {
        doc: "shards, each a thread with its own ring; off: one per core of --cpus, else one per \
              core this process may use",
        ..unset("shards", "engine.shards", whole(1, 1024))
    },
    Row {
        doc: "cores to pin the shards to, one each; off: those this process may use",
        ..unset("cpus", "engine.cpus", Kind::Cpus)
    },
    Row { doc: "pin each shard to its core", ..row("pin", "engine.pin", Kind::Bool, "true") },
    Row {
        doc: "busy-wait before a shard sleeps, while recent gaps were shorter than this: lower latency \
              for more CPU; 0 never",
        ..row("spin", "engine.spin", time(0, 10 * MS), "0us")
    },
    Row {
        doc: "how long a shard may run before others on its core: longer than the system's, so that the \
              kernel's workers for disks, whose slices are the system's, need not wait for its end (Linux \
              6.12); 0: the system's",
        ..row("slice", "engine.slice", time(0, 100 * MS), "20ms")
    },
    Row {
        doc: "messages in flight from one shard to another",
        ..row("mesh-capacity", "engine.mesh_capacity", whole(16, 65_536), "1024")
    },
    Row {
        doc: "submission queue entries of each ring, a power of two",
        ..row("sq-entries", "engine.sq_entries", whole(64, 32_768), "4096")
    },
    Row {
        doc: "completion queue entries of each ring, a power of two",
        ..row("cq-entries", "engine.cq_entries", whole(256, 65_536), "16384")
    },
    Row {
        doc: "receive buffers of each shard, a power of two",
        ..row("recv-buffers", "engine.recv_buffers", whole(8, 32_768), "32")
    },
    Row {
        doc: "bytes in each receive buffer, shared by many receives where the kernel can",
        ..row("recv-buffer-size", "engine.recv_buffer_size", size(1 << 12, 4 * MIB), "256kb")
    },
    Row {
        reload: true,
        doc: "connections over all shards; more are refused",
        ..row("max-clients", "engine.max_clients", whole(1, 10_000_000), "10000")
    },
    Row {
        reload: true,
        doc: "close a connection that was silent for so long; 0 never",
        ..row("idle-timeout", "engine.idle_timeout", time(0, 365 * DAY), "0s")
    },
    Row {
        reload: true,
        doc: "replies that may wait for a client before its connection is no longer read",
        ..row("output-limit", "engine.output_limit", size(1 << 12, 1 << 40), "1mb")
    },
    Row {
        reload: true,
        doc: "bytes of an unfinished request kept outside the value it carries",
        ..row("input-limit", "engine.input_limit", size(1 << 12, 1 << 40), "256kb")
    },
    Row {
        doc: "send replies without a copy from this size; off: always copy",
        ..unset("zero-copy-min", "engine.zero_copy_min", size(1 << 12, 1 << 40))
    },
    Row {
        doc: "connections that wait to be accepted, per listener",
        ..row("backlog", "engine.backlog", whole(1, 65_535), "1024")
    },
    Row {
        doc: "probe silent connections after so long; 0 never",
        ..row("keepalive", "engine.keepalive", time(0, DAY), "5m")
    },
    Row {
        doc: "TCP congestion control of accepted connections; off: the system's",
        ..unset("congestion", "engine.congestion", Kind::Text { max_bytes: 15 })
    },
    Row {
        doc: "on SIGTERM, finish what was started for at most so long",
        ..row("drain-timeout", "engine.drain_timeout", time(0, 3_600 * S), "10s")
    },
    Row {
        doc: "start all randomness from this number; off: from the system",
        ..unset("seed", "engine.seed", whole(0, u64::MAX))
    },
];

/// The engine's options, checked against each other.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "one field per row of `ENGINE`, which says what it is")]
pub struct Engine {
    pub data: PathBuf,
    pub admin: Option<SocketAddr>,
    pub log_level: Level,
    /// Resolved: how many shards to start.
    pub shards: usize,
    /// Resolved: the core of each shard; empty when they are not pinned.
    pub cpus: Vec<usize>,
    pub spin_ns: u64,
    pub slice_ns: u64,
    pub mesh_capacity: usize,
    pub sq_entries: u32,
    pub cq_entries: u32,
    pub recv_buffers: u16,
    pub recv_buffer_len_bytes: u32,
    pub clients_max: usize,
    pub idle_timeout_ns: u64,
    pub output_max_bytes: usize,
    pub input_max_bytes: usize,
    pub zero_copy_min_bytes: Option<usize>,
    pub backlog: u32,
    pub keepalive_ns: u64,
    pub congestion: Option<String>,
    pub drain_timeout_ns: u64,
    pub seed: Option<u64>,
}

impl Engine {
    /// The typed form of `values`, whose table must contain [`ENGINE`]; `allowed` are the cores
    /// this process may run on.
    ///
    /// # Errors
    /// When options contradict each other or the machine.
    pub fn new(values: &Values, allowed: &CpuList) -> Result<Self, Error> {
        let (shards, cpus) = place(values, allowed)?;
        for name in ["sq-entries", "cq-entries", "recv-buffers"] {
            power_of_two(name, values.integer(name))?;
        }
        let (sq, cq) = (values.integer("sq-entries"), values.integer("cq-entries"));
        if cq < sq {
            let problem = format!("--cq-entries: {cq} is below --sq-entries, {sq}");
            return Err(contradiction(problem, "give at least as many; four times is usual"));
        }
        let bytes = |name| to_usize(values.size_bytes(name));
        let whole = |name| values.integer(name);
        Ok(Self {
            data: values.path("data").to_owned(),
            admin: values.address_if_set("admin"),
            log_level: Level::of(values.choice("log-level")).unwrap_or(Level::Info),
            shards,
            cpus,
            spin_ns: values.duration_ns("spin"),
            slice_ns: values.duration_ns("slice"),
            mesh_capacity: to_usize(whole("mesh-capacity")),
            sq_entries: sq as u32,
            cq_entries: cq as u32,
            recv_buffers: whole("recv-buffers") as u16,
            recv_buffer_len_bytes: values.size_bytes("recv-buffer-size") as u32,
            clients_max: to_usize(whole("max-clients")),
            idle_timeout_ns: values.duration_ns("idle-timeout"),
            output_max_bytes: bytes("output-limit"),
            input_max_bytes: bytes("input-limit"),
            zero_copy_min_bytes: values.size_bytes_if_set("zero-copy-min").map(to_usize),
            backlog: whole("backlog") as u32,
            keepalive_ns: values.duration_ns("keepalive"),
            congestion: values.text_if_set("congestion").map(str::to_owned),
            drain_timeout_ns: values.duration_ns("drain-timeout"),
            seed: values.integer_if_set("seed"),
        })
    }
}

/// The cores this process may run on.
///
/// # Errors
/// When the kernel does not say.
pub fn allowed_cpus() -> Result<CpuList, Error> {
    let set = rustix::thread::sched_getaffinity(None)
        .map_err(|errno| Error::io("sched_getaffinity", errno.into(), ""))?;
    let cpus = (0..CPU_MAX).filter(|cpu| {
        (*cpu as usize) < rustix::thread::CpuSet::MAX_CPU && set.is_set(*cpu as usize)
    });
    Ok(CpuList::from(cpus.collect::<Vec<u32>>()))
}

/// How many shards, and where.
fn place(values: &Values, allowed: &CpuList) -> Result<(usize, Vec<usize>), Error> {
    let asked = values.cpus_if_set("cpus");
    let cpus = asked.unwrap_or(allowed).as_slice();
    if let Some(cpu) = cpus.iter().find(|cpu| !allowed.as_slice().contains(cpu)) {
        let problem = format!("--cpus: core {cpu} is not allowed here");
        return Err(contradiction(problem, &format!("choose among {allowed}")));
    }
    let shards = values.integer_if_set("shards").map_or(cpus.len().max(1), to_usize);
    if !values.flag("pin") {
        return Ok((shards, Vec::new()));
    }
    if asked.is_some() && shards > cpus.len() {
        let problem = format!("--shards: {shards} shards on the {} cores of --cpus", cpus.len());
        return Err(contradiction(problem, "name a core for each shard, or give --no-pin"));
    }
    // More shards than cores by --shards alone: for trying things out, they share unpinned.
    if shards > cpus.len() {
        return Ok((shards, Vec::new()));
    }
    Ok((shards, cpus[..shards].iter().map(|cpu| *cpu as usize).collect()))
}

fn power_of_two(name: &str, value: u64) -> Result<(), Error> {
    if value.is_power_of_two() {
        return Ok(());
    }
    let up = value.next_power_of_two();
    let remedy = format!("give {} or {up}", up / 2);
    Err(contradiction(format!("--{name}: {value} is no power of two"), &remedy))
}

fn contradiction(problem: String, remedy: &str) -> Error {
    Error::new("option", ErrorKind::Invalid, problem).remedied(remedy)
}

fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Table;
    use std::ffi::OsString;

    fn engine(args: &[&str]) -> Result<Engine, String> {
        let table = Table::new("t", "t", &[], &[ENGINE]);
        let parsed = table.load(args.iter().map(OsString::from)).map_err(|e| e.to_string())?;
        Engine::new(&parsed.values, &CpuList::from(vec![0, 1, 4])).map_err(|e| e.to_string())
    }

    #[test]
    fn the_defaults_fit_together() {
        let engine = engine(&[]).unwrap();
        assert_eq!((engine.shards, engine.cpus.as_slice()), (3, [0, 1, 4].as_slice()));
        assert_eq!(engine.admin.unwrap().to_string(), "127.0.0.1:9900");
        assert_eq!((engine.log_level, engine.seed), (Level::Info, None));
        assert_eq!(engine.spin_ns, 0);
        assert_eq!(engine.slice_ns, 20 * MS);
        assert_eq!(engine.idle_timeout_ns, 0);
    }

    #[test]
    fn shards_are_placed_on_cores() {
        let at = |args: &[&str]| engine(args).map(|engine| (engine.shards, engine.cpus));
        assert_eq!(at(&["--shards", "2"]), Ok((2, vec![0, 1])));
        assert_eq!(at(&["--cpus", "1,4"]), Ok((2, vec![1, 4])));
        assert_eq!(at(&["--cpus", "1,4", "--shards=1"]), Ok((1, vec![1])));
        assert_eq!(at(&["--shards", "8"]), Ok((8, vec![])), "more than cores: not pinned");
        assert_eq!(at(&["--cpus", "4", "--shards=2", "--no-pin"]), Ok((2, vec![])));
        assert_eq!(
            at(&["--cpus", "0-2"]),
            Err("option --cpus: core 2 is not allowed here; choose among 0-1,4".to_owned())
        );
        assert_eq!(
            at(&["--cpus", "0,1", "--shards", "3"]),
            Err("option --shards: 3 shards on the 2 cores of --cpus; name a core for each shard, \
                 or give --no-pin"
                .to_owned())
        );
    }

    #[test]
    fn contradictions_are_named() {
        assert_eq!(
            engine(&["--sq-entries=5000"]).unwrap_err(),
            "option --sq-entries: 5000 is no power of two; give 4096 or 8192"
        );
        let error = engine(&["--sq-entries=4096", "--cq-entries=1024"]).unwrap_err();
        assert!(error.contains("--cq-entries: 1024 is below --sq-entries, 4096"), "{error}");
    }

    #[test]
    fn this_machine_allows_some_core() {
        assert!(!allowed_cpus().unwrap().as_slice().is_empty());
    }
}
