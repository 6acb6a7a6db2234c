//! Experiments: a steady state, what is done to it, and whether it held. They are files of the Chaos Toolkit, whose
//! schema is the one that others write (chaostoolkit.org, "Experiment" and "Journal"), with our faults as one more provider.
//!
//! A file is read and checked whole (`toolkit`), its variables get their values (`variables`), and only then is anything run
//! (`run`), which leaves a `journal` that `report` makes readable. `mesh` writes such files from those of Chaos Mesh.
//!
//! Invariants: nothing is skipped silently: what cannot be done is an error before anything is done, and what has no effect is a note.
//! Files, answers, output of processes and durations are bounded. Next: `toolkit`, `run`.

pub mod http;
pub mod inject;
pub mod journal;
pub mod jsonpath;
pub mod mesh;
pub mod packets;
pub mod provider;
pub mod report;
pub mod run;
pub mod tolerance;
pub mod toolkit;
pub mod variables;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::error::{During as _, Error, Result};

/// Longest file that is read.
pub const FILE_MAX: u64 = 1 << 20;
/// Most brackets that are open at once in YAML: its reader's time grows with their square.
const OPEN_MAX: usize = 256;

/// How often a wait looks whether it is to go on.
const SLICE: Duration = Duration::from_millis(10);

/// Reads a file of text, up to [`FILE_MAX`] bytes.
///
/// # Errors
/// It cannot be read, is too long, or no text.
pub fn read_text(path: &Path) -> Result<String> {
    read_bounded(path, FILE_MAX)
}

fn read_bounded(path: &Path, most: u64) -> Result<String> {
    let wrong =
        |why: &dyn std::fmt::Display| Error::usage(format!("read {}: {why}", path.display()));
    let file = File::open(path).map_err(|error| wrong(&error))?;
    let mut text = String::new();
    file.take(most + 1).read_to_string(&mut text).map_err(|error| wrong(&error))?;
    if text.len() as u64 > most {
        Err(wrong(&format_args!("longer than {most} bytes")))
    } else {
        Ok(text)
    }
}

/// Reads JSON, or YAML, of which JSON is nearly a part.
///
/// # Errors
/// It is neither.
pub fn parse(text: &str) -> Result<Value> {
    let json = serde_json::from_str(text);
    match json {
        Ok(value) => Ok(value),
        // What begins like JSON is told what is wrong as JSON, if it is no YAML either.
        Err(json) => check_open(text)
            .and_then(|()| {
                serde_yaml_ng::from_str(text)
                    .map_err(|error| Error::usage(format!("no YAML: {error}")))
            })
            .map_err(|yaml| {
                let is_json = text.trim_start().starts_with('{');
                if is_json { Error::usage(format!("no JSON: {json}")) } else { yaml }
            }),
    }
}

/// Checks that YAML is not nested too deeply to be read, by its brackets, also those within texts.
fn check_open(text: &str) -> Result<()> {
    let mut open = 0_usize;
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > OPEN_MAX {
            return Err(Error::usage(format!("more than {OPEN_MAX} brackets are open at once")));
        }
    }
    Ok(())
}

/// Writes a file whole: under another name first.
///
/// # Errors
/// It cannot be written.
pub fn write_whole(path: &Path, text: &str) -> Result<()> {
    let doing = || format!("write {}", path.display());
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    std::fs::write(&new, text).during(doing)?;
    std::fs::rename(&new, path).during(doing)
}

/// What ends a piece of work before it is done.
#[derive(Clone, Copy, Debug)]
pub struct Halt<'a> {
    /// The operator says so.
    pub interrupted: &'a AtomicBool,
    /// The steady state is no more.
    pub broken: &'a AtomicBool,
}

impl Halt<'_> {
    /// Whether to end now.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed) || self.broken.load(Ordering::Relaxed)
    }

    /// Waits; whether it was to the end.
    #[must_use]
    pub fn sleep(&self, duration: Duration) -> bool {
        let begin = Instant::now();
        loop {
            let left = duration.saturating_sub(begin.elapsed());
            if self.is_set() {
                return false;
            }
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(SLICE));
        }
    }
}

/// Seconds of a file, as a number or as a duration such as `20ms`.
///
/// # Errors
/// It is neither, or longer than an hour.
pub fn seconds(value: &Value, what: &str) -> Result<Duration> {
    let wrong = || Error::usage(format!("{what} of {value}: 0 to 3600 seconds are wanted"));
    let duration = match value {
        Value::Number(number) => {
            Duration::try_from_secs_f64(number.as_f64().ok_or_else(wrong)?).map_err(|_| wrong())?
        }
        Value::String(text) => match text.trim().parse::<f64>() {
            Ok(number) => Duration::try_from_secs_f64(number).map_err(|_| wrong())?,
            Err(_) => humantime::parse_duration(text).map_err(|_| wrong())?,
        },
        _ => return Err(wrong()),
    };
    if duration > crate::spec::TTL_MAX { Err(wrong()) } else { Ok(duration) }
}

/// A value as text: strings as they are, others as JSON.
#[must_use]
pub fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Checks that there is a network namespace of that name.
fn check_netns(name: Option<&str>) -> Result<()> {
    match name {
        Some(name) if name.contains('/') || !Path::new("/run/netns").join(name).exists() => {
            Err(Error::usage(format!(
                "netns {name:?}: there is none of that name; `ip netns list` names them"
            )))
        }
        _ => Ok(()),
    }
}
