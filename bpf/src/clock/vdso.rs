//! The vDSO of a process: code of the kernel's that answers for the time without a system call. Where its functions are, what
//! room its last page has, and how a function begins.
//!
//! Invariants: only ELF for x86_64 is understood; instructions are only moved if they are of a few that mean the same elsewhere.
//! Next: `patch`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use crate::error::{During as _, Error, Result};
use crate::registry::Process;

/// Bytes of a jump with a distance of 32 bits.
pub(crate) const JUMP_LEN: usize = 5;
const JUMP: u8 = 0xe9;
/// A vDSO has two or three pages.
const LEN_MAX: u64 = 16 * PAGE;
pub(crate) const PAGE: u64 = 4096;
/// Of elf.h.
const CLASS_64: u8 = 2;
const X86_64: u64 = 62;
const DYNAMIC: u64 = 2;
const STRINGS: u64 = 5;
const SYMBOLS: u64 = 6;
const SYMBOL_LEN: usize = 24;
const SECTION_LEN: u64 = 64;

/// A mapping of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) begin: u64,
    pub(crate) end: u64,
    /// As `rw-p`.
    pub(crate) rights: String,
    /// File, or name in brackets.
    pub(crate) name: String,
}

/// The mappings of a process, by their addresses.
pub(crate) fn mappings(process: Process) -> Result<Vec<Mapping>> {
    let path = format!("/proc/{}/maps", process.pid);
    let text = fs::read_to_string(&path).during(|| format!("read {path}"))?;
    let read = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (begin, end) = words.next()?.split_once('-')?;
        let address = |text| u64::from_str_radix(text, 16).ok();
        let rights = words.next()?.to_owned();
        let name = words.nth(3).unwrap_or_default().to_owned();
        Some(Mapping { begin: address(begin)?, end: address(end)?, rights, name })
    };
    Ok(text.lines().filter_map(read).collect())
}

/// The one that is the vDSO.
pub(crate) fn find(mappings: &[Mapping]) -> Option<&Mapping> {
    mappings.iter().find(|mapping| mapping.name == "[vdso]")
}

/// A free page, with others free around it, so that it is a mapping of its own.
pub(crate) fn free_page(mappings: &[Mapping]) -> Option<u64> {
    const ROOM: u64 = 64 * PAGE;
    mappings.windows(2).rev().find_map(|pair| {
        let [below, above] = pair else { return None };
        // A stack grows downwards, and the heap upwards.
        let is_quiet = above.name != "[stack]" && below.name != "[heap]" && above.end < 1 << 47;
        let gap = above.begin.saturating_sub(below.end);
        (is_quiet && gap >= ROOM).then(|| above.begin - ROOM / 2)
    })
}

/// The functions that are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Functions {
    pub(crate) clock_gettime: u64,
    pub(crate) gettimeofday: u64,
    pub(crate) time: u64,
}

/// The bytes of a vDSO.
pub(crate) struct Image {
    base: u64,
    bytes: Vec<u8>,
}

fn number(bytes: &[u8], at: u64, len: usize) -> Option<u64> {
    let at = usize::try_from(at).ok()?;
    let mut eight = [0; 8];
    eight.get_mut(..len)?.copy_from_slice(bytes.get(at..at.checked_add(len)?)?);
    Some(u64::from_le_bytes(eight))
}

