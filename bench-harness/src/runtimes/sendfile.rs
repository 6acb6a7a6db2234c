//! A cached file to a socket, 64 KiB a request, by what each runtime has for it.
//!
//! Ours is the engine's `send_file`; tokio non-blocking sendfile(2) whenever the socket is writable;
//! monoio, which splices sockets only, reads into a buffer and writes that; glommio likewise from its
//! O_DIRECT file, which cannot use the page cache, and once more from its buffered one. A receiver on the
//! load's core copies everything. Invariants: all sides send what they have at once (TCP_NODELAY), as
//! servers do; a request is done when the socket has taken all of it; what arrived is what was sent.
//! Next: `storage::files` for the receiver.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use engine::driver::{ListenOptions, OpenOptions};
use futures_lite::AsyncWriteExt as _;
use hdrhistogram::Histogram;
use monoio::io::AsyncWriteRentExt as _;
use tokio::io::AsyncWriteExt as _;

use super::child::Trial;
use super::table::{AGAIN, Column, Report};
use super::{Contender, Options, Progress, What, measure, monoio_runtime};
use crate::clock;
use crate::figures::Figures;
use crate::storage::files::{self, FILE_BYTES, Sent};
use crate::storage::shard;

/// Bytes of a request.
const CHUNK_BYTES: usize = 64 << 10;

const COLUMNS: &[Column] = &[
    Column { figure: "cpu_ns_per_op", title: "CPU ns/op" },
    Column { figure: "rate", title: "requests/s" },
    Column { figure: "p99_us", title: "p99 us" },
    Column { figure: "mb_per_s", title: "MB/s" },
];

/// Sides, and the package each is made of.
const SIDES: &[(&str, &str)] = &[
    ("engine", "engine"),
    (AGAIN, "engine"),
    ("monoio", "monoio"),
    ("monoio-defer", "monoio"),
    ("glommio", "glommio"),
    ("glommio-buffered", "glommio"),
    ("tokio", "tokio"),
];

