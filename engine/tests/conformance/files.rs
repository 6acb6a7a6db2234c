//! Files.

use std::io::IoSlice;
use std::path::Path;

use engine::buf::DirectBuf;
use engine::driver::{Errno, Fd, Op, OpenOptions};

use crate::arm::{Arm, direct, pattern};

const EAGAIN: Errno = Errno(libc::EAGAIN);

fn writable() -> OpenOptions {
    OpenOptions { write: true, create: true, ..OpenOptions::default() }
}

fn write_all(arm: &mut Arm, fd: Fd, bytes: &[u8], at: u64, durable: bool) {
    let mut done = 0;
    while done < bytes.len() {
        let rest = &bytes[done..];
        let mut buf = DirectBuf::zeroed(rest.len());
        buf[..rest.len()].copy_from_slice(rest);
        let offset = at + done as u64;
        let write = arm.run(Op::Write { fd, buf, len: rest.len(), offset, durable });
        done += write.result.expect("a disk with room") as usize;
        assert!(direct(write.payload).starts_with(&bytes[bytes.len() - rest.len()..]));
    }
}

fn read_all(arm: &mut Arm, fd: Fd, offset: u64, len: usize) -> Vec<u8> {
    let mut read = Vec::new();
    while read.len() < len {
        let at = offset + read.len() as u64;
        let buf = DirectBuf::zeroed(len);
        let completion =
            arm.run(Op::Read { fd, buf, len: len - read.len(), offset: at, uncached: false });
        let more = completion.result.expect("a readable file") as usize;
        if more == 0 {
            break;
        }
        read.extend_from_slice(&direct(completion.payload)[..more]);
    }
    read
}

fn what_was_written_is_read(arm: &mut Arm) {
    let directory = arm.directory();
    let path = directory.join("file");
    let fd = arm.driver.open(&path, &writable()).expect("a new file");
    assert_eq!(arm.driver.file_len(fd).expect("a file"), 0);
    write_all(arm, fd, &pattern(0, 10_000), 0, true);
    write_all(arm, fd, &pattern(5, 100), 20_000, false);
    assert_eq!(arm.driver.file_len(fd).expect("a file"), 20_100);
    assert_eq!(arm.run(Op::Fsync { fd, data_only: true }).result, Ok(0));
    assert_eq!(arm.run(Op::Fsync { fd, data_only: false }).result, Ok(0));
    assert_eq!(read_all(arm, fd, 100, 9_900), pattern(100, 9_900));
    assert_eq!(read_all(arm, fd, 10_000, 10_000), vec![0; 10_000], "a hole");
    assert_eq!(read_all(arm, fd, 20_050, 4096), pattern(55, 50), "up to the end");
    assert_eq!(read_all(arm, fd, 90_000, 4096), b"", "past the end");
    arm.driver.truncate(fd, 50).expect("an open file");
    assert_eq!(read_all(arm, fd, 0, 4096), pattern(0, 50));
    arm.driver.truncate(fd, 60).expect("an open file");
    assert_eq!(read_all(arm, fd, 50, 4096), [0; 10]);
    assert_eq!(arm.run(Op::Close { fd }).result, Ok(0));
    arm.remove(&directory);
}

fn direct_writes_are_whole_pages(arm: &mut Arm) {
    let directory = arm.directory();
    let options = OpenOptions { direct: true, ..writable() };
    let fd = arm.driver.open(&directory.join("log"), &options).expect("a new file");
    let sent = pattern(0, 16 * 4096);
    // Short direct writes end at a sector, not at a page: written again from the last page on.
    let mut done = 0;
    while done < sent.len() {
        let mut buf = DirectBuf::zeroed(sent.len() - done);
        buf.copy_from_slice(&sent[done..]);
        let (len, offset) = (buf.len(), done as u64);
        let write = arm.run(Op::Write { fd, buf, len, offset, durable: true });
        done += write.result.expect("room") as usize / 4096 * 4096;
    }
    let buf = DirectBuf::zeroed(4096);
    let crooked = arm.run(Op::Write { fd, buf, len: 100, offset: 0, durable: true });
    assert_eq!(crooked.result, Err(Errno(libc::EINVAL)));
    let buf = DirectBuf::zeroed(4096);
    let crooked = arm.run(Op::Read { fd, buf, len: 4096, offset: 7, uncached: false });
    assert_eq!(crooked.result, Err(Errno(libc::EINVAL)));
    let plain = OpenOptions::default();
    let reader = arm.driver.open(&directory.join("log"), &plain).expect("it exists");
    assert_eq!(read_all(arm, reader, 0, sent.len()), sent);
    arm.driver.close_now(reader);
    arm.driver.close_now(fd);
    arm.remove(&directory);
}

