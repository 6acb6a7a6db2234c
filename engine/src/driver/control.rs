//! Plain calls that set things up: listeners, socket options, files by path. None of them is on a
//! hot path except `sendfile`, `cached_bytes` and `read_now`, which do not wait, and `write_now`, which
//! rarely does.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, IntoRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Advice, AtFlags, Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use view::Instant;

use super::uring::{self, Ring};
use super::{Errno, FREED_NS, Fd, Usage};
use crate::error::Error;

/// How to listen.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Pending connections the kernel keeps.
    pub backlog: i32,
    /// Let several shards listen on one address (SO_REUSEPORT).
    pub shared: bool,
    /// Options of accepted sockets, which inherit them.
    pub tcp: TcpInfo,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { backlog: 4096, shared: false, tcp: TcpInfo::default() }
    }
}

/// Options of a TCP connection.
#[derive(Clone, Debug)]
pub struct TcpInfo {
    /// Send at once (TCP_NODELAY).
    pub no_delay: bool,
    /// Probe idle peers after this many seconds (SO_KEEPALIVE); zero for never.
    pub keepalive_s: u32,
    /// Congestion control by name; the system's default when `None`.
    pub congestion: Option<String>,
}

impl Default for TcpInfo {
    fn default() -> Self {
        Self { no_delay: true, keepalive_s: 300, congestion: None }
    }
}

/// How to open a file.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Writable; read-only otherwise.
    pub write: bool,
    /// Make it when missing.
    pub create: bool,
    /// Bypass the page cache (O_DIRECT); buffers and offsets are then multiples of 4 KiB.
    pub direct: bool,
    /// A directory, to be made durable with an fsync.
    pub directory: bool,
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerName {
    /// Address and port.
    Tcp(SocketAddr),
    /// A Unix socket's path, empty for the connecting side.
    Unix(PathBuf),
    /// The kernel would not say; the connection is gone.
    Unknown,
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "{}:0", path.display()),
            Self::Unknown => f.write_str("?:0"),
        }
    }
}

const fn errno(errno: rustix::io::Errno) -> Errno {
    Errno(errno.raw_os_error())
}

/// The kernel's side of a descriptor the engine owns.
fn borrow<'a>(fd: Fd) -> BorrowedFd<'a> {
    // SAFETY: an `Fd` of this driver is open until `close_now` or a Close operation consumes it,
    // and every borrow here ends with the call it is made for.
    unsafe { BorrowedFd::borrow_raw(fd.0) }
}

fn keep(fd: OwnedFd) -> Fd {
    Fd(fd.into_raw_fd())
}

fn failed(op: &'static str, errno: rustix::io::Errno, context: impl fmt::Display) -> Error {
    Error::io(op, errno.into(), context.to_string())
}

fn set_tcp_options(fd: BorrowedFd<'_>, info: &TcpInfo) -> rustix::io::Result<()> {
    sockopt::set_tcp_nodelay(fd, info.no_delay)?;
    if info.keepalive_s > 0 {
        sockopt::set_socket_keepalive(fd, true)?;
        sockopt::set_tcp_keepidle(fd, Duration::from_secs(u64::from(info.keepalive_s)))?;
    }
    if let Some(name) = &info.congestion {
        sockopt::set_tcp_congestion(fd, name)?;
    }
    Ok(())
}

