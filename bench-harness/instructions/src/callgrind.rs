//! Callgrind on this program: two runs of a path, one longer than the other, and what the difference took.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::paths::Path;

/// What is in flight, cached or grown to its size by then is so in both runs.
const WARM: u64 = 2_000;
/// Operations that are counted.
const COUNTED: u64 = 8_000;
/// Seconds that a run may take; it takes about half of one.
const TIMEOUT: &str = "60";

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
    let output = Command::new("timeout")
        .args([TIMEOUT, "valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--"])
        .arg(program)
        .args(["work", path.name, &times.to_string()])
        // What is in the environment lies on the stack, and decides how the rest is aligned.
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .context("start timeout (Debian: apt install coreutils)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("valgrind (Debian: apt install valgrind): {}: {said}", output.status);
    }
    collected(&said).with_context(|| format!("valgrind says no count: {said}"))
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
