//! What a worker's clocks say, as programs read them, against what the kernel says when it is asked directly.
//!
//! `with`: clock (realtime, monotonic), by (clock_gettime, gettimeofday, time, std) and threads. Invariant: the kernel is asked before
//! and after, and what lies between is no difference, however long the worker was kept from running.
#![expect(
    unsafe_code,
    reason = "clocks are read past the C library by its call for any system call"
)]

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use super::super::{With, number, text};
use super::page::{Field, Page};

/// A difference that is one.
const DIFFERS_NS: i64 = 1_000_000;
const SECOND_NS: i64 = 1_000_000_000;
/// Reads of each thread in one operation.
const READS: u32 = 10_000;

/// A clock as the kernel says it: a system call, which no code of the process answers.
pub(super) fn kernel_ns(clock: libc::clockid_t) -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the address is that of a value that lives, and of the type that the call writes.
    let done = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, &raw mut time) };
    assert_eq!(done, 0, "there is such a clock");
    time.tv_sec * SECOND_NS + time.tv_nsec
}

fn said_ns(clock: libc::clockid_t, by: &str) -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let mut value = libc::timeval { tv_sec: 0, tv_usec: 0 };
    match by {
        "clock_gettime" => {
            // SAFETY: the address is that of a value that lives, and of its type.
            let done = unsafe { libc::clock_gettime(clock, &raw mut time) };
            assert_eq!(done, 0, "there is such a clock");
            assert!((0..SECOND_NS).contains(&time.tv_nsec), "{} ns", time.tv_nsec);
            time.tv_sec * SECOND_NS + time.tv_nsec
        }
        "gettimeofday" => {
            // SAFETY: as above; no zone is asked for.
            let done = unsafe { libc::gettimeofday(&raw mut value, std::ptr::null_mut()) };
            assert_eq!(done, 0, "it never fails");
            assert!((0..1_000_000).contains(&value.tv_usec), "{} us", value.tv_usec);
            value.tv_sec * SECOND_NS + value.tv_usec * 1000
        }
        "time" => {
            let mut also = 0;
            // SAFETY: the address is that of a value that lives, and of its type.
            let seconds = unsafe { libc::time(&raw mut also) };
            assert_eq!(seconds, also, "it says it twice");
            seconds * SECOND_NS
        }
        "std" => {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            i64::try_from(since.expect("after 1970").as_nanos()).expect("a few centuries")
        }
        _ => panic!("nothing reads a clock by {by}"),
    }
}

/// How far what is said is from what the kernel says.
fn difference(clock: libc::clockid_t, by: &str) -> (i64, i64, i64) {
    let (asked, unit) = match by {
        "time" => (libc::CLOCK_REALTIME_COARSE, SECOND_NS),
        "gettimeofday" => (clock, 1000),
        _ => (clock, 1),
    };
    let before = kernel_ns(asked) / unit * unit;
    let said = said_ns(clock, by);
    let after = kernel_ns(asked);
    let difference = if said < before { said - before } else { (said - after).max(0) };
    (said, before, difference)
}

#[derive(Debug, Default)]
struct Seen {
    least: i64,
    most: i64,
    elsewhere: i64,
    back: u64,
    first: Option<(i64, i64)>,
    last: (i64, i64),
}

/// What was seen in a phase.
#[derive(Clone, Default)]
pub(super) struct Watched(Rc<RefCell<Seen>>);

impl Watched {
    /// One look at a clock.
    pub(super) fn look(&self, clock: libc::clockid_t, by: &str) -> Result<(), i32> {
        let mut seen = self.0.borrow_mut();
        let (said, kernel, by_so_much) = difference(clock, by);
        if let Some(first) = seen.first {
            seen.back += u64::from(said < seen.last.0);
            (seen.least, seen.most) = (seen.least.min(by_so_much), seen.most.max(by_so_much));
            seen.last = (said, kernel);
            seen.first = Some(first);
        } else {
            (seen.least, seen.most) = (by_so_much, by_so_much);
            (seen.first, seen.last) = (Some((said, kernel)), (said, kernel));
        }
        let other = if clock == libc::CLOCK_REALTIME {
            libc::CLOCK_MONOTONIC
        } else {
            libc::CLOCK_REALTIME
        };
        let (.., elsewhere) = difference(other, "clock_gettime");
        seen.elsewhere = seen.elsewhere.max(elsewhere.abs());
        std::thread::sleep(Duration::from_micros(200));
        if by_so_much.abs() > DIFFERS_NS { Err(libc::ETIME) } else { Ok(()) }
    }

    /// Tells the parent.
    pub(super) fn tell(&self, page: &Page) {
        let seen = self.0.borrow();
        let Some(first) = seen.first else { return };
        let ran = (seen.last.1 - first.1).max(1);
        let speed = (seen.last.0 - first.0) as f64 / ran as f64;
        page.set(Field::ShiftLeast, seen.least.cast_unsigned());
        page.set(Field::ShiftMost, seen.most.cast_unsigned());
        page.set(Field::Elsewhere, seen.elsewhere.cast_unsigned());
        page.set(Field::Back, seen.back);
        page.set(Field::Speed, ((speed * 1e6) as i64).cast_unsigned());
    }
}

/// Looks at a clock now and then.
pub(super) fn runner(watched: Watched, with: &With) -> super::ops::Run {
    let by = text(with, "by", "clock_gettime").to_owned();
    let clock = match text(with, "clock", "realtime") {
        "realtime" => libc::CLOCK_REALTIME,
        "monotonic" => libc::CLOCK_MONOTONIC,
        other => panic!("no clock {other}"),
    };
    Box::new(move |_| watched.look(clock, &by))
}

/// Reads clocks as fast as it can on several threads, and makes and ends threads.
pub(super) fn spinner(with: &With) -> super::ops::Run {
    let threads = number(with, "threads", 4);
    Box::new(move |_| {
        std::thread::scope(|scope| {
            for thread in 0..threads {
                scope.spawn(move || {
                    let by = ["clock_gettime", "gettimeofday", "time", "std"];
                    for read in 0..READS {
                        let by = by[usize::try_from(read).expect("small") % by.len()];
                        let clock = i32::try_from(thread % 2).expect("small");
                        std::hint::black_box(said_ns(clock, by));
                    }
                });
            }
        });
        Ok(())
    })
}
