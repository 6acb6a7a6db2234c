//! What `perf script` prints, collapsed: each stack once, as `thread;outermost;…;innermost`, with its samples.
//!
//! The form is the one that other tools for flame graphs read and write. A frame of the kernel ends in `_[k]`. A frame
//! without a symbol is named after its object, `[libc.so.6]`. Addresses that belong to nothing are what walking by frame
//! pointers gives where a program has none: outermost they are dropped, since they would part what is the same, and
//! farther in they are one `[unknown]` however many there are. Invariants: each sample
//! counts once; depth and distinct stacks are bounded; a line that is neither is an error that shows it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::BufRead;

use anyhow::{Context, Result, bail};

/// Frames of one stack; those farther out are dropped.
pub const DEPTH_MAX: usize = 512;
/// Distinct stacks; samples of others are counted as one.
pub const STACKS_MAX: usize = 1 << 18;
/// The longest line that is read.
const LINE_MAX_BYTES: usize = 64 << 10;
/// What a frame without a name is called.
const UNKNOWN: &str = "[unknown]";
/// What stacks beyond [`STACKS_MAX`] are called.
const OTHERS: &str = "[other stacks]";

/// The fields `perf script` is asked for.
pub const FIELDS: &str = "comm,pid,tid,ip,sym,dso";

/// Stacks with their samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    stacks: BTreeMap<String, u64>,
}

impl Folded {
    /// Reads what `perf script -F` with [`FIELDS`] prints.
    ///
    /// # Errors
    /// It cannot be read, or is something else.
    pub fn read(mut from: impl BufRead) -> Result<Self> {
        let mut folded = Self::default();
        let mut sample: Option<Sample> = None;
        let mut bytes = Vec::new();
        let mut number = 0_u64;
        loop {
            bytes.clear();
            let mut part = std::io::Read::take(&mut from, LINE_MAX_BYTES as u64);
            let len = part.read_until(b'\n', &mut bytes).context("read what perf script prints")?;
            number += 1;
            if len == LINE_MAX_BYTES {
                bail!("line {number} of perf script has more than {LINE_MAX_BYTES} bytes");
            }
            let text = String::from_utf8_lossy(&bytes);
            let line = text.trim_end();
            if len == 0 || line.is_empty() {
                sample.take().into_iter().for_each(|sample| folded.add(&sample));
                if len == 0 {
                    return Ok(folded);
                }
                continue;
            }
            if line.starts_with('#') && sample.is_none() {
                continue;
            }
            let shown = || format!("line {number} of perf script: {line:?}");
            if line.starts_with(char::is_whitespace) {
                let sample = sample.as_mut().with_context(shown)?;
                sample.frames.push(frame(line).with_context(shown)?);
            } else {
                sample.take().into_iter().for_each(|sample| folded.add(&sample));
                sample =
                    Some(Sample { thread: thread(line).with_context(shown)?, frames: Vec::new() });
            }
        }
    }

    fn add(&mut self, sample: &Sample) {
        let mut stack = cleaned(&sample.thread);
        let mut last = "";
        // Innermost first, as they were printed.
        let known = sample.frames.iter().rposition(|frame| frame != UNKNOWN);
        let kept = known.map_or(sample.frames.len().min(1), |at| at + 1).min(DEPTH_MAX);
        for frame in sample.frames[..kept].iter().rev() {
            if frame != UNKNOWN || last != UNKNOWN {
                stack.push(';');
                stack.push_str(frame);
            }
            last = frame;
        }
        if self.stacks.len() >= STACKS_MAX && !self.stacks.contains_key(&stack) {
            stack = OTHERS.to_owned();
        }
        *self.stacks.entry(stack).or_default() += 1;
    }

    /// Stacks with their samples, in order.
    pub fn stacks(&self) -> impl Iterator<Item = (&str, u64)> {
        self.stacks.iter().map(|(stack, samples)| (stack.as_str(), *samples))
    }