impl Image {
    /// That of a process.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn read(memory: &File, mapping: &Mapping) -> Result<Self> {
        let len = (mapping.end - mapping.begin).min(LEN_MAX);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        memory
            .read_exact_at(&mut bytes, mapping.begin)
            .during(|| format!("read the vDSO at {:#x}", mapping.begin))?;
        Ok(Self { base: mapping.begin, bytes })
    }

    /// Where it begins.
    pub(crate) const fn base(&self) -> u64 {
        self.base
    }

    fn number(&self, at: u64, len: usize) -> Option<u64> {
        number(&self.bytes, at, len)
    }

    /// Eight bytes at an address.
    pub(crate) fn word(&self, at: u64) -> Option<u64> {
        self.number(at.checked_sub(self.base)?, 8)
    }

    fn is_x86_64(&self) -> bool {
        self.bytes.starts_with(b"\x7fELF")
            && self.bytes.get(4) == Some(&CLASS_64)
            && self.number(18, 2) == Some(X86_64)
    }

    /// Value of an entry of the dynamic section, and so an offset: it is linked to zero.
    fn dynamic(&self, tag: u64) -> Option<u64> {
        let (headers, count) = (self.number(32, 8)?, self.number(56, 2)?);
        let header = (0..count).map(|index| headers + index * 56);
        let header = header.into_iter().find(|at| self.number(*at, 4) == Some(DYNAMIC))?;
        let (at, len) = (self.number(header + 8, 8)?, self.number(header + 32, 8)?);
        let mut entries = (0..len / 16).map(|index| at + index * 16);
        let entry = entries.find(|entry| self.number(*entry, 8) == Some(tag))?;
        self.number(entry + 8, 8)
    }

    fn symbol(&self, name: &str) -> Option<u64> {
        let (symbols, strings) = (self.dynamic(SYMBOLS)?, self.dynamic(STRINGS)?);
        // The names follow the symbols: nothing else says how many there are.
        let table =
            self.bytes.get(usize::try_from(symbols).ok()?..usize::try_from(strings).ok()?)?;
        let is_it = |symbol: &&[u8]| {
            let at = number(symbol, 0, 4).and_then(|at| usize::try_from(strings + at).ok());
            let text = at.and_then(|at| self.bytes.get(at..)).unwrap_or_default();
            text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
        };
        number(table.chunks_exact(SYMBOL_LEN).find(is_it)?, 8, 8).map(|value| self.base + value)
    }

    /// The functions of time.
    ///
    /// # Errors
    /// It is of another architecture, lacks one, or somebody has changed one.
    pub(crate) fn functions(&self) -> Result<Functions> {
        if !self.is_x86_64() {
            return Err(Error::unsupported(
                "the vDSO is not of x86_64: only programs of 64 bits of this architecture are met",
            ));
        }
        let find = |name: &str| {
            let at = self.symbol(name).filter(|at| at % 8 == 0);
            let at = at.ok_or_else(|| Error::unsupported(format!("the vDSO has no {name}")))?;
            let offset = usize::try_from(at - self.base).unwrap_or(usize::MAX);
            match self.bytes.get(offset) {
                Some(&JUMP) => Err(Error::usage(format!(
                    "{name} of the vDSO is changed already: by another fault of the clock, or by another tool"
                ))),
                _ => Ok(at),
            }
        };
        Ok(Functions {
            clock_gettime: find("__vdso_clock_gettime")?,
            gettimeofday: find("__vdso_gettimeofday")?,
            time: find("__vdso_time")?,
        })
    }

    /// Where the last page has room for so many bytes: they are zero, and behind the end of the ELF file.
    ///
    /// # Errors
    /// There is less.
    pub(crate) fn room(&self, len: usize) -> Result<u64> {
        let sections = self.number(40, 8).zip(self.number(60, 2));
        let file = sections.map_or(0, |(at, count)| at + count * SECTION_LEN);
        let zeros = self.bytes.iter().rev().take_while(|byte| **byte == 0).count();
        let used = self.bytes.len() - zeros;
        let begin = used.max(usize::try_from(file).unwrap_or(usize::MAX)).next_multiple_of(16);
        if begin.checked_add(len).is_none_or(|end| end > self.bytes.len()) {
            return Err(Error::unsupported(format!(
                "the vDSO has no room for {len} bytes behind its {used} of {}",
                self.bytes.len()
            )));
        }
        Ok(self.base + begin as u64)
    }

    /// The instructions at the beginning of a function that a jump would be written over, as they are to be elsewhere, and how
    /// many bytes they are; nothing if they are not understood.
    pub(crate) fn beginning(&self, function: u64) -> Option<&[u8]> {
        let code = self.bytes.get(usize::try_from(function.checked_sub(self.base)?).ok()?..)?;
        let mut len = 0;
        while len < JUMP_LEN {
            len += movable(code.get(len..)?)?;
        }
        code.get(..len)
    }
}

/// Length of an instruction that means the same wherever it is: those that functions begin with.
fn movable(code: &[u8]) -> Option<usize> {
    const REGISTERS: std::ops::RangeInclusive<u8> = 0xc0..=0xff;
    Some(match code {
        // endbr64
        [0xf3, 0x0f, 0x1e, 0xfa, ..] => 4,
        // push
        [0x50..=0x57, ..] => 1,
        [0x41, 0x50..=0x57, ..] => 2,
        // mov, xor, test: a register and another
        [0x48 | 0x49 | 0x4c | 0x4d, 0x89 | 0x8b | 0x31 | 0x85, how, ..]
            if REGISTERS.contains(how) =>
        {
            3
        }
        [0x89 | 0x8b | 0x31 | 0x85, how, ..] if REGISTERS.contains(how) => 2,
        // add, and, sub, cmp …: a register and a byte, or four
        [0x48 | 0x49, 0x83, how, _, ..] if REGISTERS.contains(how) => 4,
        [0x48 | 0x49, 0x81, how, _, _, _, _, ..] if REGISTERS.contains(how) => 7,
        [0x83, how, _, ..] if REGISTERS.contains(how) => 3,
        // mov of four bytes
        [0xb8..=0xbf, _, _, _, _, ..] => 5,
        _ => return None,
    })
}

