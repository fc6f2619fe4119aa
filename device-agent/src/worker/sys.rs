//! The few calls of a worker that the compiler cannot check.
//!
//! Each is one system call with its reason. Nothing else of the worker is
//! allowed `unsafe`.
#![allow(
    unsafe_code,
    reason = "audited: descriptors and signal dispositions have no safe interface here"
)]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Duplicates a descriptor known only by its number, close-on-exec.
///
/// The PTY library lends its master's number and nothing safer.
pub(super) fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the caller holds the owner of `fd` for the length of this call;
    // a closed number fails with EBADF and is never turned into an owner.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned()
}

/// Marks every descriptor from 3 on close-on-exec.
pub(super) fn close_on_exec_from_three() {
    // SAFETY: the call touches flags of descriptors only, no memory.
    let done = unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    if done != 0 {
        // Before Linux 5.11.
        for fd in 3..last_descriptor() {
            // SAFETY: sets a flag on a number; EBADF for one that is not open.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// Closes every descriptor from 3 on: a worker holds nothing open of whoever started its
/// supervisor. Only for the very start of a process, which has opened none of them itself.
pub(super) fn close_from_three() {
    // SAFETY: nothing here owns a descriptor from 3 on yet.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    if done != 0 {
        // Before Linux 5.9.
        for fd in 3..last_descriptor() {
            // SAFETY: as above; EBADF for one that is not open.
            unsafe { libc::close(fd) };
        }
    }
}

/// For kernels without `close_range`: one by one. The soft limit bounds what can be open.
fn last_descriptor() -> RawFd {
    let (soft, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
        .unwrap_or((1024, 1024));
    RawFd::try_from(soft.min(65_536)).unwrap_or(RawFd::MAX)
}

/// Default dispositions and an empty mask, as a login program expects them:
/// what the agent ignores (or was started ignoring) must not reach a shell.
pub(super) fn reset_signals() {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator() {
        if matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
            continue;
        }
        // SAFETY: the default action runs no code of ours.
        if let Err(error) = unsafe { nix::sys::signal::sigaction(signal, &default) } {
            tracing::debug!(%signal, %error, "a signal keeps its disposition");
        }
    }
    for number in libc::SIGRTMIN()..=libc::SIGRTMAX() {
        // SAFETY: as above; these have no names.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    if let Err(error) =
        nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
    {
        tracing::debug!(%error, "the signal mask stays");
    }
}

/// Registers a descriptor with the runtime.
pub(super) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` keeps its number open and the same for as long as
    // the registration that owns it lives.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// A moment on the device's own clock face.
pub(super) struct LocalTime {
    pub(super) year: i32,
    /// From 0.
    pub(super) month: i32,
    pub(super) day: i32,
    pub(super) hour: i32,
    pub(super) minute: i32,
}

/// `None` for a time the C library cannot express.
pub(super) fn local_time(unix: i64) -> Option<LocalTime> {
    let seconds = libc::time_t::try_from(unix).ok()?;
    let mut tm = std::mem::MaybeUninit::<libc::tm>::uninit();
    // SAFETY: both pointers are to live values of the right type; the second is
    // only read where the call says it was written.
    let tm = unsafe {
        if libc::localtime_r(&raw const seconds, tm.as_mut_ptr()).is_null() {
            return None;
        }
        tm.assume_init()
    };
    Some(LocalTime {
        year: tm.tm_year + 1900,
        month: tm.tm_mon,
        day: tm.tm_mday,
        hour: tm.tm_hour,
        minute: tm.tm_min,
    })
}