    /// All samples.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.stacks.values().sum()
    }

    /// As a file: a stack, a space, its samples; one a line.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (stack, samples) in &self.stacks {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{stack} {samples}");
        }
        text
    }

    /// The functions that ran most, not counting what they called, with their samples.
    #[must_use]
    pub fn hottest(&self, count: usize) -> Vec<(&str, u64)> {
        let mut by_name: BTreeMap<&str, u64> = BTreeMap::new();
        for (stack, samples) in &self.stacks {
            let innermost = stack.rsplit(';').next().unwrap_or(stack);
            *by_name.entry(innermost).or_default() += samples;
        }
        let mut all: Vec<(&str, u64)> = by_name.into_iter().collect();
        all.sort_by_key(|&(_, samples)| std::cmp::Reverse(samples));
        all.truncate(count);
        all
    }
}

#[derive(Debug)]
struct Sample {
    thread: String,
    /// Innermost first.
    frames: Vec<String>,
}

/// The thread's name of `name pid/tid`; a name may hold spaces.
fn thread(line: &str) -> Option<String> {
    let (name, ids) = line.trim().rsplit_once(char::is_whitespace)?;
    let (pid, tid) = ids.split_once('/')?;
    let is_id = |text: &str| text.parse::<i32>().is_ok();
    (is_id(pid) && is_id(tid)).then(|| name.trim().to_owned())
}

/// The name of `address symbol (object)`.
fn frame(line: &str) -> Option<String> {
    let (address, rest) = line.trim().split_once(' ')?;
    u64::from_str_radix(address, 16).ok()?;
    let rest = rest.strip_suffix(')')?;
    let rest = rest.strip_suffix(" (deleted)").unwrap_or(rest);
    // A symbol of C++ or Rust may hold parentheses of its own, an object's path hardly.
    let (symbol, object) = match rest.strip_prefix('(') {
        Some(object) => (UNKNOWN, object),
        None => rest.rsplit_once(" (")?,
    };
    let is_kernel = object.starts_with('[') && object != UNKNOWN && object != "[vdso]";
    if symbol != UNKNOWN {
        let name = cleaned(symbol);
        return Some(if is_kernel { name + "_[k]" } else { name });
    }
    Some(match object {
        UNKNOWN => UNKNOWN.to_owned(),
        object if is_kernel => format!("{}_[k]", cleaned(object)),
        object => format!("[{}]", cleaned(object.rsplit('/').next().unwrap_or(object))),
    })
}

