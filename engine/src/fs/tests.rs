//! Files over a ring and in a simulated world with short transfers and cold caches.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::testing::{TempDir, in_world, on_ring};
use super::{AppendFile, Caching, Dir, File};
use crate::buf::DirectBuf;
use crate::driver::sim::{Faults, World};
use crate::driver::{ListenOptions, OpenOptions};
use crate::net::stream::{Stream, serve};
use crate::shard::ShardCx;

const NEW: OpenOptions = OpenOptions { write: true, create: true, direct: false, directory: false };

fn pattern(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

async fn patterned(cx: &ShardCx, path: &Path, len: usize) -> File {
    let file = File::open(cx, path, &NEW).expect("a free name");
    let mut buf = DirectBuf::zeroed(len);
    for (at, byte) in buf.iter_mut().enumerate() {
        *byte = pattern(at as u64);
    }
    file.write_at(buf, len, 0).await.expect("room");
    file.sync().await.expect("a working disk");
    file
}

/// Runs a test on a ring, and in twenty rough worlds.
fn on_both<F: Future<Output = ()> + 'static>(name: &str, test: impl Fn(ShardCx, PathBuf) -> F) {
    let dir = TempDir::new(name);
    on_ring(|cx| test(cx, dir.path().to_owned()));
    for seed in 0..20 {
        let world = World::new(seed, Faults { reset: 0.0, ..Faults::rough() });
        let ended = in_world(&world, u64::MAX, |cx| {
            cx.driver().make_dir(Path::new("/d")).expect("room");
            test(cx, PathBuf::from("/d"))
        });
        assert!(ended);
    }
}

#[test]
fn reads_and_writes_are_whole_whatever_the_kernel_does() {
    on_both("file-rw", |cx, dir| async move {
        let len = 300_000;
        let file = patterned(&cx, &dir.join("f"), len).await;
        assert_eq!(file.len().expect("open"), len as u64);
        let mut buf = DirectBuf::zeroed(65_536);
        for caching in [Caching::Keep, Caching::Drop] {
            for (offset, want, there) in [
                (0, 65_536, 65_536),
                (12_345, 10_001, 10_001),
                (299_000, 5000, 1000),
                (300_000, 10, 0),
            ] {
                let (back, read) =
                    file.read_at(buf, want, offset, caching).await.expect("readable");
                buf = back;
                assert_eq!(read, there);
                let right = |(at, byte): (usize, &u8)| *byte == pattern(offset + at as u64);
                assert!(buf[..read].iter().enumerate().all(right), "{offset} {want}");
            }
        }
        file.truncate(100).expect("writable");
        assert_eq!(file.len().expect("open"), 100);
        assert!(File::open(&cx, &dir.join("g"), &OpenOptions::default()).is_err());
    });
}

#[test]
fn many_reads_each_arrive_once() {
    on_both("file-many", |cx, dir| async move {
        let file = patterned(&cx, &dir.join("f"), 1 << 20).await;
        let places: Vec<(u64, usize)> =
            (0..200).map(|n| ((n * 77_777) % (1 << 20), 1 + (n as usize * 31) % 4096)).collect();
        let mut seen = vec![0; places.len()];
        let arrived = file.read_many(&places, |index, bytes| {
            let (offset, len) = places[index];
            assert_eq!(bytes.len(), len.min((1 << 20) - offset as usize));
            assert!(
                bytes.iter().enumerate().all(|(at, byte)| *byte == pattern(offset + at as u64))
            );
            seen[index] += 1;
        });
        arrived.await.expect("readable");
        assert!(seen.iter().all(|&times| times == 1));
        file.read_many(&[], |_, _| unreachable!("nothing was asked for")).await.expect("nothing");
    });
}

