//! A visit: one thread of a stopped process is made to do one system call for it, and then goes on as if nothing had been.
//!
//! Its registers are put on its stack, beyond what its function may use, and it takes them back by itself (`code`): so a tracer that is killed
//! meanwhile leaves a thread that comes back. Invariants: a call that it was interrupted in starts again, as the kernel would have it;
//! no thread is taken out of a restartable sequence; one that somebody else has stopped does not run. Next: `patch`.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use zerocopy::IntoBytes as _;

use super::code::{RED_ZONE, VISIT_WORDS};
use super::patch::Patch;
use super::ptrace::{Stopped, TRIES};
use crate::error::{Error, Result};

/// Of linux/errno.h: what a call that was interrupted comes to before the kernel decides whether it starts again.
const RESTARTS: [u64; 3] = [-512_i64 as u64, -513_i64 as u64, -514_i64 as u64];
const RESTARTS_OTHERWISE: u64 = -516_i64 as u64;
const SYS_RESTART: u64 = 219;
/// Bytes of the instruction.
const SYSCALL_LEN: u64 = 2;

/// Makes a thread of the process do one system call, and waits until its effect is seen; whether it is.
pub(super) fn visit(
    stopped: &mut Stopped,
    patch: &Patch,
    call: u64,
    arguments: [u64; 6],
    is_done: impl Fn(&File) -> bool,
) -> Result<bool> {
    for number in 0..TRIES {
        let mut visitor: Option<(bool, i32, libc::user_regs_struct)> = None;
        if !stopped.threads().iter().any(|thread| stopped.may_run(*thread)) {
            return Ok(false);
        }
        for thread in stopped.threads().into_iter().filter(|thread| stopped.may_run(*thread)) {
            let registers = stopped.registers(thread)?;
            // One that sleeps in a call is out of all that a program may not be taken out of.
            let rank = registers.orig_rax.cast_signed() < 0;
            if (rank && stopped.is_in_sequence(thread, registers.rip))
                || visitor.as_ref().is_some_and(|(best, ..)| *best <= rank)
            {
                continue;
            }
            visitor = Some((rank, thread, registers));
        }
        let Some((_, thread, mut registers)) = visitor else {
            let all = stopped.threads();
            stopped.nudge(&all, number)?;
            continue;
        };
        let frame = registers.rsp - RED_ZONE - 8 * VISIT_WORDS as u64;
        let saved = on_the_stack(&registers);
        if stopped.memory().write_all_at(saved.as_bytes(), frame).is_err() {
            return Err(Error::failed("a thread has no room on its stack; try again"));
        }
        let [rdi, rsi, rdx, r10, r8, r9] = arguments;
        (registers.rdi, registers.rsi, registers.rdx) = (rdi, rsi, rdx);
        (registers.r10, registers.r8, registers.r9) = (r10, r8, r9);
        (registers.rax, registers.rip, registers.rsp) = (call, patch.visit, frame);
        // It is in no call that the kernel would start again.
        registers.orig_rax = u64::MAX;
        stopped.set_registers(thread, &registers)?;
        let done = stopped.run_until(thread, &is_done)?;
        leave(stopped, patch, thread)?;
        return Ok(done);
    }
    Err(Error::failed("no thread can be made to map a page; try again"))
}

/// Waits until the visitor is back where it was.
fn leave(stopped: &mut Stopped, patch: &Patch, thread: i32) -> Result<()> {
    for number in 0..TRIES {
        let is_there = stopped.threads().contains(&thread);
        if !is_there || !patch.has(stopped.registers(thread)?.rip) {
            return Ok(());
        }
        stopped.nudge(&[thread], number)?;
    }
    Err(Error::failed("a thread does not come back from a system call"))
}

/// What a thread takes back after a visit. A call that it was interrupted in starts again, as the kernel
/// would have it.
fn on_the_stack(registers: &libc::user_regs_struct) -> [u64; VISIT_WORDS] {
    let (rax, rip) = going_on(registers.rax, registers.orig_rax, registers.rip);
    [
        registers.rdi,
        registers.rsi,
        registers.rdx,
        registers.r10,
        registers.r8,
        registers.r9,
        registers.r11,
        registers.rcx,
        rax,
        registers.eflags,
        rip,
    ]
}

/// What a thread has in rax, and where it goes on. The number of its call is negative if it is in none.
fn going_on(rax: u64, call: u64, at: u64) -> (u64, u64) {
    let is_call = call.cast_signed() >= 0;
    match rax {
        rax if is_call && RESTARTS.contains(&rax) => (call, at - SYSCALL_LEN),
        RESTARTS_OTHERWISE if is_call => (SYS_RESTART, at - SYSCALL_LEN),
        rax => (rax, at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_was_interrupted_starts_again() {
        let back =
            |rax: i64, call: i64| going_on(rax.cast_unsigned(), call.cast_unsigned(), 0x1002);
        let again = |call: u64| (call, 0x1000);
        assert_eq!(back(-512, 35), again(35));
        assert_eq!(back(-513, 202), again(202));
        assert_eq!(back(-514, 7), again(7));
        assert_eq!(back(-516, 230), again(219));
        assert_eq!(back(-4, 7), (-4_i64 as u64, 0x1002), "EINTR is for the program");
        assert_eq!(back(-512, -1), (-512_i64 as u64, 0x1002), "it is in no call");
    }
}