/// A jump from one address to another.
pub(crate) fn jump(from: u64, to: u64) -> Option<[u8; JUMP_LEN]> {
    let distance = i64::try_from(to).ok()? - i64::try_from(from).ok()? - JUMP_LEN as i64;
    let mut bytes = [JUMP; JUMP_LEN];
    bytes[1..].copy_from_slice(&i32::try_from(distance).ok()?.to_le_bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Image {
        let process = Process::find(std::process::id()).expect("this one");
        let mappings = mappings(process).expect("/proc");
        let memory = File::open("/proc/self/mem").expect("/proc");
        Image::read(&memory, find(&mappings).expect("a vDSO")).expect("it is readable")
    }

    #[test]
    fn functions_of_this_kernel_are_found_and_their_beginnings_understood() {
        let image = own();
        let functions = image.functions().expect("x86_64");
        let beginning = image.beginning(functions.clock_gettime).expect("it can be moved");
        assert!(beginning.len() >= JUMP_LEN);
        let room = image.room(600).expect("it has room");
        assert!(room > functions.clock_gettime && room.is_multiple_of(16));
        assert_eq!(image.word(room), Some(0));
        assert!(image.room(image.bytes.len()).is_err());
    }

    #[test]
    fn another_architecture_and_a_changed_function_are_refused() {
        let mut image = own();
        let at = image.functions().expect("x86_64").time - image.base;
        image.bytes[usize::try_from(at).expect("small")] = JUMP;
        assert_eq!(image.functions().expect_err("a jump").kind, crate::error::Kind::Usage);
        let mut image = own();
        image.bytes[4] = 1;
        assert_eq!(image.functions().expect_err("32 bits").kind, crate::error::Kind::Unsupported);
        image.bytes.truncate(40);
        assert!(image.functions().is_err());
    }

    #[test]
    fn beginnings_are_moved_whole_and_never_what_is_relative() {
        let len = |code: &[u8]| {
            let mut image = own();
            image.bytes[..code.len()].copy_from_slice(code);
            image.beginning(image.base).map(<[u8]>::len)
        };
        // clock_gettime of Linux 6.1, 6.12 and 6.18.
        assert_eq!(len(&[0x55, 0x48, 0x89, 0xe5, 0x41, 0x55, 0x41, 0x54]), Some(6));
        assert_eq!(len(&[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5]), Some(5));
        assert_eq!(len(&[0x55, 0x48, 0x89, 0xe5, 0x41, 0x56, 0x53, 0x48]), Some(6));
        // lea of an address, a jump, a call, a comparison with memory.
        for relative in [&[0x48, 0x8d, 0x05][..], &[0xeb, 2], &[0xe8, 1, 0], &[0x81, 0x3d, 0]] {
            assert_eq!(len(&[&[0x55][..], relative, &[0; 8]].concat()), None, "{relative:x?}");
        }
    }

    #[test]
    fn jumps_reach_two_gigabytes() {
        assert_eq!(jump(0x1000, 0x1005), Some([0xe9, 0, 0, 0, 0]));
        assert_eq!(jump(0x1005, 0x1000), Some([0xe9, 0xf6, 0xff, 0xff, 0xff]));
        assert_eq!(jump(0x1000, 0x1_0000_0000), None);
    }

    #[test]
    fn a_page_is_free_on_both_sides() {
        let mapping = |begin, end, name: &str| Mapping {
            begin,
            end,
            rights: "rw-p".to_owned(),
            name: name.to_owned(),
        };
        let all = [
            mapping(0x1000, 0x2000, "a"),
            mapping(0x10_0000, 0x20_0000, "b"),
            mapping(0x21_0000, 0x22_0000, "c"),
            mapping(0x90_0000, 0x91_0000, "[stack]"),
        ];
        assert_eq!(free_page(&all), Some(0xe_0000), "not below a stack, nor in a small gap");
        assert_eq!(free_page(&all[..1]), None);
    }
}
