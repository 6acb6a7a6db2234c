//! The one error of the engine: what the environment refused.
//!
//! Why: whoever reads it has a service that does not start or a log line in front of them, so it
//! says what was attempted, on what, what the kernel said by name, and what to do about it:
//! `bind 127.0.0.1:6379: EADDRINUSE; another process listens there: stop it or choose another
//! address`.
//!
//! Invariants: one line, lower case, no full stop. Not for our own bugs (assert) and not for what a
//! peer sent (a protocol error). Remedies are one table, below.
//!
//! Next: `config` makes the errors about options, `driver` those about system calls.

use std::fmt;
use std::io;

/// An errno.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

/// The errors a caller may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// An option or argument makes no sense.
    Invalid,
    /// It does not exist.
    NotFound,
    /// It exists already.
    Exists,
    /// The kernel, the file's mode or a sandbox forbids it.
    Forbidden,
    /// The address is taken.
    InUse,
    /// File descriptors, memory, locked memory or a queue ran out.
    Exhausted,
    /// The disk or the quota is full.
    Full,
    /// The medium failed.
    Broken,
    /// This kernel or file system cannot do it.
    Unsupported,
    /// The peer is gone, or was never there.
    Closed,
    /// It took too long.
    TimedOut,
    /// It was withdrawn by us.
    Cancelled,
    /// It would have to wait, or was interrupted: try again.
    Again,
    /// Anything else.
    Other,
}

/// What was attempted, on what, and why it failed.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    op: &'static str,
    kind: Kind,
    source: Option<Errno>,
    context: Box<str>,
    /// More precise than the table's.
    remedy: Option<Box<str>>,
}

impl Error {
    /// A failed system call: its name, what it said, and on what it worked (an address, a path, a
    /// size; may be empty).
    #[must_use]
    pub fn os(op: &'static str, errno: Errno, context: impl Into<String>) -> Self {
        let context = context.into().into_boxed_str();
        Self { op, kind: errno.kind(), source: Some(errno), context, remedy: None }
    }

    /// [`Error::os`] for an error of the standard library. Without an errno in it, its text joins
    /// the context.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "callers hand over what they got")]
    pub fn io(op: &'static str, source: io::Error, context: impl Into<String>) -> Self {
        if let Some(errno) = source.raw_os_error() {
            return Self::os(op, Errno(errno), context);
        }
        let mut context = context.into();
        if !context.is_empty() {
            context.push_str(": ");
        }
        context.push_str(&source.to_string());
        Self::new(op, kind_of_io(source.kind()), context)
    }

    /// An error that no system call reported: what was attempted, and what is wrong with it.
    #[must_use]
    pub fn new(op: &'static str, kind: Kind, context: impl Into<String>) -> Self {
        Self { op, kind, source: None, context: context.into().into_boxed_str(), remedy: None }
    }

    /// Says what to do, in place of the table's general advice.
    #[must_use]
    pub fn remedied(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into().into_boxed_str());
        self
    }

    /// A failed `io_uring_setup`, with the reason looked up on this machine.
    #[must_use]
    pub fn io_uring_setup(errno: Errno, context: impl Into<String>) -> Self {
        let sysctl = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
        let disabled = sysctl.and_then(|text| text.trim().parse().ok());
        let error = Self::os("io_uring_setup", errno, context);
        match io_uring_remedy(errno, disabled) {
            Some(remedy) => error.remedied(remedy),
            None => error,
        }
    }

    /// What was attempted: a system call, or `option` for a configuration error.
    #[must_use]
    pub const fn op(&self) -> &'static str {
        self.op
    }

    /// The class of error.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// What the kernel said.
    #[must_use]
    pub const fn errno(&self) -> Option<Errno> {
        self.source
    }

    /// On what it worked.
    #[must_use]
    pub fn context(&self) -> &str {
        &self.context
    }

    /// What to do about it, as far as that is known.
    #[must_use]
    pub fn remedy(&self) -> Option<&str> {
        self.remedy.as_deref().or_else(|| table_remedy(self.op, self.source?))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.op)?;
        match (self.context.is_empty(), self.source) {
            (true, Some(errno)) => write!(f, ": {errno}")?,
            (false, Some(errno)) => write!(f, " {}: {errno}", self.context)?,
            (true, None) => {}
            (false, None) => write!(f, " {}", self.context)?,
        }
        match self.remedy() {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `main` returning an error prints it this way.
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = error
            .source
            .map_or(io::ErrorKind::Other, |errno| Self::from_raw_os_error(errno.0).kind());
        Self::new(kind, error)
    }
}

