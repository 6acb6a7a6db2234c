//! Runs every input of `services/cache/fuzz/corpus` again, with a bound on memory and on time.
//!
//! Each target runs in a process of its own, this very test program, whose address space is bounded: what an input
//! only announces must not be reserved either. The process tells which input is next, so that one that ends it is named.
//! Next: `services/cache/fuzz/README.md` for where inputs come from.
#![expect(clippy::disallowed_methods, reason = "a test that runs processes on the real clock")]

use std::{
    env, fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    process::{Resource, Rlimit, setrlimit},
    time::{ClockId, clock_gettime},
};

use super::{INPUT_MAX_BYTES, MEMORY_MAX_BYTES, TARGETS, run};

/// Which target a process is for.
const WHICH: &str = "FUZZ_REPLAY";
/// Most processor time of one input, of code that is hardly optimised.
const INPUT_MAX: Duration = Duration::from_secs(5);
/// Longest time of one target, on a machine that may do other things too: a target needs some seconds.
const TARGET_MAX: Duration = Duration::from_secs(240);
/// All inputs together.
const CORPUS_MAX_BYTES: u64 = 500 << 10;

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries =
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

/// The address space of this process, in bytes.
fn address_space() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("a size");
    line.trim_end_matches("kB").trim().parse::<u64>().expect("a number") << 10
}

/// The processor time of this process.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.expect("not negative"), nanos.expect("not negative"))
}

/// What such a process does; run by itself it has nothing to do.
#[test]
fn inputs_of_one_target() {
    let Ok(target) = env::var(WHICH) else { return };
    let most = address_space() + MEMORY_MAX_BYTES;
    setrlimit(Resource::As, Rlimit { current: Some(most), maximum: Some(most) }).expect("a limit");
    for file in corpus(&target) {
        let name = file.file_name().unwrap_or_default().display();
        println!("{name}");
        let input = fs::read(&file).expect("an input");
        let began = cpu_time();
        run(&target, &input);
        let took = cpu_time().saturating_sub(began);
        assert!(took < INPUT_MAX, "{target}/{name} took {took:?}");
    }
    println!("all of {target}");
}

/// Runs the inputs of a target in a process; what it said, and whether it ended well.
fn replay(target: &str) -> Result<(), String> {
    let program = env::current_exe().expect("this program");
    let mut child = Command::new(program)
        .args(["--exact", "fuzz::replay::inputs_of_one_target", "--nocapture", "--test-threads=1"])
        .env(WHICH, target)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a process");
    let (mut out, mut err) =
        (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
    let (mut said, mut failed) = (String::new(), String::new());
    let in_time = std::thread::scope(|scope| {
        scope.spawn(|| out.read_to_string(&mut said));
        scope.spawn(|| err.read_to_string(&mut failed));
        let began = Instant::now();
        while began.elapsed() < TARGET_MAX {
            if child.try_wait().expect("a state").is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().expect("killed");
        child.wait().expect("its end");
        false
    });
    let status = child.wait().expect("its end");
    if status.success() && said.contains(&format!("all of {target}")) {
        return Ok(());
    }
    let files = corpus(target);
    let last = said.lines().rfind(|line| files.iter().any(|file| file.ends_with(line)));
    Err(format!("{target}: {status}, in time: {in_time}; the input was {last:?}\n{failed}"))
}

#[test]
fn every_input_is_borne_in_bounded_memory_and_time() {
    let failed: Vec<String> =
        TARGETS.iter().filter_map(|target| replay(target.name).err()).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn the_corpus_is_small_and_every_target_has_some() {
    let mut all = 0;
    for target in TARGETS {
        let files = corpus(target.name);
        assert!(files.len() > 5, "{}: {} inputs", target.name, files.len());
        for file in files {
            let len = fs::metadata(&file).expect("an input").len();
            assert!(len <= INPUT_MAX_BYTES as u64, "{}: {len} bytes", file.display());
            all += len;
        }
    }
    assert!(all <= CORPUS_MAX_BYTES, "{all} bytes");
}
