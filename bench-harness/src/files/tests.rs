//! The load on real files, and on the simulated disk, whose speed is known.

use std::io::IoSlice;

use engine::driver::sim::{Faults, SimDriver, World};

use super::*;
use crate::clock::{MILLISECOND_NS, SECOND_NS};

/// A directory of its own, removed on drop.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bench-files-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a writable directory");
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // It is a directory for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn options(path: &Path) -> Options {
    Options {
        path: path.to_owned(),
        overwrite: false,
        size_bytes: 1 << 20,
        block_bytes: 4096,
        depth: 8,
        order: Order::Random,
        direct: false,
        cached_first: false,
        read_share: 0.5,
        rate: None,
        constant: true,
        warmup_ns: 5 * MILLISECOND_NS,
        duration_ns: 60 * MILLISECOND_NS,
        cpu: 0,
        client_cpu: 0,
        seed: 9,
    }
}

#[test]
fn everything_can_be_done_and_every_block_is_right() {
    let dir = Dir::new("all");
    for what in What::ALL {
        for (block_bytes, order) in [(4096, Order::Random), (65_536, Order::Sequential)] {
            let cached_first = block_bytes == 65_536;
            let options = Options { block_bytes, order, cached_first, ..options(&dir.0) };
            let measured = run(what, &options, &mut |_| {}).expect("a temporary file");
            assert_eq!((measured.wrong, &measured.first_wrong), (0, &None), "{what:?}");
            assert!(measured.records > 0 && measured.latency.p50_ns > 0, "{measured:?}");
            assert!(what == What::Read || measured.checked_blocks > 0, "{measured:?}");
        }
    }
    assert_eq!(fs::read_dir(&dir.0).expect("it is there").count(), 0, "files stay");
}

/// A file of good blocks, but for one byte of block 5.
fn corrupted(dir: &Dir, options: &Options) -> PathBuf {
    let path = dir.0.join("corrupted");
    Target { path: path.clone(), made: false }.fill(options, false).expect("a temporary file");
    let file = File::options().read(true).write(true).open(&path).expect("it is there");
    let mut byte = [0];
    let at = 5 * options.block_bytes as u64 + 1000;
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 1], at).expect("write");
    path
}

#[test]
fn a_corrupted_block_is_found() {
    let dir = Dir::new("corrupted");
    let options = Options { order: Order::Sequential, ..options(&dir.0) };
    let path = corrupted(&dir, &options);
    for what in [What::Read, What::Sendfile, What::Splice] {
        let measured = on_file(what, &options, &path, &mut |_| {}).expect("it can be read");
        let first = measured.first_wrong.unwrap_or_default();
        assert!(measured.wrong > 0 && first.contains("block 5: its bytes"), "{what:?}: {first}");
    }
}

#[test]
fn a_write_that_was_lost_is_found() {
    let dir = Dir::new("lost");
    let options = options(&dir.0);
    let path = dir.0.join("lost");
    Target { path: path.clone(), made: false }.fill(&options, false).expect("a temporary file");
    let mut versions = vec![1; 256];
    versions[7] = 2;
    let nothing = Tally::new().expect("a histogram");
    let mut measured = Measured::new(What::Write, &options, &nothing, 0);
    verify(&path, &options, &versions, &mut measured).expect("it can be read");
    assert_eq!((measured.checked_blocks, measured.wrong), (256, 1));
    let first = measured.first_wrong.unwrap_or_default();
    assert_eq!(first, "read again: block 7: version 1 instead of 2");
}

/// Runs on a disk on which every operation takes `disk_ns`.
fn in_simulation(what: What, options: &Options, disk_ns: u64) -> Tally {
    let mut faults = Faults::none();
    faults.limits.disk_latency_ns = disk_ns;
    let world = World::new(1, faults);
    let mut driver = Driver::Sim(Box::new(SimDriver::new(&world, 0, &Setup::default())));
    driver.make_dir(Path::new("/")).expect("a root");
    let open = OpenOptions { write: true, create: true, ..OpenOptions::default() };
    let file = driver.open(Path::new("/file"), &open).expect("an empty disk");
    let mut block = vec![0; options.block_bytes];
    for number in 0..options.blocks() {
        Pattern::new(options.seed).fill(&mut block, number, 1);
        let offset = number * options.block_bytes as u64;
        let written = driver.write_now(file, &[IoSlice::new(&block)], offset);
        assert_eq!(written, Ok(options.block_bytes));
    }
    let kind = if what == What::Append { Kind::Append } else { Kind::Mix(1.0) };
    let mut blocks = Blocks::new(&mut driver, file, kind, options.layout());
    let tally = measure(&mut driver, &mut blocks, options, &mut |_| {}).expect("a perfect disk");
    blocks.close(&mut driver);
    tally
}

