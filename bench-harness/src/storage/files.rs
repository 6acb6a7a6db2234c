//! Row 4d: a file to a socket. The receiver is a thread of this process that copies what arrives;
//! its CPU is taken off the process's. The last side is the floor: the calls our engine makes, in a
//! loop with nothing around it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow};
use engine::driver::{ListenOptions, OpenOptions};
use engine::exec::sync::yield_now;
use engine::fs::File as ShardFile;
use engine::net::stream::Stream;
use engine::shard::ShardCx;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::sockopt;

use super::{Options, shard};
use crate::figures::{Contender, Figures, Report, alternate};
use crate::{clock, machine};

/// Length of the file that is sent.
pub(crate) const FILE_BYTES: usize = 256 << 20;
/// Times the file is sent: enough that starting a shard does not show.
const REPEATS: usize = 16;
const RECEIVE_BYTES: usize = 256 << 10;
const GB: f64 = 1e9;

pub(super) fn run(options: &Options, report: &mut Report) {
    let path = options.dir.join("file-to-socket");
    if let Err(error) = make(&path) {
        report.skipped.push(format!("files: {error:#}"));
        return;
    }
    for chunk in [64 << 10, 256 << 10] {
        let name = format!("4d file to socket, {} KiB a time, from the page cache", chunk >> 10);
        let contenders: [Contender<'_>; 3] = [
            ("ours (sendfile)", Box::new(|| ours(&path, chunk, options))),
            ("read + send", Box::new(|| blocking(&path, options, 1, &read_and_send(chunk)))),
            ("floor: sendfile and poll", Box::new(|| blocking(&path, options, 4, &bare(chunk)))),
        ];
        let mut cell = alternate(&name, options.rounds, &contenders, &mut report.skipped);
        cell.claim("cpu_ms_per_gb", 1, 0.60);
        report.cells.push(cell);
    }
    // Only space is lost if it stays.
    let _ = fs::remove_file(&path);
}

pub(super) fn run_cold(options: &Options, report: &mut Report) {
    let path = options.dir.join("file-to-socket-cold");
    if let Err(error) = make(&path) {
        report.skipped.push(format!("cold: {error:#}"));
        return;
    }
    let contenders: [Contender<'_>; 2] = [
        ("ours (read-ahead on workers)", Box::new(|| cold_turns(&path, false, options))),
        ("sendfile at once", Box::new(|| cold_turns(&path, true, options))),
    ];
    let name = "4d file to socket, 256 KiB a time, nothing cached: how long the shard stands still";
    let mut cell = alternate(name, options.rounds, &contenders, &mut report.skipped);
    cell.limit("longest_turn_us", false, 1_000.0);
    report.cells.push(cell);
    // Only space is lost if it stays.
    let _ = fs::remove_file(&path);
}

/// The file, whose pages are cached afterwards.
pub(crate) fn make(path: &Path) -> Result<()> {
    let file = File::create(path).with_context(|| path.display().to_string())?;
    let block: Vec<u8> = (0..1 << 20).map(|n: u32| (n >> 3) as u8).collect();
    for at in (0..FILE_BYTES).step_by(block.len()) {
        file.write_all_at(&block, at as u64)?;
    }
    Ok(file.sync_all()?)
}

/// Receives everything from `addr`: (bytes, CPU of this thread).
fn receive(addr: SocketAddr) -> Result<(u64, u64)> {
    let mut stream = loop {
        match TcpStream::connect(addr) {
            Ok(stream) => break stream,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                clock::sleep_ns(clock::MILLISECOND_NS);
            }
            Err(error) => return Err(error.into()),
        }
    };
    let before_ns = clock::thread_cpu_ns();
    let mut buf = vec![0; RECEIVE_BYTES];
    let mut bytes = 0;
    loop {
        let read = stream.read(&mut buf)?;
        if read == 0 {
            return Ok((bytes, clock::thread_cpu_ns() - before_ns));
        }
        bytes += read as u64;
    }
}

/// What both ends of a connection found.
pub(crate) struct Sent {
    /// Of the sender.
    pub(crate) figures: Figures,
    /// What arrived.
    pub(crate) bytes: u64,
    /// CPU of this process without the receiver's.
    pub(crate) sender_ns: u64,
    /// From the start of both to the end of the stream.
    pub(crate) elapsed_ns: u64,
}