/// A name without what separates names.
fn cleaned(name: &str) -> String {
    name.replace(';', ":")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded of redis-server 7.0.15 under a load of PING, with two samples of another thread put in.
    const RECORDED: &str = include_str!("recorded.txt");

    fn folded(text: &str) -> Folded {
        Folded::read(text.as_bytes()).expect("of perf script")
    }

    #[test]
    fn a_recorded_sample_is_collapsed() {
        let folded = folded(RECORDED);
        let expected = include_str!("recorded.folded");
        assert_eq!(folded.text(), expected);
        assert_eq!(folded.samples() as usize, RECORDED.matches("\n\n").count());
    }

    #[test]
    fn names_are_found_whatever_they_hold() {
        for (line, name) in [
            ("  ffffffff813a2413 schedule ([kernel.kallsyms])", "schedule_[k]"),
            ("\tffffffffc0000000 nf_hook ([nf_conntrack])", "nf_hook_[k]"),
            (" ffffffff81000000 [unknown] ([kernel.kallsyms])", "[kernel.kallsyms]_[k]"),
            (
                "  f838f __GI___libc_write (/usr/lib/x86_64-linux-gnu/libc.so.6)",
                "__GI___libc_write",
            ),
            (" 7f00 [unknown] (/usr/lib/libc.so.6)", "[libc.so.6]"),
            (" 0 [unknown] ([unknown])", "[unknown]"),
            (" 7ffd clock_gettime ([vdso])", "clock_gettime"),
            (" 1 <a::B as c::D<(u8, u16)>>::f (/opt/x)", "<a::B as c::D<(u8, u16)>>::f"),
            (" 1 std::f(int; char) const (/usr/bin/x (deleted))", "std::f(int: char) const"),
            (" 1 small (inlined)", "small"),
        ] {
            assert_eq!(frame(line).as_deref(), Some(name), "{line}");
        }
        assert_eq!(thread("http worker 12/34 ").as_deref(), Some("http worker"));
        assert_eq!(thread("swapper     0/0").as_deref(), Some("swapper"));
        for wrong in ["redis 12", "12/34", "redis 12/x", "perf: error"] {
            assert_eq!(thread(wrong), None, "{wrong}");
        }
        for wrong in [" xyz f (a)", " 12", " 12 f", " 12 f a"] {
            assert_eq!(frame(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_no_output_of_perf_script_is_refused_by_line() {
        for (text, says) in [
            ("a 1/1\n 1 f (x)\nnonsense\n", "line 3"),
            (" 1 f (x)\n", "line 1"),
            ("a 1/1\n f\n", "line 2"),
        ] {
            let error = Folded::read(text.as_bytes()).expect_err(text);
            assert!(format!("{error:#}").contains(says), "{error:#}");
        }
        assert_eq!(folded("# a comment\n\n").samples(), 0);
        let longest = format!("a 1/1\n 1 {} (x)\n\n", "f".repeat(LINE_MAX_BYTES - 9));
        assert_eq!(folded(&longest).samples(), 1);
        let longer = longest.replacen('f', "ff", 1);
        assert!(Folded::read(longer.as_bytes()).is_err());
    }

    #[test]
    fn addresses_of_nothing_are_dropped_outside_and_one_inside() {
        let nothing = " 0 [unknown] ([unknown])\n";
        let stack = |frames: &str| folded(&format!("a 1/1\n{frames}\n")).text();
        assert_eq!(stack(&format!(" 1 g (x)\n 2 f (x)\n{nothing}{nothing}")), "a;f;g 1\n");
        assert_eq!(
            stack(&format!(" 1 g (x)\n{nothing}{nothing} 2 f (x)\n")),
            "a;f;[unknown];g 1\n"
        );
        assert_eq!(stack(&nothing.repeat(3)), "a;[unknown] 1\n");
        assert_eq!(stack(""), "a 1\n");
    }

    #[test]
    fn depth_is_bounded_from_the_outside() {
        let deep = |depth: usize| {
            let frames: String = (0..depth).map(|at| format!(" {at:x} f{at} (x)\n")).collect();
            folded(&format!("a 1/1\n{frames}\n"))
        };
        let count = |folded: &Folded| folded.text().matches(';').count();
        assert_eq!(count(&deep(DEPTH_MAX)), DEPTH_MAX);
        let deeper = deep(DEPTH_MAX + 1);
        assert_eq!(count(&deeper), DEPTH_MAX);
        assert!(deeper.text().ends_with(";f0 1\n"), "the innermost stays");
    }

    #[test]
    fn distinct_stacks_are_bounded() {
        let sample = |at: usize| Sample { thread: "a".to_owned(), frames: vec![format!("f{at}")] };
        let mut folded = Folded::default();
        (0..STACKS_MAX).for_each(|at| folded.add(&sample(at)));
        assert_eq!(folded.stacks.len(), STACKS_MAX);
        [0, STACKS_MAX, STACKS_MAX + 1].into_iter().for_each(|at| folded.add(&sample(at)));
        assert_eq!(folded.stacks.len(), STACKS_MAX + 1);
        assert_eq!((folded.stacks["a;f0"], folded.stacks[OTHERS]), (2, 2));
    }

    #[test]
    fn the_hottest_are_those_that_ran_themselves() {
        let text = "a 1/1\n 1 g (x)\n 2 f (x)\n\na 1/1\n 1 g (x)\n\na 1/1\n 2 f (x)\n\n";
        let folded = folded(text);
        assert_eq!(folded.hottest(1), [("g", 2)]);
        assert_eq!(folded.hottest(9), [("g", 2), ("f", 1)]);
    }
}