fn names_change_at_once(arm: &mut Arm) {
    let directory = arm.directory();
    arm.driver.make_dir(&directory.join("deep/er")).expect("with parents");
    arm.driver.make_dir(&directory.join("deep/er")).expect("twice is fine");
    for name in ["b", "a", "c"] {
        let fd = arm.driver.open(&directory.join(name), &writable()).expect("a new file");
        write_all(arm, fd, name.as_bytes(), 0, false);
        arm.driver.close_now(fd);
    }
    let list = |arm: &mut Arm| arm.driver.list_dir(&directory).expect("a directory");
    assert_eq!(list(arm), ["a", "b", "c", "deep"]);
    arm.driver.rename(&directory.join("a"), &directory.join("b")).expect("replaces");
    arm.driver.unlink(&directory.join("c")).expect("it exists");
    assert_eq!(list(arm), ["b", "deep"]);
    let fd = arm.driver.open(&directory.join("b"), &OpenOptions::default()).expect("it exists");
    assert_eq!(read_all(arm, fd, 0, 10), b"a");
    // A removed file stays readable while it is open.
    arm.driver.unlink(&directory.join("b")).expect("it exists");
    assert_eq!(read_all(arm, fd, 0, 10), b"a");
    arm.driver.close_now(fd);
    let options = OpenOptions { directory: true, ..OpenOptions::default() };
    let fd = arm.driver.open(&directory, &options).expect("a directory");
    assert_eq!(arm.run(Op::Fsync { fd, data_only: false }).result, Ok(0));
    arm.driver.close_now(fd);
    arm.remove(&directory);
}

fn errors_say_what_is_wrong(arm: &mut Arm) {
    let directory = arm.directory();
    let plain = OpenOptions::default();
    let missing = directory.join("missing");
    let path: &Path = &missing;
    let says = |error: engine::error::Error, name: &str| {
        assert!(error.to_string().contains(name), "{error}");
    };
    says(arm.driver.open(path, &plain).expect_err("missing"), "ENOENT");
    says(arm.driver.unlink(path).expect_err("missing"), "ENOENT");
    says(arm.driver.rename(path, &directory.join("x")).expect_err("missing"), "ENOENT");
    says(arm.driver.list_dir(path).expect_err("missing"), "ENOENT");
    let options = OpenOptions { write: true, ..plain.clone() };
    says(arm.driver.open(&directory, &options).expect_err("a directory"), "EISDIR");
    let fd = arm.driver.open(&directory.join("file"), &writable()).expect("a new file");
    arm.driver.close_now(fd);
    let options = OpenOptions { directory: true, ..plain.clone() };
    says(arm.driver.open(&directory.join("file"), &options).expect_err("a file"), "ENOTDIR");
    says(arm.driver.unlink(&directory).expect_err("a directory"), "EISDIR");
    let fd = arm.driver.open(&directory.join("file"), &plain).expect("it exists");
    let buf = DirectBuf::zeroed(10);
    let write = arm.run(Op::Write { fd, buf, len: 10, offset: 0, durable: false });
    assert_eq!(write.result, Err(Errno(libc::EBADF)), "opened for reading");
    let recv = arm.run(Op::RecvMulti { fd });
    assert_eq!(recv.result, Err(Errno(libc::ENOTSOCK)));
    arm.driver.close_now(fd);
    arm.remove(&directory);
}

