//! The file system over a directory: each operation is judged, and done below, at once or later.
//!
//! Files bypass the page cache (`FOPEN_DIRECT_IO`), so that each call is met as it is made and who writes below is seen; mappings go
//! through it, shared ones from kernel 6.6 on. A call of more than a megabyte comes as several. Locks are the kernel's own, among those who came
//! through the mount. Nothing the kernel is told is kept by it (times of 0), so that what is changed below is found. Next: `data`.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, SeekFrom, XattrFlags, fstat, fstatvfs, getxattr, linkat,
    listxattr, mkdirat, mknodat, openat, readlinkat, removexattr, renameat_with, seek, setxattr,
    symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::data::Write;
use super::host::{Asker, Change, Done, change, give};
use super::inner::{Fate, Inner};
use super::{Effect, Op};

/// Nothing is remembered by the kernel.
const AT_ONCE: Duration = Duration::ZERO;
/// The kernel splits what is longer.
const REQUEST_MAX: u32 = 1 << 20;
/// Requests without a caller that waits for each, such as those of io_uring; the kernel holds back what is more.
const BACKGROUND_MAX: u16 = 1024;
/// Longest value of an attribute (linux/limits.h).
const XATTR_MAX: usize = 65_536;

/// The layer.
pub(super) struct Layer(pub(super) Arc<Inner>);

fn told(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.raw_os_error())
}

/// Replies with what came of it.
macro_rules! reply {
    ($reply:ident, $done:expr, $value:pat => $how:expr) => {
        match $done {
            Ok($value) => $how,
            Err(errno) => $reply.error(told(errno)),
        }
    };
}

impl Layer {
    /// Does an operation, now or when its time has come.
    fn run(
        &self,
        op: Op,
        node: u64,
        name: Option<&OsStr>,
        job: impl FnOnce(&Inner, Fate) + Send + 'static,
    ) {
        let inner = &self.0;
        let (fate, due_ns) = inner.fate(op, || inner.path_of(node, name));
        match due_ns {
            None => job(inner, fate),
            Some(due_ns) => {
                let inner = Arc::clone(inner);
                self.0.later.at(due_ns, move || job(&inner, fate));
            }
        }
    }

    /// Does an operation that makes a name.
    fn make(
        &self,
        op: Op,
        (parent, name): (INodeNo, &OsStr),
        reply: ReplyEntry,
        how: impl FnOnce(&Inner, &OwnedFd, &OsStr) -> Done<()> + Send + 'static,
    ) {
        let (parent, owned) = (parent.0, name.to_owned());
        self.run(op, parent, Some(name), move |inner, fate| {
            let done = fate.allows().and_then(|()| {
                how(inner, &*inner.nodes.fd(parent)?, &owned)?;
                inner.entry(parent, &owned)
            });
            reply!(reply, done, entry => reply.entry(&AT_ONCE, &entry, Generation(0)));
        });
    }

    /// Does an operation on a name that tells nothing but whether it is done.
    fn name(
        &self,
        op: Op,
        (parent, name): (INodeNo, &OsStr),
        reply: ReplyEmpty,
        how: impl FnOnce(&OwnedFd, &OsStr) -> Done<()> + Send + 'static,
    ) {
        let (parent, owned) = (parent.0, name.to_owned());
        self.run(op, parent, Some(name), move |inner, fate| {
            let done = fate.allows().and_then(|()| how(&*inner.nodes.fd(parent)?, &owned));
            reply!(reply, done, () => reply.ok());
        });
    }

    /// Does an operation on a file that tells nothing but whether it is done.
    fn plain(
        &self,
        op: Op,
        node: INodeNo,
        reply: ReplyEmpty,
        how: impl FnOnce(&Inner, Fate) -> Done<()> + Send + 'static,
    ) {
        self.run(op, node.0, None, move |inner, fate| {
            let done = fate.allows().and_then(|()| how(inner, fate));
            reply!(reply, done, () => reply.ok());
        });
    }
}

fn asker(request: &Request) -> Asker {
    Asker { uid: request.uid(), gid: request.gid() }
}

