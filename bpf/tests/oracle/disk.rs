//! What scenarios of files do not say: what is open outlives its fault, whoever is killed; a layer that does nothing is like the files
//! below it; who waits holds up nobody else.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{
    FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink,
};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bpf::disk::{self, Serving};
use rustix::fs::{FallocateFlags, FlockOperation, RenameFlags, XattrFlags};

use crate::chaos::{Fault, status};
use crate::workloads::worker::page::{Field, Page};

const CHAOS: &str = env!("CARGO_BIN_EXE_chaos");
/// A mount is gone after this, whoever is killed.
const GONE_WITHIN: Duration = Duration::from_millis(100);
const SETTLE: Duration = Duration::from_secs(2);
const DELAY: Duration = Duration::from_millis(30);

/// A directory of the test's own.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("chaos-disk-{name}-{}", std::process::id()));
        fs::create_dir(&path).expect("a directory");
        Self(path)
    }

    fn file(&self, name: &str) -> File {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        options.open(self.0.join(name)).expect("a file")
    }

    fn inject(&self, fault: &str, more: &[&str]) -> Fault {
        let path = self.0.display().to_string();
        let line = [&[fault, "--path", &path][..], more].concat();
        Fault::inject(&line.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    fn is_mounted(&self) -> bool {
        disk::mounts().iter().any(|one| one.dir == self.0)
    }

    fn server(&self) -> Serving {
        disk::serving().into_iter().find(|one| one.dir == self.0).expect("a server")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A test that failed may have left it.
        if self.is_mounted() {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Waits until something is so.
fn wait_for(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < within, "{what}: not within {within:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn took(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is there");
}

/// Faults in force, and what is left of those that are over, as a command tells.
fn told(field: &str, value: &str) -> bool {
    status().as_array().expect("a list").iter().any(|one| one[field] == value)
}

/// What is open outlives its fault without effect, and the server goes with it; what was open before is not hit.
pub(crate) fn open_files_outlive_their_fault() {
    for by_kill in [false, true] {
        let place = Place::new("outlive");
        let before = place.file("before");
        let fault =
            place.inject("disk.delay", &["--op", "write", "--delay", "30ms", "--ttl", "60s"]);
        let during = place.file("during");
        let write = |file: &File| took(|| file.write_all_at(b"written", 0).expect("room"));
        assert!(write(&during) >= DELAY, "it is hit");
        assert!(write(&before) < DELAY, "it was open before");
        let (id, traces) = (fault.id.clone(), fault.traces.clone());
        let server = place.server().server;
        if by_kill {
            fault.kill();
        } else {
            assert_eq!(fault.stop().affected, 1);
        }
        let begin = Instant::now();
        traces.assert_gone(GONE_WITHIN);
        println!("mount gone {:?} after its end", begin.elapsed());
        assert!(write(&during) < DELAY, "it is open, and not hit");
        during.write_all_at(b"more", 7).expect("it is served");
        during.sync_all().expect("it is served");
        assert_eq!(fs::read(place.0.join("during")).expect("it is below"), b"writtenmore");
        assert!(told("over", &id), "what is left is listed");
        assert!(!told("id", &id), "and not as a fault");
        drop(during);
        wait_for("the server ends", SETTLE, || !server.is_alive());
        assert!(!told("over", &id));
    }
}

/// Whoever is killed, no mount is left; at the latest the next command sees to that.
pub(crate) fn no_mount_is_left_whoever_is_killed() {
    let place = Place::new("killed");
    let fault = place.inject("disk.error", &["--op", "read", "--ttl", "60s"]);
    kill(place.server().server.pid);
    let traces = fault.traces.clone();
    fault.wait();
    traces.assert_gone(GONE_WITHIN);
    assert!(fs::read_dir(&place.0).is_ok(), "what is below is back");

    let fault = place.inject("disk.error", &["--op", "read", "--ttl", "60s"]);
    let (keeper, traces) = (fault.pid(), fault.traces.clone());
    let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children"));
    // The server and the watchdog.
    let children = children.expect("the keeper is there");
    assert_eq!(children.split_whitespace().count(), 2, "{children}");
    for child in children.split_whitespace() {
        kill(child.parse().expect("a number"));
    }
    fault.kill();
    assert!(place.is_mounted(), "nobody is left to detach it");
    traces.assert_forgotten();
    assert!(!place.is_mounted(), "the next command does");
    assert!(fs::read_dir(&place.0).is_ok());
}

/// Whenever its keeper is killed, also before the fault is in force, nothing is left.
pub(crate) fn nothing_is_left_whenever_it_is_killed() {
    let place = Place::new("whenever");
    let path = place.0.display().to_string();
    let mut mounted = 0;
    for round in 0..30_u64 {
        let line = ["inject", "disk.lose", "--path", &path, "--ttl", "60s"];
        let mut child = Command::new(CHAOS)
            .args(line)
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("chaos is built");
        // Moments that have nothing to do with each other, about as long as a start takes.
        std::thread::sleep(Duration::from_micros(round * round * 397 % 120_000));
        mounted += u32::from(place.is_mounted());
        kill(child.id());
        child.wait().expect("it ended");
        std::thread::sleep(GONE_WITHIN);
        wait_for("the server ends", SETTLE, || {
            disk::serving().iter().all(|one| one.dir != place.0)
        });
        assert!(!place.is_mounted(), "round {round}");
        fs::write(place.0.join("a"), round.to_string()).expect("it is as it was");
    }
    println!("{mounted} of 30 were in force when they were killed");
    assert!(mounted > 0, "none was in force: they are killed too early");
    wait_for("the watchdogs end", SETTLE, || !path_is_noted(&path));
}

fn path_is_noted(path: &str) -> bool {
    let notes = fs::read_dir(bpf::registry::DIR).into_iter().flatten().flatten();
    notes.filter_map(|note| fs::read_to_string(note.path()).ok()).any(|text| text.contains(path))
}

/// A fault without its keeper is ended by whoever says so.
pub(crate) fn a_detached_fault_is_stopped_without_its_keeper() {
    let place = Place::new("stopped");
    let path = place.0.display().to_string();
    let line = [
        "inject",
        "disk.error",
        "--path",
        &path,
        "--op",
        "write",
        "--ttl",
        "60s",
        "--detach",
        "--json",
    ];
    let output = Command::new(CHAOS).args(line).output().expect("chaos is built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let event: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let file = place.file("a");
    kill(u32::try_from(event["keeper"].as_u64().expect("a process")).expect("small"));
    std::thread::sleep(GONE_WITHIN);
    assert!(file.write_all_at(b"x", 0).is_err(), "it is in force");
    let id = event["id"].as_str().expect("a name");
    assert!(Command::new(CHAOS).args(["stop", id]).status().expect("chaos is built").success());
    wait_for("the effect ends", GONE_WITHIN, || file.write_all_at(b"x", 0).is_ok());
    assert!(!place.is_mounted());
    drop(file);
    wait_for("the server ends", SETTLE, || disk::serving().iter().all(|one| one.dir != place.0));
}

/// A detached fault goes on without its keeper, until its time is over.
pub(crate) fn a_detached_fault_ends_at_its_time() {
    let place = Place::new("detached");
    let path = place.0.display().to_string();
    let line = [
        "inject",
        "disk.error",
        "--path",
        &path,
        "--op",
        "write",
        "--ttl",
        "1500ms",
        "--detach",
        "--json",
    ];
    let begin = Instant::now();
    let output = Command::new(CHAOS).args(line).output().expect("chaos is built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let event: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    kill(u32::try_from(event["keeper"].as_u64().expect("a process")).expect("small"));
    std::thread::sleep(Duration::from_millis(300));
    let file = place.file("a");
    assert!(file.write_all_at(b"x", 0).is_err(), "it is in force");
    let ends = Duration::from_millis(1500);
    wait_for("the effect ends", SETTLE, || file.write_all_at(b"x", 0).is_ok());
    let (at, most) = (begin.elapsed(), ends + GONE_WITHIN + Duration::from_millis(400));
    assert!((ends..most).contains(&at), "{at:?}");
    wait_for("the mount goes", GONE_WITHIN, || !place.is_mounted());
    drop(file);
    wait_for("the note goes", SETTLE, || disk::serving().iter().all(|one| one.dir != place.0));
}

/// Many operations that wait hold up none of another file.
pub(crate) fn a_slow_file_holds_up_no_other() {
    let place = Place::new("slow");
    let line = ["--op", "write", "--name", "slow*", "--delay", "700ms", "--ttl", "60s"];
    let fault = place.inject("disk.delay", &line);
    let quick = place.file("quick");
    std::thread::scope(|scope| {
        for number in 0..64 {
            let place = &place;
            scope.spawn(move || {
                let file = place.file(&format!("slow-{number}"));
                let took = took(|| file.write_all_at(b"x", 0).expect("room"));
                assert!(took >= Duration::from_millis(700), "{took:?}");
            });
        }
        std::thread::sleep(Duration::from_millis(200));
        let mut longest = Duration::ZERO;
        for number in 0..100 {
            longest = longest.max(took(|| quick.write_all_at(b"x", number).expect("room")));
        }
        println!("longest write beside 64 that wait: {longest:?}");
        assert!(longest < Duration::from_millis(200), "{longest:?}");
    });
    drop(quick);
    assert_eq!(fault.stop().affected, 64);
}

/// What a mapping holds that a fault made wrong is right again after it.
pub(crate) fn mappings_are_mended_at_the_end() {
    let place = Place::new("mapped");
    Page::create(&place.0.join("page"));
    let line =
        ["--op", "read", "--fill", "random", "--count", "4000", "--bytes", "32", "--ttl", "60s"];
    let fault = place.inject("disk.corrupt", &line);
    let page = Page::open(&place.0.join("page"));
    let words =
        || [Field::Ops, Field::Failed, Field::Last, Field::End].map(|field| page.get(field));
    assert_ne!(words(), [0; 4], "they are wrong");
    assert!(fault.stop().affected > 0);
    assert_eq!(words(), [0; 4]);
}

/// What is not synced is lost when the fault ends, and kept when its keeper is killed.
pub(crate) fn unsynced_bytes_are_lost_at_the_end() {
    for by_kill in [false, true] {
        let place = Place::new("lose");
        fs::write(place.0.join("old"), b"as it was before").expect("room");
        let fault = place.inject("disk.lose", &["--ttl", "60s"]);
        let (mut new, old) = (place.file("new"), place.file("old"));
        new.write_all(b"synced").expect("room");
        new.sync_data().expect("a sync");
        new.write_all(b" and not").expect("room");
        old.write_all_at(b"IS", 3).expect("room");
        old.set_len(5).expect("shorter");
        assert_eq!(fs::read(place.0.join("new")).expect("it is there"), b"synced and not");
        drop((new, old));
        let traces = fault.traces.clone();
        if by_kill {
            fault.kill();
        } else {
            assert_eq!(fault.stop().affected, 3, "two writes and a cut");
        }
        traces.assert_gone(GONE_WITHIN);
        let expected: [&[u8]; 2] =
            if by_kill { [b"synced and not", b"as IS"] } else { [b"synced", b"as it was before"] };
        for (name, expected) in ["new", "old"].into_iter().zip(expected) {
            let found = fs::read(place.0.join(name)).expect("it is there");
            assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(expected));
        }
        traces.assert_forgotten();
    }
}

/// What cannot be: on what the host needs, and twice on one directory.
pub(crate) fn what_is_unsafe_is_refused() {
    let place = Place::new("refused");
    let refusal = |path: &str, more: &[&str]| {
        let line = [&["inject", "disk.error", "--path", path][..], more].concat();
        let output = Command::new(CHAOS).args(line).output().expect("chaos is built");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let path = place.0.display().to_string();
    for (dir, more, word) in [
        ("/", &[][..], "must stay reachable"),
        ("/run", &[], "must stay reachable"),
        ("/proc/self", &[], "must stay reachable"),
        ("/etc/passwd", &[], "a directory is wanted"),
        (&path, &["--flows", "10"], "of packets"),
        (&path, &["--op", "fly"], "fsync"),
        (&path, &["--errno", "EFUN"], "ENOSPC"),
    ] {
        let (code, error) = refusal(dir, more);
        assert!(code == Some(2) && error.contains(word), "{dir} {more:?}: {code:?} {error}");
    }
    let fault = place.inject("disk.error", &["--op", "read", "--ttl", "60s"]);
    let (code, error) = refusal(&path, &[]);
    assert!(code == Some(2) && error.contains("another fault has it"), "{code:?} {error}");
    fault.stop();
    assert!(!place.is_mounted());
}

/// A layer without an effect is like what is below it.
pub(crate) fn a_layer_that_does_nothing_changes_nothing() {
    let (plain, layered) = (Place::new("plain"), Place::new("layered"));
    let fault = layered.inject("disk.error", &["--shadow", "--ttl", "60s"]);
    let expected = battery(&plain.0);
    let found = battery(&layered.0);
    for (one, other) in expected.iter().zip(&found) {
        assert_eq!(one, other);
    }
    assert_eq!(expected.len(), found.len());
    let seen = tree(&layered.0);
    assert_eq!(fault.stop().affected, 0);
    assert_eq!(tree(&layered.0), seen, "below it is what was seen");
    assert_eq!(tree(&plain.0), seen);
}

/// Names, types, permissions, lengths and bytes below a directory.
fn tree(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let entry = entry.expect("an entry");
        let of = entry.metadata().expect("it is there");
        let bytes =
            if of.is_file() { fs::read(entry.path()).expect("it is there") } else { Vec::new() };
        let sum = bytes.iter().fold(0_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
        let (links, owner) = (if of.is_file() { of.nlink() } else { 0 }, (of.uid(), of.gid()));
        all.push(format!(
            "{:?} {:o} {links} {owner:?} {} {sum}",
            entry.file_name(),
            of.mode(),
            bytes.len()
        ));
        if of.is_dir() {
            all.extend(tree(&entry.path()));
        }
    }
    all.sort();
    all
}

fn battery(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    data(dir, &mut all);
    names(dir, &mut all);
    rest(dir, &mut all);
    all
}

/// What databases do with bytes.
fn data(dir: &Path, all: &mut Vec<String>) {
    let path = dir.join("data");
    let mut say = |what: &str, how: String| all.push(format!("{what}: {how}"));
    let mut options = File::options();
    let new = options.read(true).write(true).create_new(true).mode(0o640);
    let mut file = new.open(&path).expect("a new file");
    say("made twice", format!("{:?}", new.open(&path).map(drop).map_err(|error| error.kind())));
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    say("written", format!("{:?}", file.write(&bytes)));
    say("sought", format!("{:?}", file.seek(SeekFrom::End(-5))));
    let mut end = Vec::new();
    say("read to the end", format!("{:?} {end:?}", file.read_to_end(&mut end)));
    let mut part = [0; 7];
    say("read at", format!("{:?} {part:?}", file.read_at(&mut part, 1_234_567)));
    say("read beyond", format!("{:?}", file.read_at(&mut part, 9_000_000)));
    say("written at", format!("{:?}", file.write_at(b"beyond", 4_000_000)));
    say("length", format!("{:?}", file.metadata().map(|of| of.len())));
    say("synced", format!("{:?} {:?}", file.sync_all(), file.sync_data()));
    say("cut", format!("{:?}", file.set_len(100_000)));
    say("grown", format!("{:?} {:?}", file.set_len(200_000), file.metadata().map(|of| of.len())));
    let (keep, punch) = (FallocateFlags::KEEP_SIZE, FallocateFlags::PUNCH_HOLE);
    say(
        "allocated",
        format!("{:?}", rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 400_000)),
    );
    say("kept", format!("{:?}", rustix::fs::fallocate(&file, keep, 0, 800_000)));
    say("punched", format!("{:?}", rustix::fs::fallocate(&file, keep | punch, 8192, 8192)));
    say("length", format!("{:?}", file.metadata().map(|of| of.len())));
    say("hole", format!("{:?}", rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0))));
    say("data", format!("{:?}", rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(8192))));
    let mut log = File::options().append(true).create(true).open(dir.join("log")).expect("a log");
    let mut other = File::options().append(true).open(dir.join("log")).expect("a log");
    for number in 0..50 {
        writeln!(log, "one {number}").expect("room");
        writeln!(other, "other {number}").expect("room");
    }
    say("appended", format!("{:?}", fs::read_to_string(dir.join("log"))));
    let direct = File::options().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path);
    say("opened directly", format!("{:?}", direct.map(drop)));
    fs::remove_file(&path).expect("it is there");
    say(
        "unlinked and open",
        format!("{:?} {:?}", file.write_at(b"gone", 0), file.metadata().map(|of| of.nlink())),
    );
    let page = Page::create(&dir.join("page"));
    page.set(Field::Ops, 0x1122_3344);
    let word = |bytes: Vec<u8>| bytes.get(24..32).map(<[u8]>::to_vec);
    wait_for("a mapping is written back", SETTLE, || {
        let file = File::open(dir.join("page")).expect("it is there");
        file.sync_all().expect("a sync");
        word(fs::read(dir.join("page")).expect("it is there")).is_some_and(|word| word[0] == 0x44)
    });
    say("copied", format!("{:?}", fs::copy(dir.join("log"), dir.join("copy"))));
}