#[test]
fn an_operation_that_was_delayed_counts_from_its_intended_time() {
    let slow = Options {
        depth: 1,
        rate: Some(1_000.0),
        warmup_ns: 0,
        duration_ns: SECOND_NS,
        ..options(Path::new("/file"))
    };
    // One at a time at 10 ms each is a hundred a second, and a thousand are meant to start.
    let open = in_simulation(What::Read, &slow, 10 * MILLISECOND_NS);
    assert!((95..=100).contains(&open.records), "{}", open.records);
    // The hundredth was meant to start at 100 ms and ended at 1,000.
    let (p50, last) = (open.latency.value_at_quantile(0.5), open.latency.max());
    assert!((400..520).contains(&(p50 / MILLISECOND_NS)), "{p50}");
    assert!((850..920).contains(&(last / MILLISECOND_NS)), "{last}");
    assert!((895..=906).contains(&open.behind), "{}", open.behind);
    // A closed loop, which waits before it asks again, hides that.
    let closed = in_simulation(What::Read, &Options { rate: None, ..slow }, 10 * MILLISECOND_NS);
    assert!(closed.latency.max() < 11 * MILLISECOND_NS, "{}", closed.latency.max());
    assert_eq!(closed.behind, 0);
}

#[test]
fn a_disk_that_keeps_up_shows_its_own_latency() {
    let quick = Options {
        rate: Some(1_000.0),
        warmup_ns: 0,
        duration_ns: SECOND_NS,
        ..options(Path::new("/file"))
    };
    let tally = in_simulation(What::Read, &quick, MILLISECOND_NS);
    assert!((990..=1_001).contains(&tally.records), "{}", tally.records);
    assert!(tally.latency.max() < 2 * MILLISECOND_NS, "{}", tally.latency.max());
}

#[test]
fn appends_that_are_due_share_a_commit() {
    let commits = Options {
        rate: Some(1_000.0),
        warmup_ns: 0,
        duration_ns: SECOND_NS,
        ..options(Path::new("/file"))
    };
    // A write and a sync take 6 ms, in which six records come.
    let tally = in_simulation(What::Append, &commits, 3 * MILLISECOND_NS);
    let each = tally.records as f64 / tally.operations as f64;
    assert!((5.0..=7.0).contains(&each), "{each}");
    assert!(tally.latency.max() <= 14 * MILLISECOND_NS, "{}", tally.latency.max());
}

#[test]
fn what_exists_is_not_overwritten_unasked() {
    let dir = Dir::new("exists");
    let path = dir.0.join("precious");
    fs::write(&path, b"precious").expect("a temporary file");
    let asked = Options { path: path.clone(), ..options(&dir.0) };
    let error = run(What::Read, &asked, &mut |_| {}).expect_err("it exists");
    assert!(error.to_string().contains("--overwrite"), "{error}");
    assert_eq!(fs::read(&path).expect("it is there"), b"precious");
    run(What::Read, &Options { overwrite: true, ..asked }, &mut |_| {}).expect("asked for");
    assert!(path.exists(), "it was not made here");
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let good = options(Path::new("/"));
    assert!(good.check().is_ok());
    for bad in [
        Options { block_bytes: 63, ..good.clone() },
        Options { block_bytes: BLOCK_MAX_BYTES + 8, ..good.clone() },
        Options { block_bytes: 512, direct: true, ..good.clone() },
        Options { depth: 0, ..good.clone() },
        Options { depth: DEPTH_MAX + 1, ..good.clone() },
        Options { depth: 257, ..good.clone() },
        Options { read_share: 1.1, ..good.clone() },
        Options { rate: Some(0.0), ..good.clone() },
        Options { size_bytes: 4096 * (BLOCKS_MAX + 1), ..good },
    ] {
        assert!(bad.check().is_err(), "{bad:?}");
    }
}