/// Starts a receiver on CPU `receiver_cpu` beside `send`, which ends the stream.
pub(crate) fn with_receiver(
    addr: SocketAddr,
    receiver_cpu: usize,
    send: impl FnOnce() -> Result<Figures>,
) -> Result<Sent> {
    let process = || clock::process_cpu_ns(std::process::id()).unwrap_or(0);
    let (before_ns, start_ns) = (process(), clock::mono_ns());
    let (figures, received) = thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            let mut set = nix::sched::CpuSet::new();
            set.set(receiver_cpu)?;
            nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)?;
            receive(addr)
        });
        let figures = send();
        (figures, receiver.join())
    });
    let figures = figures?;
    let (bytes, receiver_ns) = received.map_err(|_| anyhow!("the receiver panicked"))??;
    let elapsed_ns = clock::mono_ns() - start_ns;
    let sender_ns = (process() - before_ns).saturating_sub(receiver_ns);
    Ok(Sent { figures, bytes, sender_ns, elapsed_ns })
}

/// As [`with_receiver`]: CPU of the sender for what arrived, and how fast it did.
fn beside_receiver(
    addr: SocketAddr,
    receiver_cpu: usize,
    send: impl FnOnce() -> Result<Figures>,
) -> Result<Figures> {
    let Sent { mut figures, bytes, sender_ns, elapsed_ns } =
        with_receiver(addr, receiver_cpu, send)?;
    figures.insert("cpu_ms_per_gb", sender_ns as f64 / 1e6 / (bytes as f64 / GB));
    figures.insert("mb_per_s", bytes as f64 * 1e3 / elapsed_ns as f64);
    Ok(figures)
}

fn listen_options() -> ListenOptions {
    let mut options = ListenOptions::default();
    options.tcp.congestion = machine::congestion().map(str::to_owned);
    options
}

/// Accepts one connection on the shard.
pub(crate) async fn accept(
    cx: &ShardCx,
    addr: SocketAddr,
    options: &ListenOptions,
) -> Result<Stream> {
    let slot = std::rc::Rc::new(std::cell::RefCell::new(None));
    let found = std::rc::Rc::clone(&slot);
    engine::net::stream::serve(cx, addr, options, 1, move |stream| {
        *found.borrow_mut() = Some(stream);
        async {}
    })?;
    loop {
        let stream = slot.borrow_mut().take();
        if let Some(stream) = stream {
            return Ok(stream);
        }
        cx.sleep(100_000).await;
    }
}

fn ours(path: &Path, chunk: usize, options: &Options) -> Result<Figures> {
    let addr = SocketAddr::from(([127, 0, 0, 1], options.port));
    let path: PathBuf = path.to_owned();
    beside_receiver(addr, options.cpu + 1, || {
        shard::run(options.cpu, move |cx| async move {
            let file = ShardFile::open(&cx, &path, &OpenOptions::default())?;
            let stream = accept(&cx, addr, &listen_options()).await?;
            for _ in 0..REPEATS {
                let sent = stream.send_file(file.fd(), 0, FILE_BYTES as u64, chunk).await;
                sent.map_err(|errno| anyhow!("send_file: {errno}"))?;
            }
            stream.shutdown_write().await;
            Ok(Figures::new())
        })
    })
}

/// Sends a file once, on a thread of its own.
type Sender<'a> = dyn Fn(&File, &mut TcpStream) -> Result<()> + Sync + 'a;

/// Runs `send` for one connection, without the engine.
fn blocking(path: &Path, options: &Options, port: u16, send: &Sender<'_>) -> Result<Figures> {
    let addr = SocketAddr::from(([127, 0, 0, 1], options.port + port));
    let file = File::open(path)?;
    let listener = TcpListener::bind(addr)?;
    if let Some(name) = machine::congestion() {
        let option = nix::sys::socket::sockopt::TcpCongestion;
        nix::sys::socket::setsockopt(&listener, option, &name.to_owned().into())?;
    }
    let cpu = options.cpu;
    let work = move || -> Result<Figures> {
        let mut set = nix::sched::CpuSet::new();
        set.set(cpu)?;
        nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)?;
        let (mut stream, _) = listener.accept()?;
        for _ in 0..REPEATS {
            send(&file, &mut stream)?;
        }
        Ok(Figures::new())
    };
    beside_receiver(addr, cpu + 1, || {
        // A thread of its own, because it is bound to a CPU.
        thread::scope(|scope| {
            scope.spawn(work).join().map_err(|_| anyhow!("the sender panicked"))?
        })
    })
}