/// What they do with names.
fn names(dir: &Path, all: &mut Vec<String>) {
    let mut say = |what: &str, how: String| all.push(format!("{what}: {how}"));
    let at = |name: &str| dir.join(name);
    let rename = |from: &str, to: &str, flags| {
        rustix::fs::renameat_with(rustix::fs::CWD, at(from), rustix::fs::CWD, at(to), flags)
    };
    for name in ["a", "b"] {
        fs::write(at(name), name).expect("room");
    }
    say("kept", format!("{:?}", rename("a", "b", RenameFlags::NOREPLACE)));
    say(
        "exchanged",
        format!("{:?} {:?}", rename("a", "b", RenameFlags::EXCHANGE), fs::read_to_string(at("a"))),
    );
    say(
        "replaced",
        format!("{:?} {:?}", fs::rename(at("a"), at("b")), fs::read_to_string(at("b"))),
    );
    say(
        "linked",
        format!(
            "{:?} {:?}",
            fs::hard_link(at("b"), at("c")),
            fs::metadata(at("c")).map(|of| of.nlink())
        ),
    );
    let same = (
        fs::metadata(at("b")).expect("it is there").ino(),
        fs::metadata(at("c")).expect("it is there").ino(),
    );
    say("one file", (same.0 == same.1).to_string());
    say("symlink", format!("{:?} {:?}", symlink("b", at("s")), fs::read_link(at("s"))));
    say("through it", format!("{:?}", fs::read_to_string(at("s"))));
    say(
        "made",
        format!(
            "{:?} {:?}",
            fs::create_dir(at("d")),
            fs::create_dir(at("d")).map_err(|error| error.kind())
        ),
    );
    for number in 0..500 {
        fs::write(at(&format!("d/{number:03}")), "").expect("room");
    }
    let mut listed: Vec<_> = fs::read_dir(at("d"))
        .expect("it is there")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    listed.sort();
    say("listed", format!("{} {:?} {:?}", listed.len(), listed.first(), listed.last()));
    say(
        "not empty",
        format!("{:?}", fs::remove_dir(at("d")).map_err(|error| error.raw_os_error())),
    );
    say("moved", format!("{:?} {}", fs::rename(at("d"), at("e")), at("e/499").exists()));
    say("missing", format!("{:?}", fs::read(at("none")).map_err(|error| error.kind())));
    say("removed", format!("{:?}", fs::remove_dir_all(at("e"))));
    say("dir synced", format!("{:?}", File::open(dir).and_then(|dir| dir.sync_all())));
    let fifo =
        rustix::fs::mknodat(rustix::fs::CWD, at("f"), rustix::fs::FileType::Fifo, 0o600.into(), 0);
    say("fifo", format!("{fifo:?} {:o}", fs::metadata(at("f")).expect("it is there").mode()));
}

