//! What a worker does: one call at a time, by its name. And what its parent can see of that, also when the worker is gone.
//!
//! Invariant: what comes before and after the call takes no call of the same kind, so that the n-th is the n-th.
#![expect(unsafe_code, reason = "fork, mlock and mincore have no safe call here")]

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{ErrorKind, IoSlice, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::inotify;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::super::{With, text};
use super::clock::{self, Watched};
use super::page::Page;
use super::uring::Uring;

pub(super) type Run = Box<dyn FnMut(u64) -> Result<(), i32>>;

const LINE: u64 = 8;
const MEBI: usize = 1 << 20;
/// A connection's buffers take more than this, unless somebody made them small.
const BUFFERED_MIN: usize = 64 << 10;
const CACHED: usize = 8 << 20;
const LOCKED: usize = 64 << 10;

fn line(number: u64) -> Vec<u8> {
    format!("{number:07}\n").into_bytes()
}

fn errno(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

fn done(result: std::io::Result<()>) -> Result<(), i32> {
    result.map_err(|error| errno(&error))
}

fn made(dir: &Path, what: &str, number: u64) -> PathBuf {
    dir.join(format!("{what}-{number}"))
}

pub(crate) struct Op {
    run: Run,
    well: u64,
    watched: Watched,
}

impl Op {
    pub(crate) fn new(with: &With, dir: &Path, count: u64) -> Self {
        let watched = Watched::default();
        let run = match text(with, "op", "write") {
            "clock" => clock::runner(watched.clone(), with),
            "clock-spin" => clock::spinner(with),
            name => runner(name, dir, count),
        };
        Self { run, well: 0, watched }
    }

    pub(crate) fn run(&mut self, number: u64) -> Result<(), i32> {
        (self.run)(number).inspect(|()| self.well += 1)
    }

    /// Tells what it has seen beside.
    pub(crate) fn tell(&self, page: &Page) {
        self.watched.tell(page);
    }

    /// As the worker itself sees it.
    pub(crate) const fn effects(&self) -> u64 {
        self.well
    }
}

fn runner(name: &str, dir: &Path, count: u64) -> Run {
    match name {
        "write" | "pwrite64" | "writev" | "fsync" | "fdatasync" | "ftruncate" | "grow" | "read" => {
            of_file(name, dir)
        }
        "rename" | "renameat2" | "openat" | "mkdir" | "unlink" => of_names(name, dir, count),
        "sendto" | "recvfrom" | "accept4" | "buffers" => of_sockets(name, dir),
        "spin" | "fork" | "exec" | "listen" | "open" | "memory" | "mlock" | "inotify"
        | "cached" => of_resources(name, dir),
        name if name.starts_with("file-") => super::files::runner(name, dir, count),
        name if name.starts_with("uring") => of_uring(name, dir),
        _ => panic!("no operation {name}"),
    }
}

fn of_file(name: &str, dir: &Path) -> Run {
    let mut file = File::create_new(dir.join("lines")).expect("a new file");
    match name {
        "write" => Box::new(move |number| done(file.write_all(&line(number)))),
        "pwrite64" => Box::new(move |number| done(file.write_all_at(&line(number), number * LINE))),
        "writev" => Box::new(move |number| {
            let line = line(number);
            let (one, other) = line.split_at(3);
            done(file.write_vectored(&[IoSlice::new(one), IoSlice::new(other)]).map(drop))
        }),
        "fsync" => Box::new(move |number| {
            done(file.write_all(&line(number)).and_then(|()| file.sync_all()))
        }),
        "fdatasync" => Box::new(move |number| {
            done(file.write_all(&line(number)).and_then(|()| file.sync_data()))
        }),
        "ftruncate" => Box::new(move |number| done(file.set_len((number + 1) * LINE))),
        "read" => {
            file.write_all(&line(0)).expect("room");
            let file = File::open(dir.join("lines")).expect("it is there");
            Box::new(move |_| done(file.read_exact_at(&mut [0; LINE as usize], 0)))
        }
        _ => Box::new(move |_| done(file.write_all(&[b'x'; LOCKED]))),
    }
}

fn of_names(name: &str, dir: &Path, count: u64) -> Run {
    let dir = dir.to_owned();
    if matches!(name, "rename" | "renameat2" | "unlink") {
        for number in 0..count {
            File::create_new(made(&dir, "old", number)).expect("a new file");
        }
    }
    match name {
        "rename" => Box::new(move |number| {
            done(fs::rename(made(&dir, "old", number), made(&dir, "made", number)))
        }),
        "renameat2" => Box::new(move |number| {
            rustix::fs::renameat_with(
                rustix::fs::CWD,
                made(&dir, "old", number),
                rustix::fs::CWD,
                made(&dir, "made", number),
                rustix::fs::RenameFlags::NOREPLACE,
            )
            .map_err(|error| error.raw_os_error())
        }),
        "openat" => {
            Box::new(move |number| done(File::create_new(made(&dir, "made", number)).map(drop)))
        }
        "mkdir" => Box::new(move |number| done(fs::create_dir(made(&dir, "made", number)))),
        _ => Box::new(move |number| done(fs::remove_file(made(&dir, "old", number)))),
    }
}

fn udp_pair() -> (UdpSocket, UdpSocket) {
    let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let (from, to) = (bind(), bind());
    from.connect(to.local_addr().expect("bound")).expect("a route");
    (from, to)
}

fn udp_to_parent(dir: &Path) -> UdpSocket {
    let port = fs::read_to_string(dir.join("port")).expect("the parent wrote it");
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    socket.connect((Ipv4Addr::LOCALHOST, port.parse().expect("a number"))).expect("a route");
    socket
}

fn of_sockets(name: &str, dir: &Path) -> Run {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("bound");
    match name {
        "sendto" => {
            let socket = udp_to_parent(dir);
            Box::new(move |number| done(socket.send(&line(number)).map(drop)))
        }
        "recvfrom" => {
            let (from, to) = udp_pair();
            Box::new(move |number| {
                let sent = from.send(&line(number));
                done(sent.and_then(|_| to.recv(&mut [0; 16]).map(drop)))
            })
        }
        "accept4" => Box::new(move |_| {
            let stream = TcpStream::connect(address);
            done(stream.and_then(|_stream| listener.accept().map(drop)))
        }),
        _ => Box::new(move |_| {
            // It listens as long as this is called.
            let _ = &listener;
            let mut stream = TcpStream::connect(address).map_err(|error| errno(&error))?;
            stream.set_nonblocking(true).expect("a stream");
            let mut taken = 0;
            loop {
                match stream.write(&[0; 4096]) {
                    Ok(len) => taken += len,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(errno(&error)),
                }
            }
            if taken < BUFFERED_MIN { Err(libc::ENOBUFS) } else { Ok(()) }
        }),
    }
}

fn of_resources(name: &str, dir: &Path) -> Run {
    match name {
        "spin" => Box::new(|number| {
            for step in 0..20_000_u64 {
                black_box(step ^ number);
            }
            Ok(())
        }),
        "fork" => Box::new(|_| fork()),
        "listen" => Box::new(|_| done(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map(drop))),
        "exec" => Box::new(|_| done(Command::new("true").status().map(drop))),
        "open" => {
            let mut open = Vec::new();
            Box::new(move |_| done(File::open("/dev/null").map(|file| open.push(file))))
        }
        "memory" => {
            let mut taken = Vec::new();
            Box::new(move |_| Taken::new().map(|memory| taken.push(memory)))
        }
        "mlock" => {
            let mut sets = capabilities(None).expect("its own");
            sets.effective.remove(CapabilitySet::IPC_LOCK);
            set_capabilities(None, sets).expect("its own");
            let mut locked: Vec<Box<[u8]>> = Vec::new();
            Box::new(move |_| {
                let memory = vec![1_u8; LOCKED].into_boxed_slice();
                // SAFETY: the memory is there; locking it changes nothing of it.
                let result = unsafe { libc::mlock(memory.as_ptr().cast(), memory.len()) };
                locked.push(memory);
                if result == 0 { Ok(()) } else { Err(errno(&std::io::Error::last_os_error())) }
            })
        }
        "inotify" => {
            let mut all = Vec::new();
            Box::new(move |_| {
                let one = inotify::init(inotify::CreateFlags::empty());
                one.map(|one| all.push(one)).map_err(|error| error.raw_os_error())
            })
        }
        _ => {
            let path = dir.parent().expect("it has one").join("cached");
            if !path.exists() {
                fs::write(&path, vec![1; CACHED]).expect("room");
            }
            Box::new(move |_| cached(&path))
        }
    }
}

/// Memory that comes from the kernel and goes back to it, with no allocator between.
struct Taken(*mut libc::c_void);

impl Taken {
    fn new() -> Result<Self, i32> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: new memory, which nothing points into.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), MEBI, protection, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            Err(errno(&std::io::Error::last_os_error()))
        } else {
            Ok(Self(at))
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nothing points into it.
        unsafe { libc::munmap(self.0, MEBI) };
    }
}