impl Errno {
    /// The errno in an error of the standard library.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<Self> {
        error.raw_os_error().map(Self)
    }

    /// Its symbolic name, if it is one of those a server meets.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        ERRNOS.iter().find(|row| row.0 == self.0).map(|row| row.1)
    }

    /// The class it belongs to.
    #[must_use]
    pub fn kind(self) -> Kind {
        ERRNOS.iter().find(|row| row.0 == self.0).map_or(Kind::Other, |row| row.2)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn kind_of_io(kind: io::ErrorKind) -> Kind {
    use io::ErrorKind as Io;
    match kind {
        Io::NotFound => Kind::NotFound,
        Io::PermissionDenied => Kind::Forbidden,
        Io::AlreadyExists => Kind::Exists,
        Io::UnexpectedEof | Io::BrokenPipe | Io::ConnectionReset => Kind::Closed,
        Io::TimedOut => Kind::TimedOut,
        Io::InvalidInput | Io::InvalidData => Kind::Invalid,
        Io::OutOfMemory => Kind::Exhausted,
        Io::Unsupported => Kind::Unsupported,
        Io::WouldBlock | Io::Interrupted => Kind::Again,
        _ => Kind::Other,
    }
}

/// Number, name, class.
#[rustfmt::skip]
const ERRNOS: &[(i32, &str, Kind)] = &[
    (libc::E2BIG, "E2BIG", Kind::Invalid),
    (libc::EACCES, "EACCES", Kind::Forbidden),
    (libc::EADDRINUSE, "EADDRINUSE", Kind::InUse),
    (libc::EADDRNOTAVAIL, "EADDRNOTAVAIL", Kind::NotFound),
    (libc::EAFNOSUPPORT, "EAFNOSUPPORT", Kind::Unsupported),
    (libc::EAGAIN, "EAGAIN", Kind::Again),
    (libc::EALREADY, "EALREADY", Kind::Again),
    (libc::EBADF, "EBADF", Kind::Invalid),
    (libc::EBUSY, "EBUSY", Kind::InUse),
    (libc::ECANCELED, "ECANCELED", Kind::Cancelled),
    (libc::ECONNABORTED, "ECONNABORTED", Kind::Closed),
    (libc::ECONNREFUSED, "ECONNREFUSED", Kind::Closed),
    (libc::ECONNRESET, "ECONNRESET", Kind::Closed),
    (libc::EDQUOT, "EDQUOT", Kind::Full),
    (libc::EEXIST, "EEXIST", Kind::Exists),
    (libc::EFAULT, "EFAULT", Kind::Invalid),
    (libc::EFBIG, "EFBIG", Kind::Full),
    (libc::EHOSTUNREACH, "EHOSTUNREACH", Kind::Closed),
    (libc::EINPROGRESS, "EINPROGRESS", Kind::Again),
    (libc::EINTR, "EINTR", Kind::Again),
    (libc::EINVAL, "EINVAL", Kind::Invalid),
    (libc::EIO, "EIO", Kind::Broken),
    (libc::EISCONN, "EISCONN", Kind::Exists),
    (libc::EISDIR, "EISDIR", Kind::Invalid),
    (libc::ELOOP, "ELOOP", Kind::Invalid),
    (libc::EMFILE, "EMFILE", Kind::Exhausted),
    (libc::EMSGSIZE, "EMSGSIZE", Kind::Invalid),
    (libc::ENAMETOOLONG, "ENAMETOOLONG", Kind::Invalid),
    (libc::ENETUNREACH, "ENETUNREACH", Kind::Closed),
    (libc::ENFILE, "ENFILE", Kind::Exhausted),
    (libc::ENOBUFS, "ENOBUFS", Kind::Exhausted),
    (libc::ENODATA, "ENODATA", Kind::NotFound),
    (libc::ENODEV, "ENODEV", Kind::NotFound),
    (libc::ENOENT, "ENOENT", Kind::NotFound),
    (libc::ENOMEM, "ENOMEM", Kind::Exhausted),
    (libc::ENOSPC, "ENOSPC", Kind::Full),
    (libc::ENOSYS, "ENOSYS", Kind::Unsupported),
    (libc::ENOTCONN, "ENOTCONN", Kind::Closed),
    (libc::ENOTDIR, "ENOTDIR", Kind::Invalid),
    (libc::ENOTEMPTY, "ENOTEMPTY", Kind::Exists),
    (libc::ENOTSOCK, "ENOTSOCK", Kind::Invalid),
    (libc::ENXIO, "ENXIO", Kind::NotFound),
    (libc::EOPNOTSUPP, "EOPNOTSUPP", Kind::Unsupported),
    (libc::EOVERFLOW, "EOVERFLOW", Kind::Exhausted),
    (libc::EPERM, "EPERM", Kind::Forbidden),
    (libc::EPIPE, "EPIPE", Kind::Closed),
    (libc::EPROTO, "EPROTO", Kind::Closed),
    (libc::EROFS, "EROFS", Kind::Forbidden),
    (libc::ESHUTDOWN, "ESHUTDOWN", Kind::Closed),
    (libc::ESPIPE, "ESPIPE", Kind::Invalid),
    (libc::ESRCH, "ESRCH", Kind::NotFound),
    (libc::ETIME, "ETIME", Kind::TimedOut),
    (libc::ETIMEDOUT, "ETIMEDOUT", Kind::TimedOut),
    (libc::ETXTBSY, "ETXTBSY", Kind::InUse),
    (libc::EXDEV, "EXDEV", Kind::Invalid),
];

/// What to do: operation (as a prefix; empty for any), errno, advice. The first match counts.
#[rustfmt::skip]
const REMEDIES: &[(&str, i32, &str)] = &[
    ("bind", libc::EADDRINUSE, "another process listens there: stop it or choose another address"),
    ("listen", libc::EADDRINUSE, "another process listens there: stop it or choose another address"),
    ("bind", libc::EADDRNOTAVAIL, "no interface of this machine has that address: choose one that `ip addr` lists"),
    ("bind", libc::EACCES, "ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE: choose a higher port or grant it"),
    ("bind", libc::EAFNOSUPPORT, "this address family is disabled in the kernel: use the other one"),
    ("connect", libc::ECONNREFUSED, "nothing listens there: start it or correct the address"),
    ("connect", libc::ETIMEDOUT, "no answer: check the address and the firewall"),
    ("io_uring_setup", libc::EPERM, "io_uring is forbidden here: check the sysctl kernel.io_uring_disabled, and in a container its seccomp profile"),
    ("io_uring_setup", libc::ENOSYS, "this kernel was built without io_uring, or a seccomp filter hides it: Linux 6.1 or newer is needed"),
    ("io_uring_setup", libc::EINVAL, "this kernel lacks a needed ring feature: Linux 6.1 or newer is needed"),
    ("io_uring_setup", libc::ENOMEM, "too little memory for the ring: lower --shards, or raise the memory limit (ulimit -l, cgroup memory.max)"),
    ("io_uring_register", libc::ENOMEM, "registered memory counts against the locked-memory limit: raise it (ulimit -l, LimitMEMLOCK=) or lower the buffer options"),
    ("io_uring_register", libc::EINVAL, "this kernel lacks that registration: Linux 6.1 or newer is needed"),
    ("mlock", libc::ENOMEM, "the locked-memory limit is reached: raise it (ulimit -l, LimitMEMLOCK=)"),
    ("mmap", libc::ENOMEM, "not enough memory: lower the buffer options, or raise the memory limit"),
    ("sched_setaffinity", libc::EINVAL, "none of these cores is allowed here: correct --cpus (see `taskset -p 1` and the cgroup's cpuset)"),
    ("open", libc::EINVAL, "this file system may not support direct I/O (tmpfs does not): put --data on another one"),
    ("mkdir", libc::EEXIST, "something that is no directory has that name: move it away"),
    ("fsync", libc::EIO, "written data may be lost: check the disk (dmesg) before a restart"),
    ("fdatasync", libc::EIO, "written data may be lost: check the disk (dmesg) before a restart"),
    ("", libc::EMFILE, "the limit of open files is reached: raise it (ulimit -n, LimitNOFILE=) or lower --max-clients"),
    ("", libc::ENFILE, "the whole machine's limit of open files is reached: raise the sysctl fs.file-max"),
    ("", libc::ENOSPC, "the disk is full: free space or move --data"),
    ("", libc::EDQUOT, "the disk quota is used up: free space or move --data"),
    ("", libc::EROFS, "the file system is mounted read-only: remount it or move --data"),
    ("open", libc::EACCES, "the user this runs as may not do that: correct the owner or the mode"),
    ("mkdir", libc::EACCES, "the user this runs as may not do that: correct the owner or the mode"),
    ("read", libc::EISDIR, "that is a directory: name a file"),
    ("read", libc::ENOENT, "correct the path"),
];

fn table_remedy(op: &str, errno: Errno) -> Option<&'static str> {
    let row = REMEDIES.iter().find(|row| row.1 == errno.0 && op.starts_with(row.0));
    row.map(|row| row.2)
}