fn tcp_socket(addr: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = match addr.ip() {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(family, SocketType::STREAM, flags, None)
}

/// Tries again while the address is taken, for [`FREED_NS`].
#[expect(clippy::disallowed_methods, reason = "a shard listens before it turns")]
fn when_free<T>(bind: impl Fn() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    const AGAIN: Duration = Duration::from_millis(10);
    let until_ns = clock_ns(rustix::time::ClockId::Monotonic) + FREED_NS;
    loop {
        match bind() {
            Err(rustix::io::Errno::ADDRINUSE)
                if clock_ns(rustix::time::ClockId::Monotonic) < until_ns =>
            {
                std::thread::sleep(AGAIN);
            }
            done => return done,
        }
    }
}

fn name_of(addr: Option<rustix::net::SocketAddrAny>) -> PeerName {
    let Some(addr) = addr else { return PeerName::Unknown };
    if let Ok(tcp) = SocketAddr::try_from(addr.clone()) {
        return PeerName::Tcp(tcp);
    }
    let unix = rustix::net::SocketAddrUnix::try_from(addr).ok();
    let path = unix.and_then(|unix| {
        let path = unix.path()?;
        path.to_str().ok().map(PathBuf::from)
    });
    PeerName::Unix(path.unwrap_or_default())
}

fn clock_ns(clock: rustix::time::ClockId) -> u64 {
    let time = rustix::time::clock_gettime(clock);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// See [`super::Driver`] for what each call means.
impl Ring {
    pub(super) fn now(&self) -> Instant {
        Instant {
            mono_ns: self.mono_ns(),
            unix_us: clock_ns(rustix::time::ClockId::Realtime) / 1_000,
        }
    }

    #[expect(clippy::unused_self, reason = "the other arm has a clock of its own")]
    pub(super) fn mono_ns(&self) -> u64 {
        clock_ns(rustix::time::ClockId::Monotonic)
    }

    pub(super) fn listen(
        &mut self,
        addr: SocketAddr,
        options: &ListenOptions,
    ) -> Result<Fd, Error> {
        let bound = |shared: bool| {
            let socket = tcp_socket(addr)?;
            sockopt::set_socket_reuseaddr(&socket, true)?;
            sockopt::set_socket_reuseport(&socket, shared)?;
            set_tcp_options(std::os::fd::AsFd::as_fd(&socket), &options.tcp)?;
            rustix::net::bind(&socket, &addr)?;
            Ok(socket)
        };
        let open = || {
            if !options.shared {
                return when_free(|| bound(false));
            }
            if addr.port() != 0 {
                self.siblings().claim(addr, || when_free(|| bound(false)).map(drop))?;
                return bound(true);
            }
            let socket = bound(true)?;
            // The kernel found a port that nobody has, which others may now share.
            let found = rustix::net::getsockname(&socket)?.try_into()?;
            self.siblings().claim(found, || Ok(()))?;
            Ok(socket)
        };
        let socket = open().map_err(|errno| failed("bind", errno, addr))?;
        rustix::net::listen(&socket, options.backlog)
            .map_err(|errno| failed("listen", errno, addr))?;
        Ok(keep(socket))
    }

    pub(super) fn listen_unix(
        &mut self,
        path: &Path,
        options: &ListenOptions,
    ) -> Result<Fd, Error> {
        let name = rustix::net::SocketAddrUnix::new(path)
            .map_err(|errno| failed("bind", errno, path.display()))?;
        let open = || {
            let family = AddressFamily::UNIX;
            let flags = SocketFlags::CLOEXEC;
            let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
            match rustix::net::bind(&socket, &name) {
                Err(rustix::io::Errno::ADDRINUSE) => {
                    // Nobody answers behind a stale socket file.
                    let probe = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
                    if rustix::net::connect(&probe, &name).is_ok() {
                        return Err(rustix::io::Errno::ADDRINUSE);
                    }
                    rustix::fs::unlink(path)?;
                    rustix::net::bind(&socket, &name)?;
                }
                bound => bound?,
            }
            rustix::net::listen(&socket, options.backlog)?;
            Ok(keep(socket))
        };
        when_free(open).map_err(|errno| failed("bind", errno, path.display()))
    }

    pub(super) fn socket(&mut self, peer: SocketAddr) -> Result<Fd, Error> {
        tcp_socket(peer).map(keep).map_err(|errno| failed("socket", errno, peer))
    }

    pub(super) fn set_tcp(&mut self, fd: Fd, info: &TcpInfo) {
        // A peer that is gone already is found out by the next operation.
        let _ = set_tcp_options(borrow(fd), info);
    }

    pub(super) fn cork(&mut self, fd: Fd, on: bool) {
        self.count_calls(1);
        // A Unix socket has no packets; a peer that is gone is found out by the next operation.
        let _ = sockopt::set_tcp_cork(borrow(fd), on);
    }

    pub(super) fn names(&mut self, fd: Fd) -> (PeerName, PeerName) {
        self.count_calls(2);
        let local = rustix::net::getsockname(borrow(fd)).ok();
        let peer = rustix::net::getpeername(borrow(fd)).ok().flatten();
        (name_of(local), name_of(peer))
    }

    /// From the fields of proc_pid_stat(5).
    pub(super) fn usage(&mut self) -> Usage {
        self.count_calls(3);
        let Ok(text) = std::fs::read_to_string("/proc/self/stat") else { return Usage::default() };
        // The name in brackets may hold anything; the third field is behind it.
        let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        let field = |number: usize| {
            let text = fields.split_ascii_whitespace().nth(number - 3);
            text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
        };
        let micros = |ticks: u64| ticks * 1_000_000 / rustix::param::clock_ticks_per_second();
        Usage {
            user_us: micros(field(14)),
            system_us: micros(field(15)),
            resident_bytes: field(24) * rustix::param::page_size() as u64,
        }
    }

    pub(super) fn sendfile(
        &mut self,
        to: Fd,
        file: Fd,
        offset: u64,
        len: usize,
    ) -> Result<usize, Errno> {
        self.count_calls(1);
        let mut offset = offset;
        rustix::fs::sendfile(borrow(to), borrow(file), Some(&mut offset), len).map_err(errno)
    }

    pub(super) fn cached_bytes(&mut self, file: Fd, offset: u64, len: u64) -> Option<u64> {
        self.count_calls(1);
        cachestat(file, offset, len)
    }

    pub(super) fn no_read_ahead(&mut self, file: Fd) {
        self.count_calls(1);
        // Only advice.
        let _ = rustix::fs::fadvise(borrow(file), 0, None, Advice::Random);
    }

    pub(super) fn drop_cached(&mut self, file: Fd, offset: u64, len: u64) {
        self.count_calls(1);
        // Only advice. Nothing is the whole file to fadvise(2).
        if let Some(len) = std::num::NonZeroU64::new(len) {
            let _ = rustix::fs::fadvise(borrow(file), offset, Some(len), Advice::DontNeed);
        }
    }

    pub(super) fn read_now(
        &mut self,
        file: Fd,
        buf: &mut [u8],
        offset: u64,
    ) -> Result<usize, Errno> {
        self.count_calls(1);
        let mut parts = [io::IoSliceMut::new(buf)];
        let flags = rustix::io::ReadWriteFlags::NOWAIT;
        rustix::io::preadv2(borrow(file), &mut parts, offset, flags).map_err(errno)
    }

    pub(super) fn read_waiting(
        &mut self,
        file: Fd,
        buf: &mut [u8],
        offset: u64,
    ) -> Result<usize, Errno> {
        self.count_calls(1);
        rustix::io::pread(borrow(file), buf, offset).map_err(errno)
    }

    #[expect(clippy::unused_self, reason = "the simulation's arm needs it")]
    pub(super) fn end_process(&mut self, code: i32) {
        std::process::exit(code);
    }

    pub(super) fn write_now(
        &mut self,
        file: Fd,
        parts: &[io::IoSlice<'_>],
        offset: u64,
    ) -> Result<usize, Errno> {
        self.count_calls(1);
        rustix::io::pwritev(borrow(file), parts, offset).map_err(errno)
    }

    pub(super) fn open(&mut self, path: &Path, options: &OpenOptions) -> Result<Fd, Error> {
        let mut flags = OFlags::CLOEXEC;
        flags |= if options.write { OFlags::RDWR } else { OFlags::RDONLY };
        for (wanted, flag) in [
            (options.create, OFlags::CREATE),
            (options.direct, OFlags::DIRECT),
            (options.directory, OFlags::DIRECTORY),
        ] {
            if wanted {
                flags |= flag;
            }
        }
        rustix::fs::open(path, flags, Mode::from_raw_mode(0o640))
            .map(keep)
            .map_err(|errno| failed("open", errno, path.display()))
    }

    pub(super) fn file_len(&mut self, file: Fd) -> Result<u64, Error> {
        rustix::fs::fstat(borrow(file))
            .map(|stat| stat.st_size.cast_unsigned())
            .map_err(|errno| failed("fstat", errno, format!("{file:?}")))
    }

    pub(super) fn truncate(&mut self, file: Fd, len: u64) -> Result<(), Error> {
        rustix::fs::ftruncate(borrow(file), len)
            .map_err(|errno| failed("ftruncate", errno, format!("{file:?} to {len} bytes")))
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<(), Error> {
        rustix::fs::rename(from, to).map_err(|errno| {
            failed("rename", errno, format!("{} to {}", from.display(), to.display()))
        })
    }

    pub(super) fn unlink(&mut self, path: &Path) -> Result<(), Error> {
        rustix::fs::unlinkat(rustix::fs::CWD, path, AtFlags::empty())
            .map_err(|errno| failed("unlink", errno, path.display()))
    }

    pub(super) fn make_dir(&mut self, path: &Path) -> Result<(), Error> {
        std::fs::create_dir_all(path)
            .map_err(|source| Error::io("mkdir", source, path.display().to_string()))
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> Result<(), Error> {
        rustix::fs::unlinkat(rustix::fs::CWD, path, AtFlags::REMOVEDIR)
            .map_err(|errno| failed("rmdir", errno, path.display()))
    }

    pub(super) fn list_dir(&mut self, path: &Path) -> Result<Vec<String>, Error> {
        let list = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(path)? {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            names.sort();
            Ok(names)
        };
        list().map_err(|source| Error::io("opendir", source, path.display().to_string()))
    }

    pub(super) fn adopt(&mut self, fd: OwnedFd) -> Result<Fd, Error> {
        Ok(keep(fd))
    }

    pub(super) fn shut_down_now(&mut self, fd: Fd) {
        self.count_calls(1);
        // ENOTCONN: it is over already.
        let _ = rustix::net::shutdown(borrow(fd), rustix::net::Shutdown::Both);
    }

    pub(super) fn close_now(&mut self, fd: Fd) {
        self.count_calls(1);
        uring::close(fd);
    }

    fn count_calls(&mut self, calls: u64) {
        self.stats_mut().calls += calls;
    }
}

/// cachestat(2): how many bytes of the range are in the page cache.
fn cachestat(file: Fd, offset: u64, len: u64) -> Option<u64> {
    #[repr(C)]
    struct Range {
        offset: u64,
        len: u64,
    }
    #[repr(C)]
    #[derive(Default)]
    struct Stat {
        cached: u64,
        dirty: u64,
        writeback: u64,
        evicted: u64,
        recently_evicted: u64,
    }
    const SYS_CACHESTAT: libc::c_long = 451;
    let range = Range { offset, len };
    let mut stat = Stat::default();
    // SAFETY: cachestat reads one cachestat_range and writes one cachestat; both are mirrored
    // above and live for the call.
    let failed =
        unsafe { libc::syscall(SYS_CACHESTAT, file.0, &raw const range, &raw mut stat, 0) };
    (failed == 0).then(|| (stat.cached * 4096).min(len))
}
