//! The machine code that answers for the vDSO's functions of time, and what it is told.
//!
//! It lies in the unused end of the vDSO's last page, so that no executable memory is added to the process, and reads a page of numbers,
//! [`Told`]. The time itself comes from the vDSO's own `clock_gettime`, whose first instructions, where our jump is now, are kept
//! as a copy (see `vdso`); so no system call is made that the process would not have made, and a read stays cheap. Invariants:
//! position-independent, all that is not of the page is relative to itself; what is not chosen, or read after the deadline, is
//! answered as without it; calls within are counted, since who takes it away must know. Next: `patch`.
#![expect(unsafe_code, reason = "where the assembled code begins and ends is said by symbols")]

use std::arch::global_asm;
use std::mem::offset_of;
use std::ops::Range;
use std::ptr::addr_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Clocks that can be chosen: numbers below this.
pub(crate) const CLOCKS: usize = 16;
/// Counts, and changes nothing.
pub(crate) const SHADOW: u64 = 1;
/// Changes.
pub(crate) const ARMED: u64 = 2;
/// One of [`Told::rate`].
pub(crate) const RATE_ONE: f64 = 4_294_967_296.0;

/// A clock.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Clock {
    /// Not zero if it is.
    pub(crate) is_chosen: u64,
    /// What it said when the fault began, in nanoseconds.
    pub(crate) since: i64,
}

/// The page that the code reads and counts in.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Told {
    /// By which it is known, as the code's own copy.
    pub(crate) mark: u64,
    /// Of CLOCK_MONOTONIC: from then on nothing is done.
    pub(crate) deadline: u64,
    /// Of CLOCK_MONOTONIC: when the fault began.
    pub(crate) since: u64,
    /// Zero, [`SHADOW`] or [`ARMED`].
    pub(crate) mode: u64,
    /// So many are changed at most; zero for any number.
    pub(crate) max_hits: u64,
    /// Calls.
    pub(crate) seen: u64,
    /// Of a chosen clock, before the deadline.
    pub(crate) matched: u64,
    /// When there was something to change; more than `max_hits` are not changed.
    pub(crate) tickets: u64,
    /// Calls that have not returned.
    pub(crate) inside: u64,
    /// Nanoseconds after `since` before anything is changed.
    pub(crate) after: u64,
    /// Nanoseconds that are added.
    pub(crate) offset: i64,
    /// What is added of the time since the fault began, in units of 2^-32: -1 stops the clock, 1 doubles its speed.
    pub(crate) rate: i64,
    /// Changed so long of each period.
    pub(crate) on: u64,
    /// Nanoseconds; zero for all the time.
    pub(crate) period: u64,
    /// Address of what reads a clock, as `clock_gettime`.
    pub(crate) original: u64,
    /// By their numbers.
    pub(crate) clocks: [Clock; CLOCKS],
}

