//! The clock by which certificates are judged.
//!
//! A device's own clock may say 1970 or 2100; the relay's time is
//! authoritative, and the order carries the difference. The SSH library judges
//! a certificate's validity by `SystemTime::now` before it asks us, so it is
//! not enough to correct our own check: the worker's view of the wall clock
//! itself is corrected, by answering `clock_gettime` for the whole process.
//! Programs the worker starts see the device's clock as it is.
#![allow(unsafe_code, reason = "audited: one symbol of the C library is answered here")]

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec};

static CORRECTION: AtomicI64 = AtomicI64::new(0);

/// The wall clock could not be corrected.
#[derive(Debug, thiserror::Error)]
#[error("the clock correction of {0} s does not take effect in this build of the agent")]
pub(super) struct ClockError(i64);

/// Adds `seconds` to this process's wall clock, and proves that it took.
pub(super) fn correct(seconds: i64) -> Result<(), ClockError> {
    CORRECTION.store(0, Ordering::Relaxed);
    let before = unix_now();
    CORRECTION.store(seconds, Ordering::Relaxed);
    let moved = unix_now().saturating_sub(before);
    // One second of slack for the tick between the two readings.
    if (moved - seconds).abs() <= 1 || (before.saturating_add(seconds) < 0 && unix_now() == 0) {
        Ok(())
    } else {
        Err(ClockError(seconds))
    }
}

/// Unix seconds by the corrected clock, 0 before the epoch.
pub(super) fn unix_now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// Answers for the C library's function of this name in every worker.
///
/// # Safety
/// As POSIX asks: `time` is null or points to a writable `timespec`.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    time: *mut libc::timespec,
) -> libc::c_int {
    let id = match clock {
        libc::CLOCK_REALTIME => ClockId::Realtime,
        libc::CLOCK_MONOTONIC => ClockId::Monotonic,
        other => return other_clock(other, time),
    };
    // rustix asks the kernel (or its vDSO) itself and never comes back here.
    let Timespec { tv_sec, tv_nsec } = rustix::time::clock_gettime(id);
    let correction = match clock {
        libc::CLOCK_REALTIME => CORRECTION.load(Ordering::Relaxed),
        _ => 0,
    };
    let seconds = tv_sec.saturating_add(correction).max(0);
    #[allow(clippy::useless_conversion, reason = "the C type has 32 bits on some boards")]
    let seconds = seconds.try_into().unwrap_or(libc::time_t::MAX);
    // SAFETY: `time` is the caller's promise; null is the kernel's EFAULT.
    match unsafe { time.as_mut() } {
        Some(time) => {
            time.tv_sec = seconds;
            time.tv_nsec = tv_nsec as _;
            0
        }
        None => -1,
    }
}

fn other_clock(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    // SAFETY: the caller's own arguments, passed to the kernel unchanged.
    let done = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
    libc::c_int::try_from(done).unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn the_whole_process_sees_the_corrected_clock() {
        const YEAR: i64 = 365 * 24 * 3600;
        let monotonic = std::time::Instant::now();
        let before = unix_now();
        correct(-YEAR).unwrap();
        let during = unix_now();
        correct(0).unwrap();
        assert!((before - YEAR - during).abs() <= 2, "{before} {during}");
        assert!(monotonic.elapsed().as_secs() < 2, "timers do not move");
    }
}
