//! Changes the clocks of one process, and gives them back: three jumps at the beginnings of the vDSO's functions of time, a piece of code
//! behind its end, and a page of numbers.
//!
//! The vDSO's pages are shared by all processes until one is written to through ptrace: the writer's target gets a copy of its own.
//! Order: the code; the page, which the process maps itself (a *visit* of one of its threads); its numbers; the jumps, each one
//! write of eight bytes. Backwards when it is undone, when the numbers go first: so the effect ends at once, and also for a
//! process that cannot be stopped. Invariants: killed at any step, the process goes on unharmed, and the mark in the code says that there
//! is something to undo; jumps are written while every thread is stopped outside of the bytes; code and page are taken away when no
//! thread is within, on its way back, or interrupted there by a signal, and left behind, unused, if that does not come. Next: `code`, `ptrace`,
//! `visit`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::code::{Code, Told};
use super::ptrace::{self, Stopped, TRIES};
use super::vdso::{self, Functions, Image, JUMP_LEN, PAGE};
use super::visit::visit;
use crate::error::{During as _, Error, Result};
use crate::registry::Process;

/// As much of a stack is searched for addresses of ours.
const STACK_LEN: usize = 32 << 10;
/// What was changed, and how it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch {
    /// Where the vDSO is.
    vdso: u64,
    /// Known by this.
    mark: u64,
    /// Beginnings of functions, and the eight bytes that were there.
    entries: Vec<(u64, u64)>,
    /// Where the code is.
    code: u64,
    /// Bytes of it.
    code_len: u64,
    /// Where in the code one may be without being counted, as offsets.
    uncounted: Vec<(u64, u64)>,
    /// Where a thread is made to map and unmap the page.
    pub(super) visit: u64,
    /// The page.
    page: u64,
}

/// All that is needed to change the clocks of a process.
pub(crate) struct Plan {
    process: Process,
    patch: Patch,
    bytes: Vec<u8>,
    jumps: Vec<u64>,
    told: Told,
    is_filtered: bool,
}