#[test]
fn an_append_file_grows_in_order_and_tells_how_far_it_can_be_read() {
    on_both("file-append", |cx, dir| async move {
        let path = dir.join("a");
        let mut expected = Vec::new();
        for _ in 0..2 {
            let file = AppendFile::open(&cx, &path).expect("a directory");
            for n in 0..40_usize {
                let data = vec![n as u8; n * 1000 + if n == 20 { 700_000 } else { 0 }];
                let start = file.append(&data).await.expect("room");
                assert_eq!(start, expected.len() as u64);
                expected.extend_from_slice(&data);
            }
            let end = file.sync().await.expect("a working disk");
            assert_eq!((end, file.readable()), (expected.len() as u64, end));
        }
        let file = File::open(&cx, &path, &OpenOptions::default()).expect("it is there");
        let buf = DirectBuf::zeroed(expected.len());
        let len = expected.len();
        let (buf, read) = file.read_at(buf, len, 0, Caching::Keep).await.expect("readable");
        assert!(read == len && buf[..len] == expected[..]);
    });
}

#[test]
fn appends_of_two_tasks_do_not_mix() {
    on_both("file-append-two", |cx, dir| async move {
        let path = dir.join("a");
        let file = Rc::new(AppendFile::open(&cx, &path).expect("a directory"));
        let left = Rc::new(std::cell::Cell::new(2));
        for n in 0..2_u8 {
            let (file, left) = (Rc::clone(&file), Rc::clone(&left));
            cx.spawn("append", async move {
                file.append(&vec![n; 1_000_000]).await.expect("room");
                left.set(left.get() - 1);
            });
        }
        while left.get() > 0 {
            cx.sleep(100_000).await;
        }
        file.flush().await.expect("room");
        let file = File::open(&cx, &path, &OpenOptions::default()).expect("it is there");
        let buf = DirectBuf::zeroed(2_000_000);
        let (buf, read) = file.read_at(buf, 2_000_000, 0, Caching::Keep).await.expect("readable");
        assert_eq!(read, 2_000_000);
        assert!(buf[..1_000_000].iter().all(|&byte| byte == buf[0]));
        assert!(buf[1_000_000..2_000_000].iter().all(|&byte| byte == 1 - buf[0]));
    });
}

#[test]
fn directories_list_rename_and_remove() {
    on_both("dir", |cx, dir| async move {
        let dir = Dir::open(&cx, &dir.join("x/y")).await.expect("a new directory");
        for name in ["b", "a"] {
            drop(File::open(&cx, &dir.path().join(name), &NEW).expect("a free name"));
        }
        dir.sync().await.expect("a working disk");
        assert_eq!(dir.list().expect("there"), ["a", "b"]);
        dir.rename("a", "c").expect("it is there");
        dir.remove("b").expect("it is there");
        dir.sync().await.expect("a working disk");
        assert_eq!(dir.list().expect("there"), ["c"]);
    });
}

/// Sends ranges of a file over a connection of the shard with itself.
async fn send_ranges(cx: ShardCx, dir: PathBuf, port: u16) {
    let len = 1_500_000_u64;
    let file = Rc::new(patterned(&cx, &dir.join("f"), 1_500_000).await);
    let ranges =
        [(0, len), (1, 10), (700_001, 600_000), (1_499_000, 5000), (len, 100), (len + 5, 1)];
    let addr = format!("127.0.0.1:{port}").parse().expect("an address");
    let (shard, served) = (cx.clone(), Rc::clone(&file));
    serve(&cx, addr, &ListenOptions::default(), 4, move |stream: Stream| {
        let (file, _shard) = (Rc::clone(&served), shard.clone());
        async move {
            for (offset, wanted) in ranges {
                let there = len.saturating_sub(offset).min(wanted);
                let sent = stream.send_file(file.fd(), offset, wanted, 100_000).await;
                assert_eq!(sent, Ok(there), "{offset} {wanted}");
            }
            stream.shutdown_write().await;
            // Until the peer is gone.
            while let Ok(Some(_)) = stream.receive().await {}
        }
    })
    .expect("a free port");
    let stream = Stream::connect(&cx, addr).await.expect("somebody listens");
    let expected = ranges.iter().flat_map(|&(offset, wanted)| offset..(offset + wanted).min(len));
    let mut expected = expected.map(pattern);
    while let Some(lease) = stream.receive().await.expect("a working network") {
        for &byte in lease.iter() {
            assert_eq!(expected.next(), Some(byte));
        }
    }
    assert_eq!(expected.next(), None);
}