global_asm!(
    ".pushsection .rodata.chaos_clock, \"a\", @progbits",
    ".balign 16",
    "chaos_clock_begin:",
    // The mark by which this code is known, and where the numbers are: both are filled in.
    ".quad 0",
    "chaos_clock_data: .quad 0",
    // int clock_gettime(clockid_t clock, struct timespec *answer)
    "chaos_clock_gettime:",
    "xor eax, eax",
    "jmp 2f",
    // int gettimeofday(struct timeval *answer, struct timezone *zone)
    "chaos_clock_gettimeofday:",
    "mov rdx, rsi",
    "mov rsi, rdi",
    "xor edi, edi", // CLOCK_REALTIME
    "mov eax, 1",
    "jmp 2f",
    // time_t time(time_t *answer)
    "chaos_clock_time:",
    "mov rsi, rdi",
    "mov edi, 5", // CLOCK_REALTIME_COARSE
    "mov eax, 2",
    // All of them: eax says which, edi is the clock, rsi takes the answer, rdx the zone.
    "2:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "sub rsp, 40", // a timespec at [rsp], and another at [rsp + 16]
    "mov rbx, [rip + chaos_clock_data]",
    "lock inc qword ptr [rbx + {INSIDE}]",
    "chaos_clock_counted:",
    "mov r13d, eax",
    "mov ebp, edi",
    "mov r12, rsi",
    "mov r14, rdx",
    "cmp r13d, 1",
    "jne 3f",
    "test r12, r12", // gettimeofday for the zone alone
    "jz 8f",
    "3:",
    "lock inc qword ptr [rbx + {SEEN}]",
    "mov rsi, rsp",
    "call [rbx + {ORIGINAL}]",
    "test eax, eax",
    "jnz 9f", // an error is passed on
    "cmp ebp, {CLOCKS}",
    "jae 7f",
    "mov r15d, ebp",
    "shl r15d, 4",
    "lea r15, [rbx + r15 + {ROWS}]",
    "cmp qword ptr [r15], 0",
    "je 7f",
    // Is it the time for it?
    "mov edi, 1", // CLOCK_MONOTONIC
    "lea rsi, [rsp + 16]",
    "call [rbx + {ORIGINAL}]",
    "imul rax, [rsp + 16], 1000000000",
    "add rax, [rsp + 24]",
    "cmp rax, [rbx + {DEADLINE}]",
    "jae 7f",
    "cmp qword ptr [rbx + {MODE}], 0",
    "je 7f",
    "lock inc qword ptr [rbx + {MATCHED}]",
    "sub rax, [rbx + {SINCE}]",
    "jb 7f",
    "sub rax, [rbx + {AFTER}]",
    "jb 7f",
    "mov rcx, [rbx + {PERIOD}]",
    "test rcx, rcx",
    "jz 4f",
    "xor edx, edx",
    "div rcx",
    "cmp rdx, [rbx + {ON}]",
    "jae 7f",
    // r8: what it is to say. What it says, the offset, and the rate's share of the time since the beginning.
    "4:",
    "imul r8, [rsp], 1000000000",
    "add r8, [rsp + 8]",
    "mov rax, r8",
    "sub rax, [r15 + 8]",
    "imul qword ptr [rbx + {RATE}]",
    "shrd rax, rdx, 32",
    "add r8, rax",
    "add r8, [rbx + {OFFSET}]",
    "mov eax, 1",
    "lock xadd [rbx + {TICKETS}], rax",
    "cmp qword ptr [rbx + {MODE}], {ARMED}",
    "jne 7f",
    "mov rcx, [rbx + {MAX_HITS}]",
    "test rcx, rcx",
    "jz 5f",
    "cmp rax, rcx",
    "jae 7f",
    // Nanoseconds are never negative.
    "5:",
    "mov rax, r8",
    "cqo",
    "mov ecx, 1000000000",
    "idiv rcx",
    "test rdx, rdx",
    "jns 6f",
    "dec rax",
    "add rdx, rcx",
    "6:",
    "mov [rsp], rax",
    "mov [rsp + 8], rdx",
    // The answer, in the form of each.
    "7:",
    "mov rax, [rsp]",
    "mov rdx, [rsp + 8]",
    "cmp r13d, 1",
    "ja 10f",
    "mov [r12], rax",
    "mov [r12 + 8], rdx",
    "mov eax, 0",
    "jne 9f",
    "mov rax, rdx",
    "xor edx, edx",
    "mov ecx, 1000",
    "div rcx",
    "mov [r12 + 8], rax",
    "8:",
    "xor eax, eax",
    "test r14, r14",
    "jz 9f",
    "xor edi, edi",
    "mov rsi, r14",
    "mov eax, 96", // the zone: gettimeofday(NULL, zone)
    "syscall",
    "jmp 9f",
    "10:",
    "test r12, r12",
    "jz 9f",
    "mov [r12], rax",
    "9:",
    "chaos_clock_uncounted:",
    "lock dec qword ptr [rbx + {INSIDE}]",
    "add rsp, 40",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    // For a vDSO whose first instructions are not understood: clock_gettime as a system call.
    "chaos_clock_syscall:",
    "mov eax, 228",
    "syscall",
    "ret",
    // Makes one system call in a thread of the process, and gives it back all its registers, with nobody's help: the tracer that
    // made it jump here may be dead. What they were is on the stack, beyond the 128 bytes that are the function's own.
    "chaos_clock_visit:",
    "syscall",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop r10",
    "pop r8",
    "pop r9",
    "pop r11",
    "pop rcx",
    "pop rax",
    "popfq",
    "ret 128",
    ".balign 8",
    "chaos_clock_end:",
    ".popsection",
    INSIDE = const offset_of!(Told, inside),
    SEEN = const offset_of!(Told, seen),
    ORIGINAL = const offset_of!(Told, original),
    CLOCKS = const CLOCKS,
    ROWS = const offset_of!(Told, clocks),
    DEADLINE = const offset_of!(Told, deadline),
    MODE = const offset_of!(Told, mode),
    MATCHED = const offset_of!(Told, matched),
    SINCE = const offset_of!(Told, since),
    AFTER = const offset_of!(Told, after),
    PERIOD = const offset_of!(Told, period),
    ON = const offset_of!(Told, on),
    RATE = const offset_of!(Told, rate),
    OFFSET = const offset_of!(Told, offset),
    ARMED = const ARMED,
    TICKETS = const offset_of!(Told, tickets),
    MAX_HITS = const offset_of!(Told, max_hits),
);