/// A line of `/proc/PID/status`.
fn status(process: Process, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// Refuses processes that would be harmed, or not be met.
fn check(process: Process) -> Result<()> {
    let refuse = |why: String| Err(Error::unsupported(format!("process {}: {why}", process.pid)));
    let tracer = status(process, "TracerPid");
    if tracer != "0" {
        return refuse(format!("process {tracer} traces it already"));
    }
    if crate::faults::target::is_stopped(process.pid) {
        return refuse("it is stopped: resume it before".to_owned());
    }
    if status(process, "x86_Thread_features").contains("shstk") {
        return refuse("it has a shadow stack, which refuses returns to elsewhere".to_owned());
    }
    let clocks = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/time")).ok();
    if clocks(&process.pid.to_string()) != clocks("self") {
        return refuse("it is in another namespace of time, whose clocks are others".to_owned());
    }
    Ok(())
}

impl Plan {
    /// Looks at a process. Nothing is done.
    ///
    /// # Errors
    /// It is one that cannot be met: see [`check`], `vdso`.
    pub(crate) fn new(process: Process, told: &Told, mark: u64) -> Result<Self> {
        check(process)?;
        let doing = format!("process {}", process.pid);
        let memory = ptrace::memory(process)?;
        let mappings = vdso::mappings(process)?;
        let mapping = vdso::find(&mappings)
            .ok_or_else(|| Error::unsupported(format!("{doing}: it has no vDSO")))?;
        let image = Image::read(&memory, mapping)?;
        let functions = image.functions().map_err(|error| error.during(&doing))?;
        let page = vdso::free_page(&mappings)
            .ok_or_else(|| Error::failed(format!("{doing}: there is no room for a page")))?;
        let is_filtered = status(process, "Seccomp") != "0";
        let mut code = Code::new(page, mark);
        let original =
            own(&mut code, &image, functions, is_filtered).map_err(|error| error.during(&doing))?;
        let at = image.room(code.bytes.len()).map_err(|error| error.during(&doing))?;
        relocate(&mut code, at, functions, &original)?;
        let (entries, jumps) = entries(&code, at, &image, functions)?;
        Ok(Self {
            process,
            patch: Patch {
                vdso: image.base(),
                mark,
                entries,
                code: at,
                code_len: code.bytes.len() as u64,
                uncounted: code
                    .uncounted
                    .iter()
                    .map(|range| (range.start as u64, range.end as u64))
                    .collect(),
                visit: at + code.visit as u64,
                page,
            },
            bytes: code.bytes,
            jumps,
            told: Told { mark, original: at + original.at() as u64, ..*told },
            is_filtered,
        })
    }

    /// How it is undone.
    pub(crate) fn patch(&self) -> Patch {
        self.patch.clone()
    }

    /// Does it.
    ///
    /// # Errors
    /// The process is gone, does not stop, or has changed since.
    pub(crate) fn apply(&self) -> Result<()> {
        let patch = &self.patch;
        let mut stopped = Stopped::stop(self.process, self.is_filtered)?;
        // Another fault, or an exec, may have been faster.
        let is_as_it_was = patch.entries.iter().all(|(at, was)| stopped.word(*at) == Some(*was))
            && words(patch.code, patch.code_len).all(|at| stopped.word(at) == Some(0));
        if !is_as_it_was {
            return Err(Error::failed(format!(
                "process {}: its vDSO has changed meanwhile; try again",
                self.process.pid
            )));
        }
        for (at, bytes) in words(patch.code, patch.code_len).zip(self.bytes.chunks_exact(8)) {
            let word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
            stopped.poke(at, word)?;
        }
        let map = [
            patch.page,
            PAGE,
            bits(libc::PROT_READ | libc::PROT_WRITE),
            bits(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE),
            u64::MAX,
            0,
        ];
        let is_there = |memory: &File| read_told(memory, patch.page).is_some();
        if !visit(&mut stopped, patch, bits(libc::SYS_mmap), map, is_there)? {
            return Err(Error::failed(format!(
                "process {}: it could not map a page (its limits of memory, or of a seccomp filter)",
                self.process.pid
            )));
        }
        stopped
            .memory()
            .write_all_at(self.told.as_bytes(), patch.page)
            .during(|| format!("write to process {}", self.process.pid))?;
        out_of_the_way(&mut stopped, patch)?;
        for ((at, _), jump) in patch.entries.iter().zip(&self.jumps) {
            stopped.poke(*at, *jump)?;
        }
        Ok(())
    }
}

/// The bits of a number that is not negative.
fn bits(number: impl Into<i64>) -> u64 {
    u64::try_from(number.into()).unwrap_or(0)
}

/// Addresses of the words of a piece of memory.
fn words(at: u64, len: u64) -> impl Iterator<Item = u64> {
    (0..len / 8).map(move |index| at + index * 8)
}

/// How the code reads the time.
enum Original {
    /// By the function's own beginning, copied to here, and the rest of it.
    Copied { at: usize, len: usize },
    /// By a system call.
    Called { at: usize },
}

impl Original {
    const fn at(&self) -> usize {
        match self {
            Self::Copied { at, .. } | Self::Called { at } => *at,
        }
    }
}

/// Puts the beginning of `clock_gettime` behind the code, if it can be moved.
fn own(
    code: &mut Code,
    image: &Image,
    functions: Functions,
    is_filtered: bool,
) -> Result<Original> {
    let Some(beginning) = image.beginning(functions.clock_gettime) else {
        if is_filtered {
            return Err(Error::unsupported(
                "it has a seccomp filter, which may not allow the system call that this vDSO's code cannot do without",
            ));
        }
        return Ok(Original::Called { at: code.syscall });
    };
    let at = code.bytes.len();
    code.bytes.extend(beginning);
    // The jump to the rest is filled in when the place of the code is known.
    code.bytes.extend([0; JUMP_LEN]);
    code.bytes.resize(code.bytes.len().next_multiple_of(8), 0);
    Ok(Original::Copied { at, len: beginning.len() })
}

fn too_far() -> Error {
    Error::unsupported("the vDSO is too large for a jump")
}

fn relocate(code: &mut Code, to: u64, functions: Functions, original: &Original) -> Result<()> {
    if let Original::Copied { at, len } = original {
        let from = at + len;
        let rest = functions.clock_gettime + *len as u64;
        let jump = vdso::jump(to + from as u64, rest).ok_or_else(too_far)?;
        let place = code.bytes.get_mut(from..from + JUMP_LEN).ok_or_else(too_far)?;
        place.copy_from_slice(&jump);
    }
    Ok(())
}

type Entries = (Vec<(u64, u64)>, Vec<u64>);

/// What the beginnings of the functions are, and will be.
fn entries(code: &Code, at: u64, image: &Image, functions: Functions) -> Result<Entries> {
    let all = [
        (functions.clock_gettime, code.clock_gettime),
        (functions.gettimeofday, code.gettimeofday),
        (functions.time, code.time),
    ];
    let mut entries = (Vec::new(), Vec::new());
    for (function, offset) in all {
        let was = image.word(function).ok_or_else(too_far)?;
        let jump = vdso::jump(function, at + offset as u64).ok_or_else(too_far)?;
        let mut bytes = was.to_le_bytes();
        bytes.iter_mut().zip(jump).for_each(|(to, from)| *to = from);
        entries.0.push((function, was));
        entries.1.push(u64::from_le_bytes(bytes));
    }
    Ok(entries)
}

/// Lets threads go on that are within the bytes that are about to be written: not at their beginning, which is a whole instruction.
fn out_of_the_way(stopped: &mut Stopped, patch: &Patch) -> Result<()> {
    for number in 0..TRIES {
        let mut within = Vec::new();
        for thread in stopped.threads() {
            let at = stopped.registers(thread)?.rip;
            if patch.entries.iter().any(|(entry, _)| at > *entry && at < entry + JUMP_LEN as u64) {
                within.push(thread);
            }
        }
        if within.is_empty() {
            return Ok(());
        }
        if within.iter().any(|thread| !stopped.may_run(*thread)) {
            break;
        }
        stopped.nudge(&within, number)?;
    }
    Err(Error::failed("a thread stays at the beginning of a function of the vDSO; try again"))
}

fn read_told(memory: &File, page: u64) -> Option<Told> {
    let mut bytes = [0; size_of::<Told>()];
    memory.read_exact_at(&mut bytes, page).ok()?;
    Told::read_from_bytes(&bytes).ok()
}

impl Patch {
    /// Whether an address is in the code.
    pub(super) fn has(&self, at: u64) -> bool {
        at.wrapping_sub(self.code) < self.code_len
    }

    /// What the process has counted, if it is still there as it was.
    pub(crate) fn told(&self, process: Process) -> Option<Told> {
        if !process.is_alive() {
            return None;
        }
        let memory = ptrace::memory(process).ok()?;
        read_told(&memory, self.page).filter(|told| told.mark == self.mark)
    }

    /// Ends the effect, at once and for as long as it lasts.
    pub(crate) fn disarm(&self, process: Process) {
        if self.told(process).is_some()
            && let Ok(memory) = ptrace::memory(process)
        {
            let mode = std::mem::offset_of!(Told, mode) as u64;
            // It ends by its deadline otherwise, or when it is undone.
            let _ = memory.write_all_at(&[0; 8], self.page + mode);
        }
    }

    /// Gives the process its clocks back. Nothing is done to one that is gone, runs another program, or has them.
    ///
    /// # Errors
    /// It does not stop, or the kernel refuses.
    pub(crate) fn undo(&self, process: Process) -> Result<()> {
        self.disarm(process);
        if !self.is_there(process) {
            return Ok(());
        }
        let is_filtered = status(process, "Seccomp") != "0";
        let mut stopped = match Stopped::stop(process, is_filtered) {
            Err(_) if !self.is_there(process) => return Ok(()),
            other => other?,
        };
        for (at, was) in &self.entries {
            if stopped.word(*at).is_some_and(|word| self.is_ours(*at, word)) {
                // Who is in the bytes has begun the jump, and so is at its beginning or beyond.
                stopped.poke(*at, *was)?;
            }
        }
        for number in 0..TRIES {
            let within = self.within(&stopped)?;
            if within.is_empty() {
                return self.clear(&mut stopped);
            }
            if within.iter().any(|thread| !stopped.may_run(*thread)) {
                break;
            }
            stopped.nudge(&within, number)?;
        }
        // A thread that never comes back, such as one that left by longjmp: what it might come back to stays, and nobody else
        // comes there.
        Ok(())
    }

    /// Whether our code is there.
    fn is_there(&self, process: Process) -> bool {
        let mappings = vdso::mappings(process).unwrap_or_default();
        let is_same = vdso::find(&mappings).is_some_and(|vdso| vdso.begin == self.vdso);
        let mut mark = [0; 8];
        is_same
            && process.is_alive()
            && ptrace::memory(process)
                .is_ok_and(|memory| memory.read_exact_at(&mut mark, self.code).is_ok())
            && u64::from_le_bytes(mark) == self.mark
    }

    /// Whether a word is a jump to our code.
    fn is_ours(&self, at: u64, word: u64) -> bool {
        let [opcode, one, two, three, four, ..] = word.to_le_bytes();
        let distance = i64::from(i32::from_le_bytes([one, two, three, four]));
        opcode == 0xe9 && self.has((at + JUMP_LEN as u64).wrapping_add_signed(distance))
    }

    /// Threads that run our code, or come back to it: all of them if one has not returned and it is not known which. Where nobody can be
    /// without being counted, an address on a stack is what an earlier call has left there.
    fn within(&self, stopped: &Stopped) -> Result<Vec<i32>> {
        let told = read_told(stopped.memory(), self.page).filter(|told| told.mark == self.mark);
        let is_counted = told.is_some_and(|told| told.inside != 0);
        let mut within = Vec::new();
        for thread in stopped.threads() {
            let registers = stopped.registers(thread)?;
            let mut stack = vec![0; STACK_LEN];
            let read = stopped.memory().read_at(&mut stack, registers.rsp).unwrap_or(0);
            let mut words = stack.get(..read).unwrap_or_default().chunks_exact(8);
            let is_on_stack = words.any(|word| {
                let at = word.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
                self.has(at) && (is_counted || self.is_uncounted(at))
            });
            if self.has(registers.rip) || is_on_stack {
                within.push(thread);
            }
        }
        if within.is_empty() && is_counted { Ok(stopped.threads()) } else { Ok(within) }
    }

    fn is_uncounted(&self, at: u64) -> bool {
        let offset = at.wrapping_sub(self.code);
        self.uncounted.iter().any(|(begin, end)| (*begin..*end).contains(&offset))
    }

    /// Takes away the page and the code, which nobody uses.
    fn clear(&self, stopped: &mut Stopped) -> Result<()> {
        let page = read_told(stopped.memory(), self.page);
        // Without a mark it was mapped and never written to.
        let is_ours = page.is_some_and(|told| {
            let is_new = told.as_bytes().iter().all(|byte| *byte == 0);
            told.mark == self.mark || (is_new && self.is_alone(stopped.process()))
        });
        if is_ours {
            let arguments = [self.page, PAGE, 0, 0, 0, 0];
            let is_gone = |memory: &File| read_told(memory, self.page).is_none();
            // A process that somebody else has stopped keeps it: nothing knows of it any more.
            visit(stopped, self, bits(libc::SYS_munmap), arguments, is_gone)?;
        }
        // The mark goes last.
        let words: Vec<u64> = words(self.code, self.code_len).collect();
        for at in words.iter().rev() {
            stopped.poke(*at, 0)?;
        }
        Ok(())
    }

    /// Whether the page is a mapping of its own.
    fn is_alone(&self, process: Process) -> bool {
        vdso::mappings(process).unwrap_or_default().iter().any(|mapping| {
            mapping.begin == self.page
                && mapping.end == self.page + PAGE
                && mapping.rights == "rw-p"
                && mapping.name.is_empty()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_of_ours_are_told_from_others() {
        let patch = Patch {
            vdso: 0x10_0000,
            mark: 1,
            entries: Vec::new(),
            code: 0x10_1800,
            code_len: 0x100,
            uncounted: vec![(0, 0x20), (0x80, 0x90)],
            visit: 0x10_18f0,
            page: 0x20_0000,
        };
        let word = |to: u64| {
            let mut bytes = [0x90; 8];
            bytes[..JUMP_LEN].copy_from_slice(&vdso::jump(0x10_0800, to).expect("near"));
            u64::from_le_bytes(bytes)
        };
        assert!(patch.is_ours(0x10_0800, word(0x10_1810)));
        assert!(!patch.is_ours(0x10_0800, word(0x10_1900)), "it goes beyond");
        assert!(!patch.is_ours(0x10_0800, 0x5541_e589_4855), "it is no jump");
        let uncounted = [0x1800, 0x181f, 0x1880].map(|at| patch.is_uncounted(0x10_0000 + at));
        assert_eq!(uncounted, [true; 3]);
        let counted = [0x17ff, 0x1820, 0x187f, 0x1890].map(|at| patch.is_uncounted(0x10_0000 + at));
        assert_eq!(counted, [false; 4]);
    }
}
