//! Callgrind on this program: two runs of a path, one longer than the other, and what the difference took.

use std::io::Read as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::paths::Path;

/// What is in flight, cached or grown to its size by then is so in both runs.
const WARM: u64 = 2_000;
/// Operations that are counted.
const COUNTED: u64 = 8_000;
/// A run takes about half a second.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Instructions for each operation of a path.
///
/// # Errors
/// Valgrind is missing, or the path fails.
pub(crate) fn count(path: &Path) -> Result<f64> {
    let short = run(path, WARM)?;
    let long = run(path, WARM + COUNTED)?;
    let more = long.checked_sub(short).context("the longer run took less")?;
    Ok(more as f64 / COUNTED as f64)
}

fn run(path: &Path, times: u64) -> Result<u64> {
    let program = std::env::current_exe().context("find this program")?;
    let mut child = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--"])
        .arg(program)
        .args(["work", path.name, &times.to_string()])
        // What is in the environment lies on the stack, and decides how the rest is aligned.
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("start valgrind (Debian: apt install valgrind)")?;
    let status = wait(&mut child)?;
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said).context("read what valgrind says")?;
    }
    if !status.success() {
        bail!("valgrind: {status}: {said}");
    }
    collected(&said).with_context(|| format!("valgrind says no count: {said}"))
}

/// Waits for its end, so long. What it says has room in the pipe.
fn wait(child: &mut Child) -> Result<ExitStatus> {
    let begin = Instant::now();
    while begin.elapsed() < TIMEOUT {
        if let Some(status) = child.try_wait().context("wait for valgrind")? {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().context("end valgrind")?;
    child.wait().context("end valgrind")?;
    bail!("it did not end within {TIMEOUT:?}")
}

/// The number behind `Collected :`.
fn collected(said: &str) -> Option<u64> {
    let (_, rest) = said.split_once("Collected :")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read() {
        let said = "==1== Events    : Ir\n==1== Collected : 428099\n==1== \n";
        assert_eq!(collected(said), Some(428_099));
        assert_eq!(collected("==1== Collected :"), None);
    }
}