/// A child that ends at once.
fn fork() -> Result<(), i32> {
    // SAFETY: the worker has one thread, and the child calls nothing but `_exit`.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(errno(&std::io::Error::last_os_error())),
        // SAFETY: ends the child.
        0 => unsafe { libc::_exit(0) },
        pid => {
            // SAFETY: waits for a child of its own; no status is asked for.
            unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
            Ok(())
        }
    }
}

/// Whether a file is in the page cache, half of it at least; then it is read.
fn cached(path: &Path) -> Result<(), i32> {
    let mut file = File::open(path).map_err(|error| errno(&error))?;
    // SAFETY: a new mapping of a file, which is unmapped below.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            CACHED,
            libc::PROT_READ,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    assert_ne!(at, libc::MAP_FAILED, "memory");
    let mut resident = vec![0_u8; CACHED / 4096];
    // SAFETY: the mapping is as long, and there is a byte for each of its pages.
    let result = unsafe { libc::mincore(at, CACHED, resident.as_mut_ptr()) };
    assert_eq!(result, 0, "it is mapped");
    // SAFETY: it was mapped above, and nothing points into it.
    unsafe { libc::munmap(at, CACHED) };
    file.read_to_end(&mut Vec::new()).map_err(|error| errno(&error))?;
    let there = resident.iter().filter(|page| **page & 1 == 1).count();
    if there * 2 < resident.len() { Err(libc::ENODATA) } else { Ok(()) }
}