/// Attributes, locks and space.
fn rest(dir: &Path, all: &mut Vec<String>) {
    let mut say = |what: &str, how: String| all.push(format!("{what}: {how}"));
    let path = dir.join("b");
    let file = File::options().read(true).write(true).open(&path).expect("it is there");
    let of = || fs::metadata(&path).expect("it is there");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).expect("ours");
    say("permissions", format!("{:o}", of().mode()));
    say(
        "owner",
        format!(
            "{:?} {} {}",
            std::os::unix::fs::chown(&path, Some(12), Some(34)),
            of().uid(),
            of().gid()
        ),
    );
    say("after", format!("{:o}", of().mode()));
    let at = std::time::UNIX_EPOCH + Duration::from_nanos(1_234_567_890_123_456_789);
    let times = fs::FileTimes::new().set_accessed(at).set_modified(at);
    say("times", format!("{:?} {} {}", file.set_times(times), of().mtime(), of().mtime_nsec()));
    let set = rustix::fs::setxattr(&path, "user.a", b"value", XattrFlags::empty());
    let mut value = [0; 16];
    let got = rustix::fs::getxattr(&path, "user.a", &mut value[..]);
    say("xattr", format!("{set:?} {got:?} {value:?}"));
    say("none", format!("{:?}", rustix::fs::getxattr(&path, "user.b", &mut value[..])));
    let mut list = [0; 64];
    say("xattrs", format!("{:?}", rustix::fs::listxattr(&path, &mut list[..])));
    say("removed", format!("{:?}", rustix::fs::removexattr(&path, "user.a")));
    let second = File::open(&path).expect("it is there");
    let exclusive = FlockOperation::NonBlockingLockExclusive;
    say(
        "locked",
        format!(
            "{:?} {:?}",
            rustix::fs::flock(&file, exclusive),
            rustix::fs::flock(&second, exclusive)
        ),
    );
    let space = rustix::fs::statvfs(dir).expect("it is there");
    say("space", format!("{} {} {}", space.f_bsize, space.f_blocks, space.f_namemax));
}