fn read_and_send(chunk: usize) -> impl Fn(&File, &mut TcpStream) -> Result<()> + Sync {
    move |file, stream| {
        let mut buf = vec![0; chunk];
        for at in (0..FILE_BYTES).step_by(chunk) {
            file.read_exact_at(&mut buf, at as u64)?;
            stream.write_all(&buf)?;
        }
        Ok(())
    }
}

fn bare(chunk: usize) -> impl Fn(&File, &mut TcpStream) -> Result<()> + Sync {
    move |file, stream| {
        stream.set_nonblocking(true)?;
        sockopt::set_tcp_cork(&*stream, true)?;
        let mut at = 0;
        while at < FILE_BYTES as u64 {
            match sendfile(&*stream, file, Some(&mut at), chunk) {
                Ok(0) => return Err(anyhow!("the file ends at {at}")),
                Ok(_) => {}
                Err(Errno::AGAIN) => {
                    poll(&mut [PollFd::new(&*stream, PollFlags::OUT)], None)?;
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        sockopt::set_tcp_cork(&*stream, false)?;
        Ok(())
    }
}

/// How long this thread waited for a CPU so far.
fn queued_ns(schedstat: &File) -> u64 {
    let mut text = [0; 64];
    let len = schedstat.read_at(&mut text, 0).unwrap_or(0);
    let text = str::from_utf8(&text[..len]).unwrap_or_default();
    text.split_ascii_whitespace().nth(1).and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

/// Watches the shard's turns while `path`, of which nothing is cached, is sent.
fn cold(path: &Path, naive: bool, options: &Options) -> Result<Figures> {
    let reader = File::open(path)?;
    rustix::fs::fadvise(&reader, 0, None, rustix::fs::Advice::DontNeed)?;
    let addr = SocketAddr::from(([127, 0, 0, 1], options.port + 2 + u16::from(naive)));
    let path: PathBuf = path.to_owned();
    beside_receiver(addr, options.cpu + 1, || {
        shard::run(options.cpu, move |cx| async move {
            let file = ShardFile::open(&cx, &path, &OpenOptions::default())?;
            let stream = accept(&cx, addr, &listen_options()).await?;
            let done = std::rc::Rc::new(std::cell::Cell::new(false));
            let (sent, shard) = (std::rc::Rc::clone(&done), cx.clone());
            cx.spawn("send", async move {
                if naive {
                    send_at_once(&shard, &stream, &file).await;
                } else {
                    // A failure shows as too few bytes received.
                    let _ = stream.send_file(file.fd(), 0, FILE_BYTES as u64, 256 << 10).await;
                }
                stream.shutdown_write().await;
                sent.set(true);
            });
            let schedstat = File::open("/proc/thread-self/schedstat")?;
            let (mut turns, mut over, mut longest, mut longest_net) = (0_u64, 0_u64, 0, 0);
            let (mut last_ns, mut last_queued) = (clock::mono_ns(), queued_ns(&schedstat));
            while !done.get() {
                yield_now().await;
                let (now_ns, queued) = (clock::mono_ns(), queued_ns(&schedstat));
                let gap = now_ns - last_ns;
                let net = gap.saturating_sub(queued - last_queued);
                turns += 1;
                over += u64::from(net > 1_000_000);
                longest = longest.max(gap);
                longest_net = longest_net.max(net);
                (last_ns, last_queued) = (now_ns, queued);
            }
            Ok(Figures::from([
                ("turns", turns as f64),
                ("turns_over_1_ms", over as f64),
                ("longest_turn_us", longest_net as f64 / 1e3),
                ("longest_turn_with_preemption_us", longest as f64 / 1e3),
            ]))
        })
    })
}

fn cold_turns(path: &Path, naive: bool, options: &Options) -> Result<Figures> {
    let mut figures = cold(path, naive, options)?;
    // The shard is kept busy by the watching.
    figures.remove("cpu_ms_per_gb");
    Ok(figures)
}

/// What a server does that does not ask whether the range is cached.
async fn send_at_once(cx: &ShardCx, stream: &Stream, file: &ShardFile) {
    let mut at = 0;
    while at < FILE_BYTES {
        let moved = cx.driver().sendfile(stream.fd(), file.fd(), at as u64, 256 << 10);
        match moved {
            Ok(0) => return,
            Ok(moved) => {
                at += moved;
                yield_now().await;
            }
            Err(_) => {
                // The socket is full, or gone: then so is the next attempt.
                let ready = cx.perform(engine::driver::Op::PollOut { fd: stream.fd() }).await;
                if ready.result.is_err() {
                    return;
                }
            }
        }
    }
}