#[test]
fn ranges_of_a_file_arrive_whole_from_warm_and_cold_caches() {
    on_both("send", |cx, dir| send_ranges(cx, dir, 19_371));
}

#[test]
fn a_range_that_was_dropped_from_the_cache_is_read_ahead_and_sent() {
    let dir = TempDir::new("send-cold");
    let path = dir.path().to_owned();
    on_ring(|cx| async move {
        let len = 4 << 20;
        let file = Rc::new(patterned(&cx, &path.join("f"), len).await);
        let reader = std::fs::File::open(path.join("f")).expect("made above");
        rustix::fs::fadvise(&reader, 0, None, rustix::fs::Advice::DontNeed).expect("advice");
        let cached = cx.driver().cached_bytes(file.fd(), 0, len as u64);
        assert!(cached.is_none_or(|cached| cached < len as u64 / 2), "{cached:?} cached");
        let addr = "127.0.0.1:19372".parse().expect("an address");
        let served = Rc::clone(&file);
        serve(&cx, addr, &ListenOptions::default(), 1, move |stream: Stream| {
            let file = Rc::clone(&served);
            async move {
                let sent = stream.send_file(file.fd(), 0, len as u64, 256 << 10).await;
                assert_eq!(sent, Ok(len as u64));
            }
        })
        .expect("a free port");
        let stream = Stream::connect(&cx, addr).await.expect("somebody listens");
        let mut at = 0;
        while let Some(lease) = stream.receive().await.expect("a working network") {
            assert!(lease.iter().enumerate().all(|(n, byte)| *byte == pattern(at + n as u64)));
            at += lease.len() as u64;
        }
        assert_eq!(at, len as u64);
        // What was read for it leaves again when that is wanted; `None` where the kernel cannot tell.
        let cached = |cx: &ShardCx| cx.driver().cached_bytes(file.fd(), 0, len as u64);
        assert!(cached(&cx).is_none_or(|cached| cached >= len as u64 / 2));
        file.drop_cached(0, 0);
        assert!(cached(&cx).is_none_or(|cached| cached >= len as u64 / 2), "nothing is not all");
        file.drop_cached(0, len as u64);
        assert!(cached(&cx).is_none_or(|cached| cached < len as u64 / 2));
    });
}

#[test]
fn a_range_is_read_ahead_whole_and_says_whether_it_was_cold() {
    let dir = TempDir::new("read-ahead");
    let path = dir.path().to_owned();
    on_ring(|cx| async move {
        let len = 3_u64 << 20;
        let file = patterned(&cx, &path.join("f"), len as usize).await;
        let cached = |from: u64, len: u64| cx.driver().cached_bytes(file.fd(), from, len);
        file.drop_cached(0, len);
        let (from, half) = (len / 4, len / 2);
        assert!(file.read_ahead(from, half).await.expect("readable"));
        assert!(cached(from, half).is_none_or(|there| there >= half));
        assert!(cached(0, len).is_none_or(|there| there < len), "no more than was asked for");
        // Where the kernel cannot tell, everything counts as cold.
        let again = file.read_ahead(from, half).await.expect("readable");
        assert!(!again || cached(from, half).is_none());
        file.read_ahead(len - 10, 1000).await.expect("no further than the file");
        assert!(!file.read_ahead(len, 10).await.expect("nothing"));

        let file = Rc::new(file);
        let mut cold = crate::net::Cold::new(Rc::clone(&file), 100, 100);
        assert!(cold.take_sent(&file, 0, 100).is_none(), "before it");
        assert!(cold.take_sent(&file, 120, 30).is_some() && !cold.is_empty());
        assert!(cold.take_sent(&file, 120, 30).is_none(), "taken");
        assert!(cold.take_sent(&file, 150, 1000).is_some() && cold.is_empty());
    });
    on_both("read-ahead-rough", |cx, dir| async move {
        let file = patterned(&cx, &dir.join("f"), 700_000).await;
        file.read_ahead(1000, 1 << 30).await.expect("readable");
    });
}