/// A value of an extended attribute, or its length.
fn value(reply: ReplyXattr, size: u32, done: Done<Vec<u8>>) {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    reply!(reply, done, bytes => {
        if size == 0 {
            reply.size(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        } else if bytes.len() > size {
            reply.error(fuser::Errno::ERANGE);
        } else {
            reply.data(&bytes);
        }
    });
}

impl Filesystem for Layer {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // What an older kernel has not is done without.
        for wanted in [
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_AUTO_INVAL_DATA,
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
        ] {
            let _ = config.add_capabilities(wanted);
        }
        let _ = config.set_max_write(REQUEST_MAX);
        let _ = config.set_max_background(BACKGROUND_MAX);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.make(Op::Lookup, (parent, name), reply, |_, _, _| Ok(()));
    }

    fn forget(&self, _: &Request, node: INodeNo, times: u64) {
        self.0.nodes.forget(node.0, times);
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let job = move |inner: &Inner, fate: Fate| {
            let done = fate.allows().and_then(|()| fstat(&*inner.nodes.fd(node.0)?));
            reply!(reply, done, stat => reply.attr(&AT_ONCE, &inner.said(node.0, &stat)));
        };
        // What is said instead is judged where it is said.
        if matches!(self.0.rule.order.effect, Effect::Attributes(_)) {
            return job(&self.0, Fate::Go);
        }
        self.run(Op::Getattr, node.0, None, job);
    }

    fn setattr(
        &self,
        request: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let op = if size.is_some() { Op::Truncate } else { Op::Setattr };
        let (node, handle, pid) = (node.0, handle.map(|handle| handle.0), request.pid());
        self.run(op, node, None, move |inner, fate| {
            let done = fate.allows().and_then(|()| {
                if let Some(len) = size {
                    inner.truncate(node, handle, len, pid, fate)?;
                }
                let (fd, name) = inner.nodes.again(node)?;
                change(&fd, &name, Change { mode, uid, gid, atime, mtime })?;
                fstat(&*fd)
            });
            reply!(reply, done, stat => reply.attr(&AT_ONCE, &inner.said(node, &stat)));
        });
    }

    fn readlink(&self, _: &Request, node: INodeNo, reply: ReplyData) {
        self.run(Op::Readlink, node.0, None, move |inner, fate| {
            let done =
                fate.allows().and_then(|()| readlinkat(&*inner.nodes.fd(node.0)?, "", Vec::new()));
            reply!(reply, done, target => reply.data(target.as_bytes()));
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        let asker = asker(request);
        self.make(Op::Mknod, (parent, name), reply, move |_, dir, name| {
            let kind = FileType::from_raw_mode(mode);
            mknodat(dir, name, kind, Mode::from_raw_mode(mode), u64::from(device))?;
            give(dir, name, asker)
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let asker = asker(request);
        self.make(Op::Mkdir, (parent, name), reply, move |_, dir, name| {
            mkdirat(dir, name, Mode::from_raw_mode(mode))?;
            give(dir, name, asker)
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.name(Op::Unlink, (parent, name), reply, |dir, name| {
            unlinkat(dir, name, AtFlags::empty())
        });
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.name(Op::Rmdir, (parent, name), reply, |dir, name| {
            unlinkat(dir, name, AtFlags::REMOVEDIR)
        });
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let (asker, target) = (asker(request), target.to_owned());
        self.make(Op::Symlink, (parent, name), reply, move |_, dir, name| {
            symlinkat(&*target, dir, name)?;
            give(dir, name, asker)
        });
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (name, owned) = (name.to_owned(), new_name.to_owned());
        // It is known by what it becomes.
        self.run(Op::Rename, new_parent.0, Some(new_name), move |inner, fate| {
            let done = fate.allows().and_then(|()| {
                let (from, to) = (inner.nodes.fd(parent.0)?, inner.nodes.fd(new_parent.0)?);
                let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
                renameat_with(&*from, &*name, &*to, &*owned, flags)
            });
            reply!(reply, done, () => reply.ok());
        });
    }

    fn link(&self, _: &Request, node: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.make(Op::Link, (parent, name), reply, move |inner, dir, name| {
            let (_fd, old) = inner.nodes.again(node.0)?;
            linkat(CWD, &*old, dir, name, AtFlags::SYMLINK_FOLLOW)
        });
    }

    fn open(&self, _: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.run(Op::Open, node.0, None, move |inner, fate| {
            let done = fate.allows().and_then(|()| inner.open(node.0, flags.0));
            reply!(reply, done, handle => reply.opened(FileHandle(handle), OPENED));
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (asker, parent, owned): (_, _, OsString) = (asker(request), parent.0, name.to_owned());
        self.run(Op::Create, parent, Some(name), move |inner, fate| {
            let done =
                fate.allows().and_then(|()| inner.create(parent, &owned, mode, flags, asker));
            reply!(reply, done, (entry, handle) =>
                reply.created(&AT_ONCE, &entry, Generation(0), FileHandle(handle), OPENED));
        });
    }

    fn read(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        at: u64,
        len: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.run(Op::Read, node.0, None, move |inner, fate| {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            reply!(reply, inner.read(handle.0, at, len, fate), bytes => reply.data(&bytes));
        });
    }

    fn write(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        at: u64,
        bytes: &[u8],
        flags: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let write = Write {
            handle: handle.0,
            at,
            pid: request.pid(),
            is_cached: flags.contains(WriteFlags::FUSE_WRITE_CACHE),
            kills_suid: flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
        };
        let inner = &self.0;
        let (fate, due_ns) = inner.fate(Op::Write, || inner.path_of(node.0, None));
        let Some(due_ns) = due_ns else {
            return reply!(reply, inner.write(&write, bytes, fate), done => reply.written(done));
        };
        let (inner, bytes) = (Arc::clone(inner), bytes.to_vec());
        self.0.later.at(due_ns, move || {
            reply!(reply, inner.write(&write, &bytes, fate), done => reply.written(done));
        });
    }

    fn flush(
        &self,
        request: &Request,
        node: INodeNo,
        _: FileHandle,
        _: LockOwner,
        reply: ReplyEmpty,
    ) {
        let pid = request.pid();
        self.plain(Op::Flush, node, reply, move |inner, _| {
            inner.closed_by(pid);
            Ok(())
        });
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.nodes.close(handle.0);
        reply.ok();
    }

    fn fsync(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        only_data: bool,
        reply: ReplyEmpty,
    ) {
        self.plain(Op::Fsync, node, reply, move |inner, fate| {
            inner.sync(handle.0, only_data, fate)
        });
    }

    fn opendir(&self, _: &Request, node: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(self.0.nodes.keep_dir(node.0)), FopenFlags::empty());
    }

    fn readdir(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let job = move |inner: &Inner, fate: Fate| {
            let done = fate.allows().and_then(|()| inner.nodes.entries(handle.0, offset == 0));
            let entries = match done {
                Ok(entries) => entries,
                Err(errno) => return reply.error(told(errno)),
            };
            for (next, (number, kind, name)) in
                (1..).zip(&*entries).skip(usize::try_from(offset).unwrap_or(0))
            {
                if reply.add(INodeNo(*number), next, *kind, name) {
                    break;
                }
            }
            reply.ok();
        };
        // It is one operation, however often the kernel asks for more.
        if offset > 0 {
            return job(&self.0, Fate::Go);
        }
        self.run(Op::Readdir, node.0, None, job);
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.0.nodes.close_dir(handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, node: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        self.plain(Op::FsyncDir, node, reply, move |inner, _| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir = inner.nodes.fd(inner.nodes.dir(handle.0)?)?;
            rustix::fs::fsync(openat(&*dir, ".", flags, Mode::empty())?)
        });
    }

    fn statfs(&self, _: &Request, node: INodeNo, reply: ReplyStatfs) {
        self.run(Op::Statfs, node.0, None, move |inner, fate| {
            let done = fate.allows().and_then(|()| fstatvfs(&*inner.nodes.fd(node.0)?));
            let low = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
            reply!(reply, done, of => reply.statfs(
                of.f_blocks, of.f_bfree, of.f_bavail, of.f_files, of.f_ffree,
                low(of.f_bsize), low(of.f_namemax), low(of.f_frsize)));
        });
    }

    fn setxattr(
        &self,
        _: &Request,
        node: INodeNo,
        name: &OsStr,
        bytes: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let (name, bytes) = (name.to_owned(), bytes.to_vec());
        self.plain(Op::Xattr, node, reply, move |inner, _| {
            let (_fd, file) = inner.nodes.again(node.0)?;
            setxattr(&*file, &*name, &bytes, XattrFlags::from_bits_retain(flags.cast_unsigned()))
        });
    }

    fn getxattr(&self, _: &Request, node: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let name = name.to_owned();
        self.run(Op::Xattr, node.0, None, move |inner, fate| {
            let done = fate.allows().and_then(|()| {
                let (_fd, file) = inner.nodes.again(node.0)?;
                let mut bytes = vec![0; XATTR_MAX];
                let len = getxattr(&*file, &*name, &mut bytes[..])?;
                bytes.truncate(len);
                Ok(bytes)
            });
            value(reply, size, done);
        });
    }

    fn listxattr(&self, _: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        self.run(Op::Xattr, node.0, None, move |inner, fate| {
            let done = fate.allows().and_then(|()| {
                let (_fd, file) = inner.nodes.again(node.0)?;
                let mut bytes = vec![0; XATTR_MAX];
                let len = listxattr(&*file, &mut bytes[..])?;
                bytes.truncate(len);
                Ok(bytes)
            });
            value(reply, size, done);
        });
    }

    fn removexattr(&self, _: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.plain(Op::Xattr, node, reply, move |inner, _| {
            let (_fd, file) = inner.nodes.again(node.0)?;
            removexattr(&*file, &*name)
        });
    }

    fn fallocate(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        at: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let pid = request.pid();
        self.plain(Op::Fallocate, node, reply, move |inner, fate| {
            inner.allocate(handle.0, (at, len), mode, pid, fate)
        });
    }

    fn lseek(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        // The kernel does the rest itself.
        let sought = self.0.nodes.open(handle.0).and_then(|open| {
            let offset = offset.unsigned_abs();
            let to = match whence {
                libc::SEEK_DATA => SeekFrom::Data(offset),
                libc::SEEK_HOLE => SeekFrom::Hole(offset),
                _ => return Err(Errno::INVAL),
            };
            seek(&open.file, to)
        });
        reply!(reply, sought, at => reply.offset(i64::try_from(at).unwrap_or(i64::MAX)));
    }
}

/// How files are opened.
const OPENED: FopenFlags =
    FopenFlags::FOPEN_DIRECT_IO.union(FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);