/// Advice from the value of `kernel.io_uring_disabled`; none if it explains nothing.
fn io_uring_remedy(errno: Errno, disabled: Option<u32>) -> Option<String> {
    const ALLOW: &str = "set it to 0 or run as a member of io_uring_group";
    match disabled {
        Some(value @ (1 | 2)) if errno.0 == libc::EPERM => {
            // At 2 the group does not help.
            let how = if value == 1 {
                ALLOW
            } else {
                "set it to 0, or to 1 and run as a member of io_uring_group"
            };
            Some(format!("kernel.io_uring_disabled is {value}: {how}"))
        }
        Some(0) if errno.0 == libc::EPERM || errno.0 == libc::ENOSYS => Some(
            "kernel.io_uring_disabled is 0, so a seccomp filter forbids it: allow io_uring_setup, \
             io_uring_enter and io_uring_register in the container's profile"
                .to_owned(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_call_names_what_on_what_why_and_what_to_do() {
        let error = Error::os("bind", Errno(libc::EADDRINUSE), "127.0.0.1:6379");
        assert_eq!(
            error.to_string(),
            "bind 127.0.0.1:6379: EADDRINUSE; another process listens there: stop it or choose \
             another address"
        );
        assert_eq!((error.op(), error.kind()), ("bind", Kind::InUse));
        assert_eq!(error.context(), "127.0.0.1:6379");
        assert_eq!(Error::os("recv", Errno(libc::ECONNRESET), "").to_string(), "recv: ECONNRESET");
        assert_eq!(Error::os("recv", Errno(9999), "").to_string(), "recv: errno 9999");
        assert_eq!(format!("{error:?}"), error.to_string(), "`main` prints it so");
    }

    #[test]
    fn a_ring_refused_names_the_sysctl_or_the_filter() {
        let text = |errno, disabled| io_uring_remedy(Errno(errno), disabled);
        assert_eq!(
            text(libc::EPERM, Some(1)).unwrap(),
            "kernel.io_uring_disabled is 1: set it to 0 or run as a member of io_uring_group"
        );
        assert!(text(libc::EPERM, Some(2)).unwrap().contains("is 2: set it to 0, or to 1 and"));
        assert!(text(libc::EPERM, Some(0)).unwrap().contains("seccomp"));
        assert_eq!(text(libc::EPERM, None), None);
        assert_eq!(text(libc::ENOMEM, Some(2)), None);
        let error = Error::io_uring_setup(Errno(libc::EPERM), "");
        assert!(error.to_string().starts_with("io_uring_setup: EPERM; "), "{error}");
        let error = Error::io_uring_setup(Errno(libc::ENOMEM), "shard 3");
        assert!(error.to_string().starts_with("io_uring_setup shard 3: ENOMEM; too little"));
    }

    #[test]
    fn errors_of_the_library_keep_their_number_or_their_text() {
        let missing = std::fs::read("/nonexistent/file").unwrap_err();
        let error = Error::io("open", missing, "/nonexistent/file");
        assert_eq!(error.to_string(), "open /nonexistent/file: ENOENT");
        assert_eq!(error.kind(), Kind::NotFound);
        let error = Error::io("read", io::Error::other("early end"), "a.toml");
        assert_eq!((error.to_string().as_str(), error.errno()), ("read a.toml: early end", None));
        let error = Error::os("write", Errno(libc::ENOSPC), "segment 7");
        assert_eq!(error.kind(), Kind::Full);
        let back = io::Error::from(error);
        assert_eq!(back.kind(), io::ErrorKind::StorageFull);
        assert!(back.to_string().contains("segment 7: ENOSPC; the disk is full"));
    }

    #[test]
    fn our_own_advice_wins() {
        let error = Error::os("bind", Errno(libc::EADDRINUSE), "[::1]:80").remedied("use --cache");
        assert_eq!(error.to_string(), "bind [::1]:80: EADDRINUSE; use --cache");
    }

    #[test]
    fn the_tables_are_well_formed() {
        for (n, row) in ERRNOS.iter().enumerate() {
            assert!(ERRNOS[n + 1..].iter().all(|other| other.0 != row.0), "{} twice", row.1);
            let text = io::Error::from_raw_os_error(row.0).to_string();
            assert!(!text.starts_with("Unknown"), "{}: {text}", row.1);
        }
        for row in REMEDIES {
            assert!(Errno(row.1).name().is_some(), "{} {}", row.0, row.1);
            assert!(!row.2.ends_with('.') && row.2.starts_with(char::is_lowercase), "{}", row.2);
            assert_eq!(table_remedy(row.0, Errno(row.1)), Some(row.2), "{} is shadowed", row.0);
        }
    }
}