unsafe extern "C" {
    static chaos_clock_begin: u8;
    static chaos_clock_gettime: u8;
    static chaos_clock_gettimeofday: u8;
    static chaos_clock_time: u8;
    static chaos_clock_counted: u8;
    static chaos_clock_uncounted: u8;
    static chaos_clock_syscall: u8;
    static chaos_clock_visit: u8;
    static chaos_clock_end: u8;
}

/// Words that [`visit`](Code::visit) takes from the stack: rdi, rsi, rdx, r10, r8, r9, r11, rcx, rax, the flags, and where to go on.
pub(crate) const VISIT_WORDS: usize = 11;
/// Bytes below the stack's end that belong to the function that runs (System V ABI, x86_64, 3.2.2).
pub(crate) const RED_ZONE: u64 = 128;

/// The code, and where its parts begin.
#[derive(Clone, Debug)]
pub(crate) struct Code {
    pub(crate) bytes: Vec<u8>,
    pub(crate) clock_gettime: usize,
    pub(crate) gettimeofday: usize,
    pub(crate) time: usize,
    /// Reads a clock by a system call.
    pub(crate) syscall: usize,
    /// Makes one system call for somebody else.
    pub(crate) visit: usize,
    /// Who is in one of these is not counted in [`Told::inside`].
    pub(crate) uncounted: [Range<usize>; 3],
}