fn cached_ranges_are_read_at_once(arm: &mut Arm) {
    let directory = arm.directory();
    let fd = arm.driver.open(&directory.join("file"), &writable()).expect("a new file");
    write_all(arm, fd, &pattern(0, 8192), 0, false);
    if let Some(cached) = arm.driver.cached_bytes(fd, 0, 8192) {
        assert!(cached <= 8192);
    }
    let mut buf = [0; 4096];
    let mut read = |offset, buf: &mut [u8]| loop {
        match arm.driver.read_now(fd, buf, offset) {
            Err(EAGAIN) => {}
            read => return read.expect("just written"),
        }
    };
    let len = read(4096, &mut buf);
    assert!(len > 0);
    assert_eq!(buf[..len], pattern(4096, len));
    assert_eq!(read(8192, &mut buf), 0, "the end");
    // The same, cached or not.
    let len = arm.driver.read_waiting(fd, &mut buf, 4096).expect("just written");
    assert!(len > 0);
    assert_eq!(buf[..len], pattern(4096, len));
    assert_eq!(arm.driver.read_waiting(fd, &mut buf, 8192), Ok(0), "the end");
    arm.driver.close_now(fd);
    arm.remove(&directory);
}

fn parts_are_written_at_once_and_durable_after_a_sync(arm: &mut Arm) {
    let directory = arm.directory();
    let path = directory.join("file");
    let fd = arm.driver.open(&path, &writable()).expect("a new file");
    let whole = pattern(0, 9_000);
    let mut done = 0;
    while done < whole.len() {
        let (head, body) = whole[done..].split_at((whole.len() - done).min(16));
        let parts = [IoSlice::new(head), IoSlice::new(&[]), IoSlice::new(body)];
        done += arm.driver.write_now(fd, &parts, done as u64).expect("a disk with room");
    }
    assert_eq!(arm.driver.file_len(fd).expect("a file"), 9_000);
    assert_eq!(read_all(arm, fd, 0, 9_000), whole);
    assert_eq!(arm.run(Op::Fsync { fd, data_only: true }).result, Ok(0));
    arm.driver.close_now(fd);
    let read_only = arm.driver.open(&path, &OpenOptions::default()).expect("the file");
    let refused = arm.driver.write_now(read_only, &[IoSlice::new(b"x")], 0);
    assert_eq!(refused, Err(Errno(libc::EBADF)));
    arm.driver.close_now(read_only);
    arm.remove(&directory);
}

fn sendfile_stops_at_a_full_socket_and_goes_on_when_writable(arm: &mut Arm) {
    let len = arm.large();
    let directory = arm.directory();
    let fd = arm.driver.open(&directory.join("file"), &writable()).expect("a new file");
    write_all(arm, fd, &pattern(0, len), 0, false);
    let pair = arm.connect();
    let (mut sent, mut received, mut full) = (0, 0, 0);
    let (mut recv, _) = arm.submit(Op::RecvMulti { fd: pair.server });
    while sent < len {
        match arm.driver.sendfile(pair.client, fd, sent as u64, len - sent) {
            Ok(more) => {
                assert!(more > 0, "before the end");
                sent += more;
            }
            Err(errno) => {
                assert_eq!(errno, EAGAIN);
                full += 1;
                let (poll, _) = arm.submit(Op::PollOut { fd: pair.client });
                while arm.take(poll).is_none() {
                    arm.pump();
                    arm.receive_pattern(pair.server, &mut recv, &mut received);
                }
            }
        }
    }
    assert!(full > 0, "{len} bytes do not fit a socket");
    while received < len {
        arm.pump();
        arm.receive_pattern(pair.server, &mut recv, &mut received);
    }
    assert_eq!(arm.driver.sendfile(pair.client, fd, len as u64, 10), Ok(0), "the end");
    arm.driver.close_now(pair.client);
    assert_eq!(arm.wait(recv).result, Ok(0));
    arm.driver.close_now(pair.server);
    arm.driver.close_now(fd);
    arm.remove(&directory);
}

crate::conformance!(
    what_was_written_is_read,
    direct_writes_are_whole_pages,
    names_change_at_once,
    errors_say_what_is_wrong,
    cached_ranges_are_read_at_once,
    parts_are_written_at_once_and_durable_after_a_sync,
    sendfile_stops_at_a_full_socket_and_goes_on_when_writable,
);