pub(super) fn run(
    options: &Options,
    report: &mut Report,
    progress: &mut Progress<'_>,
) -> Result<()> {
    std::fs::create_dir_all(&options.dir)?;
    let dir = options.dir.canonicalize()?;
    let path = dir.join(FILE_NAME);
    files::make(&path)?;
    let contender = |(index, &(side, package)): (usize, &(&'static str, &str))| {
        let trial = Trial {
            what: What::Sendfile,
            side: side.to_owned(),
            group: 1,
            dir: dir.clone(),
            trial_ns: options.trial_ns,
            server_cpu: options.server_cpu,
            client_cpu: options.client_cpu,
            port: options.port.saturating_add(index as u16),
        };
        let version = crate::peers::built_with(package);
        Contender { name: side, version, trial: Box::new(move || trial.spawn()) }
    };
    let contenders = SIDES.iter().enumerate().map(contender).collect();
    let name = "sendfile: 64 KiB of a cached file to a socket".to_owned();
    report.cells.push(measure(What::Sendfile, name, COLUMNS, contenders, options, progress));
    // Only space is lost if it stays.
    let _ = std::fs::remove_file(&path);
    Ok(())
}

const FILE_NAME: &str = "sendfile-source";

/// Requests of one trial: where the next one reads, and how long each took.
struct Requests {
    trial_ns: u64,
    /// The process's CPU before anything was started, and when the first request was made.
    cpu_ns: (u64, u64),
    end_ns: u64,
    at: usize,
    file_bytes: usize,
    latency: Histogram<u64>,
}

impl Requests {
    fn new(file_bytes: usize, trial_ns: u64) -> Result<Self> {
        let latency = Histogram::new_with_max(60 * clock::SECOND_NS, 3)?;
        let cpu_ns = (process_cpu_ns(), 0);
        Ok(Self { trial_ns, cpu_ns, end_ns: 0, at: 0, file_bytes, latency })
    }

    /// The runtime has started and the receiver is there: from now on it counts.
    fn begin(&mut self) {
        self.cpu_ns.1 = process_cpu_ns();
        self.end_ns = clock::mono_ns() + self.trial_ns;
    }

    /// Where the next request reads.
    const fn next(&mut self) -> u64 {
        if self.at + CHUNK_BYTES > self.file_bytes {
            self.at = 0;
        }
        let at = self.at;
        self.at += CHUNK_BYTES;
        at as u64
    }

    /// Notes a request begun at `start_ns`; whether there is time for another.
    fn done(&mut self, start_ns: u64) -> bool {
        let now_ns = clock::mono_ns();
        self.latency.saturating_record(now_ns - start_ns);
        now_ns < self.end_ns
    }

    fn figures(&self) -> Figures {
        let quantile = |q| self.latency.value_at_quantile(q) as f64 / 1e3;
        let start_ns = self.cpu_ns.1.saturating_sub(self.cpu_ns.0);
        Figures::from([
            ("p50_us", quantile(0.5)),
            ("p99_us", quantile(0.99)),
            ("start_ns", start_ns as f64),
            ("requests", self.latency.len() as f64),
        ])
    }
}

fn process_cpu_ns() -> u64 {
    clock::process_cpu_ns(std::process::id()).unwrap_or(0)
}

/// One trial in this process.
pub(super) fn trial(trial: &Trial) -> Result<Figures> {
    on_file(trial, &trial.dir.join(FILE_NAME), FILE_BYTES)
}

fn on_file(trial: &Trial, path: &Path, file_bytes: usize) -> Result<Figures> {
    let addr = SocketAddr::from(([127, 0, 0, 1], trial.port));
    let (requests, cpu) = (Requests::new(file_bytes, trial.trial_ns)?, trial.server_cpu);
    let sent = files::with_receiver(addr, trial.client_cpu, || match trial.side.as_str() {
        "engine" | AGAIN => ours(path, addr, requests, cpu),
        "monoio" => on_monoio(path, addr, requests, false),
        "monoio-defer" => on_monoio(path, addr, requests, true),
        "glommio" => on_glommio(path, addr, requests, true),
        "glommio-buffered" => on_glommio(path, addr, requests, false),
        "tokio" => on_tokio(path, addr, requests),
        other => bail!("no side {other} of sendfile"),
    })?;
    let Sent { mut figures, bytes, sender_ns, .. } = sent;
    let mut take = |name| figures.remove(name).with_context(|| format!("no figure {name}"));
    let (start_ns, requests) = (take("start_ns")?, take("requests")?);
    let expected = requests as u64 * CHUNK_BYTES as u64;
    ensure!(bytes == expected, "{bytes} bytes arrived of {expected} that were sent");
    let rate = requests * 1e9 / trial.trial_ns.max(1) as f64;
    // Without what it took to start, which grows with no request.
    let cpu_ns = (sender_ns as f64 - start_ns).max(0.0) / requests.max(1.0);
    figures.insert("cpu_ns_per_op", cpu_ns);
    figures.insert("rate", rate);
    figures.insert("mb_per_s", rate * CHUNK_BYTES as f64 / 1e6);
    Ok(figures)
}

fn ours(path: &Path, addr: SocketAddr, requests: Requests, cpu: usize) -> Result<Figures> {
    let (path, mut requests) = (path.to_owned(), requests);
    shard::run(cpu, move |cx| async move {
        let file = engine::fs::File::open(&cx, &path, &OpenOptions::default())?;
        let stream = files::accept(&cx, addr, &ListenOptions::default()).await?;
        requests.begin();
        loop {
            let start_ns = clock::mono_ns();
            let sent = stream
                .send_file(file.fd(), requests.next(), CHUNK_BYTES as u64, CHUNK_BYTES)
                .await
                .map_err(|errno| anyhow!("send_file: {errno}"))?;
            ensure!(sent == CHUNK_BYTES as u64, "only {sent} bytes of a request were sent");
            if !requests.done(start_ns) {
                break;
            }
        }
        stream.shutdown_write().await;
        Ok(requests.figures())
    })
}

fn on_monoio(path: &Path, addr: SocketAddr, requests: Requests, defer: bool) -> Result<Figures> {
    let mut requests = requests;
    monoio_runtime(defer)?.block_on(async move {
        let file = monoio::fs::File::open(path).await.context("open the file")?;
        let listener = monoio::net::TcpListener::bind(addr).context("listen")?;
        let (mut stream, _) = listener.accept().await.context("accept")?;
        stream.set_nodelay(true).context("TCP_NODELAY")?;
        let mut buf = Vec::with_capacity(CHUNK_BYTES);
        requests.begin();
        loop {
            let start_ns = clock::mono_ns();
            let (read, back) = file.read_exact_at(buf, requests.next()).await;
            read.context("read")?;
            let (written, back) = stream.write_all(back).await;
            written.context("send")?;
            buf = back;
            if !requests.done(start_ns) {
                return Ok(requests.figures());
            }
        }
    })
}

fn on_glommio(path: &Path, addr: SocketAddr, requests: Requests, direct: bool) -> Result<Figures> {
    let failed = |error: glommio::GlommioError<()>| anyhow!("{error}");
    let mut requests = requests;
    let executor =
        glommio::LocalExecutorBuilder::new(glommio::Placement::Unbound).make().map_err(failed)?;
    executor.run(async move {
        let listener = glommio::net::TcpListener::bind(addr).map_err(failed)?;
        let mut stream = listener.accept().await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let (dma, buffered) = if direct {
            (Some(glommio::io::DmaFile::open(path).await.map_err(failed)?), None)
        } else {
            (None, Some(glommio::io::BufferedFile::open(path).await.map_err(failed)?))
        };
        requests.begin();
        loop {
            let start_ns = clock::mono_ns();
            let at = requests.next();
            let read = match (&dma, &buffered) {
                (Some(file), _) => file.read_at(at, CHUNK_BYTES).await.map_err(failed)?,
                (_, Some(file)) => file.read_at(at, CHUNK_BYTES).await.map_err(failed)?,
                (None, None) => bail!("no file is open"),
            };
            ensure!(read.len() == CHUNK_BYTES, "only {} bytes were read", read.len());
            stream.write_all(&read).await.context("send")?;
            if !requests.done(start_ns) {
                break;
            }
        }
        if let Some(file) = dma {
            file.close().await.map_err(failed)?;
        }
        if let Some(file) = buffered {
            file.close().await.map_err(failed)?;
        }
        Ok(requests.figures())
    })
}

fn on_tokio(path: &Path, addr: SocketAddr, requests: Requests) -> Result<Figures> {
    let mut requests = requests;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    runtime.context("start tokio")?.block_on(async move {
        let file = File::open(path).context("open the file")?;
        let listener = tokio::net::TcpListener::bind(addr).await.context("listen")?;
        let (mut stream, _) = listener.accept().await.context("accept")?;
        stream.set_nodelay(true).context("TCP_NODELAY")?;
        requests.begin();
        loop {
            let start_ns = clock::mono_ns();
            let mut at = requests.next();
            let end = at + CHUNK_BYTES as u64;
            while at < end {
                stream.writable().await.context("wait for the socket")?;
                let len = usize::try_from(end - at).unwrap_or(CHUNK_BYTES);
                let moved = stream.try_io(tokio::io::Interest::WRITABLE, || {
                    rustix::fs::sendfile(&stream, &file, Some(&mut at), len)
                        .map_err(io::Error::from)
                });
                match moved {
                    Ok(0) => bail!("the file ends at {at}"),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error).context("sendfile"),
                }
            }
            if !requests.done(start_ns) {
                break;
            }
        }
        stream.shutdown().await.context("shut down")?;
        Ok(requests.figures())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_side_sends_a_file() {
        let path = std::env::temp_dir().join(format!("bench-sendfile-{}", std::process::id()));
        std::fs::write(&path, vec![7; 4 * CHUNK_BYTES]).expect("a writable directory");
        for (index, (side, _)) in SIDES.iter().enumerate() {
            if *side == "glommio" {
                // The directory for temporary files may be on a file system without O_DIRECT.
                continue;
            }
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
            let port = listener.local_addr().expect("bound").port();
            drop(listener);
            let trial = Trial {
                what: What::Sendfile,
                side: (*side).to_owned(),
                group: 1,
                dir: std::env::temp_dir(),
                trial_ns: 30 * clock::MILLISECOND_NS,
                server_cpu: 0,
                client_cpu: index % 2,
                port,
            };
            let figures = on_file(&trial, &path, 4 * CHUNK_BYTES);
            let figures = figures.unwrap_or_else(|error| panic!("{side}: {error:#}"));
            assert!(figures["rate"] > 10.0 && figures["p99_us"] > 0.0, "{side}: {figures:?}");
        }
        std::fs::remove_file(&path).expect("it is ours");
    }
}