impl Code {
    /// The code that reads its numbers at this address, and is known by this mark.
    pub(crate) fn new(data: u64, mark: u64) -> Self {
        let begin = addr_of!(chaos_clock_begin);
        let at = |symbol: *const u8| symbol.addr() - begin.addr();
        // SAFETY: the two symbols are the ends of one piece of this program's constants, assembled above.
        let bytes = unsafe { std::slice::from_raw_parts(begin, at(addr_of!(chaos_clock_end))) };
        let mut bytes = bytes.to_vec();
        let filled = mark.to_le_bytes().into_iter().chain(data.to_le_bytes());
        bytes.iter_mut().zip(filled).for_each(|(to, from)| *to = from);
        Self {
            bytes,
            clock_gettime: at(addr_of!(chaos_clock_gettime)),
            gettimeofday: at(addr_of!(chaos_clock_gettimeofday)),
            time: at(addr_of!(chaos_clock_time)),
            syscall: at(addr_of!(chaos_clock_syscall)),
            visit: at(addr_of!(chaos_clock_visit)),
            uncounted: [
                0..at(addr_of!(chaos_clock_counted)),
                at(addr_of!(chaos_clock_uncounted))..at(addr_of!(chaos_clock_syscall)),
                at(addr_of!(chaos_clock_visit))..at(addr_of!(chaos_clock_end)),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;
    const SECOND: i64 = 1_000_000_000;

    /// The code in this process, reading its numbers from a page of this process.
    struct Loaded {
        page: *mut u8,
        code: Code,
    }

    fn map() -> *mut u8 {
        let rights = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let how = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: new memory, which nothing else knows of.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, rights, how, -1, 0) };
        assert_ne!(page, libc::MAP_FAILED, "memory");
        page.cast()
    }

    impl Loaded {
        fn new(told: &Told) -> Self {
            let (page, at) = (map(), map());
            let code = Code::new(page.addr() as u64, 7);
            let told = Told { original: (at.addr() + code.syscall) as u64, ..*told };
            // SAFETY: both are pages of ours, and what is copied is shorter.
            unsafe { page.copy_from(told.as_bytes().as_ptr(), size_of::<Told>()) };
            assert!(code.bytes.len() < PAGE);
            // SAFETY: as above.
            unsafe { at.copy_from(code.bytes.as_ptr(), code.bytes.len()) };
            let mut loaded = Self { page, code };
            for place in [
                &mut loaded.code.clock_gettime,
                &mut loaded.code.gettimeofday,
                &mut loaded.code.time,
            ] {
                *place += at.addr();
            }
            loaded
        }

        fn told(&self) -> Told {
            // SAFETY: the page lives, is aligned, and all its bytes are numbers.
            unsafe { self.page.cast::<Told>().read_volatile() }
        }

        fn set(&self, told: &Told) {
            let original = self.told().original;
            // SAFETY: as above.
            unsafe { self.page.cast::<Told>().write_volatile(Told { original, ..*told }) };
        }

        fn clock_gettime(&self, clock: i32) -> (i32, i64, i64) {
            type Function = extern "C" fn(i32, *mut libc::timespec) -> i32;
            // SAFETY: the code there has this signature.
            let function: Function = unsafe { std::mem::transmute(self.code.clock_gettime) };
            let mut time = libc::timespec { tv_sec: -1, tv_nsec: -1 };
            (function(clock, &raw mut time), time.tv_sec, time.tv_nsec)
        }

        fn ns(&self, clock: i32) -> i64 {
            let (result, seconds, ns) = self.clock_gettime(clock);
            assert_eq!(result, 0);
            assert!((0..SECOND).contains(&ns), "{ns}");
            seconds * SECOND + ns
        }
    }

    fn now(clock: i32) -> i64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the address is that of a value that lives, and of its type.
        unsafe { libc::clock_gettime(clock, &raw mut time) };
        time.tv_sec * SECOND + time.tv_nsec
    }

    /// Armed for the wall clock, for long.
    fn armed() -> Told {
        let since = now(1).cast_unsigned();
        let mut told = Told { since, deadline: u64::MAX >> 1, mode: ARMED, ..Told::default() };
        for clock in [0, 5] {
            told.clocks[clock] = Clock { is_chosen: 1, since: now(0) };
        }
        told
    }

    fn near(one: i64, other: i64) -> bool {
        (one - other).abs() < SECOND / 2
    }