fn of_uring(name: &str, dir: &Path) -> Run {
    if name == "uring" {
        return Box::new(|_| Uring::new().map(drop));
    }
    let mut ring = Uring::new().expect("io_uring");
    if matches!(name, "uring-send" | "uring-recv" | "uring-accept" | "uring-nop") {
        return of_uring_sockets(name, dir, ring);
    }
    if name == "uring-openat" {
        let dir = dir.to_owned();
        return Box::new(move |number| ring.create(&made(&dir, "made", number)));
    }
    let mut options = File::options();
    let path = dir.join("lines");
    let file = options.read(true).write(true).create_new(true).open(path).expect("a new file");
    if name == "uring-read" {
        file.set_len(MEBI as u64).expect("room");
    }
    let name = name.to_owned();
    Box::new(move |number| {
        let (fd, line) = (file.as_raw_fd(), line(number));
        match name.as_str() {
            "uring-write" => ring.write(fd, &line, number * LINE),
            "uring-read" => ring.read(fd, &mut [0; 8], number * LINE).map(|_| ()),
            "uring-writev" => ring.writev(fd, &line, number * LINE),
            "uring-fsync" => ring.write(fd, &line, number * LINE).and_then(|()| ring.fsync(fd)),
            _ => panic!("no operation {name}"),
        }
    })
}

fn of_uring_sockets(name: &str, dir: &Path, mut ring: Uring) -> Run {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("bound");
    match name {
        "uring-send" => {
            let socket = udp_to_parent(dir);
            Box::new(move |number| ring.send(socket.as_raw_fd(), &line(number)))
        }
        "uring-recv" => {
            let (from, to) = udp_pair();
            Box::new(move |number| {
                from.send(&line(number)).map_err(|error| errno(&error))?;
                ring.receive(to.as_raw_fd())
            })
        }
        "uring-accept" => Box::new(move |_| {
            let _stream = TcpStream::connect(address).map_err(|error| errno(&error))?;
            ring.accept(listener.as_raw_fd())
        }),
        _ => Box::new(move |_| ring.nop()),
    }
}

/// What a parent sees of a phase.
pub(crate) struct Sink {
    name: String,
    socket: Option<UdpSocket>,
}

impl Sink {
    pub(crate) fn new(name: &str, dir: &Path) -> Self {
        let socket = matches!(name, "sendto" | "uring-send").then(|| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
            socket.set_nonblocking(true).expect("a socket");
            let port = socket.local_addr().expect("bound").port();
            fs::write(dir.join("port"), port.to_string()).expect("room");
            socket
        });
        Self { name: name.to_owned(), socket }
    }

    /// How many calls had an effect; nothing if only the worker knows.
    pub(crate) fn effects(&self, dir: &Path) -> Option<u64> {
        let entries = |what: &str| {
            let all = fs::read_dir(dir).into_iter().flatten().flatten();
            all.filter(|entry| entry.file_name().to_string_lossy().starts_with(what)).count() as u64
        };
        match self.name.as_str() {
            "write" | "pwrite64" | "writev" | "fsync" | "fdatasync" | "ftruncate"
            | "uring-write" | "uring-writev" | "uring-fsync" => {
                Some(fs::metadata(dir.join("lines")).map_or(0, |file| file.len() / LINE))
            }
            "rename" | "renameat2" | "openat" | "mkdir" | "uring-openat" => Some(entries("made-")),
            "sendto" | "uring-send" => {
                let socket = self.socket.as_ref()?;
                Some((0..).take_while(|_| socket.recv(&mut [0; 16]).is_ok()).count() as u64)
            }
            _ => None,
        }
    }
}