    #[test]
    fn an_offset_is_added_to_the_chosen_clock_in_each_form() {
        let loaded = Loaded::new(&Told { offset: -3600 * SECOND, ..armed() });
        assert!(near(loaded.ns(0), now(0) - 3600 * SECOND));
        assert!(near(loaded.ns(1), now(1)), "another clock is as it was");
        type OfDay = extern "C" fn(*mut libc::timeval, *mut [i32; 2]) -> i32;
        // SAFETY: the code there has this signature.
        let of_day: OfDay = unsafe { std::mem::transmute(loaded.code.gettimeofday) };
        let (mut value, mut zone) = (libc::timeval { tv_sec: 0, tv_usec: -1 }, [77; 2]);
        assert_eq!(of_day(&raw mut value, std::ptr::null_mut()), 0);
        assert!(near(value.tv_sec * SECOND + value.tv_usec * 1000, now(0) - 3600 * SECOND));
        assert!((0..1_000_000).contains(&value.tv_usec));
        assert_eq!(of_day(std::ptr::null_mut(), &raw mut zone), 0);
        assert_ne!(zone[0], 77, "the zone is written");
        type Time = extern "C" fn(*mut i64) -> i64;
        // SAFETY: the code there has this signature.
        let time: Time = unsafe { std::mem::transmute(loaded.code.time) };
        let mut also = 0;
        let seconds = time(&raw mut also);
        assert_eq!(seconds, also);
        assert!((seconds - (now(0) / SECOND - 3600)).abs() <= 1);
        assert!((time(std::ptr::null_mut()) - seconds).abs() <= 1);
        let told = loaded.told();
        assert_eq!((told.seen, told.matched, told.tickets, told.inside), (5, 4, 4, 0));
    }

    #[test]
    fn nanoseconds_are_never_negative() {
        let loaded = Loaded::new(&armed());
        for offset in [-1, -999_999_999, -SECOND, 999_999_999, -now(0) - 5 * SECOND / 2] {
            loaded.set(&Told { offset, ..armed() });
            assert!(near(loaded.ns(0), now(0) + offset), "{offset}");
        }
    }

    #[test]
    fn a_rate_counts_from_the_beginning() {
        let loaded = Loaded::new(&armed());
        let ago = 100 * SECOND;
        for (rate, ahead) in [(2.0, 100), (0.0, -100), (-1.0, -200), (0.9, -10), (1000.0, 99_900)] {
            let mut told = Told { rate: ((rate - 1.0) * RATE_ONE) as i64, ..armed() };
            told.clocks[0].since -= ago;
            loaded.set(&told);
            let ahead = now(0) + ahead * SECOND;
            assert!(near(loaded.ns(0), ahead) || rate > 2.0, "{rate}");
            assert!((loaded.ns(0) - ahead).abs() < 500 * SECOND, "{rate}");
        }
    }

    #[test]
    fn nothing_is_changed_before_after_off_or_beyond_the_hits() {
        let hour = Told { offset: 3600 * SECOND, ..armed() };
        let loaded = Loaded::new(&hour);
        let is_changed = |told: &Told| {
            loaded.set(told);
            !near(loaded.ns(0), now(0))
        };
        assert!(is_changed(&hour));
        assert!(!is_changed(&Told { deadline: now(1).cast_unsigned(), ..hour }));
        assert!(!is_changed(&Told { mode: 0, ..hour }));
        assert!(!is_changed(&Told { after: 60_000_000_000, ..hour }));
        let strobe = Told { on: 1_000_000_000, period: 10_000_000_000, ..hour };
        assert!(is_changed(&Told { since: hour.since - 20_000_000_000, ..strobe }));
        assert!(!is_changed(&Told { since: hour.since - 25_000_000_000, ..strobe }));
        assert!(!is_changed(&Told { mode: SHADOW, ..hour }));
        assert_eq!((loaded.told().matched, loaded.told().tickets), (1, 1), "it is counted");
        loaded.set(&Told { max_hits: 2, ..hour });
        let changed = (0..5).filter(|_| !near(loaded.ns(0), now(0))).count();
        assert_eq!((changed, loaded.told().inside), (2, 0));
    }

    #[test]
    fn errors_and_clocks_of_other_numbers_are_passed_on() {
        let loaded = Loaded::new(&Told { offset: SECOND, ..armed() });
        for clock in [12, 15, 16, 99, i32::MAX] {
            assert_eq!(loaded.clock_gettime(clock).0, -libc::EINVAL, "{clock}");
        }
        // The processor's time of this process, by its number: negative.
        let own = (!0) << 3 | 2;
        assert!(loaded.ns(own) > 0);
        assert_eq!(loaded.told().inside, 0);
    }
}
