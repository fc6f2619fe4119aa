//! Work that has a processor only when nobody else wants it.
//!
//! Priority belongs to a thread here and goes over to those it starts (sched(7), setpriority(2)). So the
//! work has a thread of its own, with a runtime of its own: whatever that starts for it, SQLite's thread
//! included, is as patient.

use std::io;
use std::thread;

use rustix::process::nice;
use tokio::sync::oneshot;

/// What is seen of the thread in `ps -L`.
const NAME: &str = "belay-index";

/// The last of all (`NICE_MAX`): a hundredth of a processor that another thread wants as well.
const LAST: i32 = 19;

/// Runs what `begin` begins, to its end.
///
/// # Errors
/// When there can be no thread or no runtime, or the work panicked.
pub(super) async fn run<F, W>(begin: F) -> io::Result<()>
where
    F: FnOnce() -> W + Send + 'static,
    W: Future<Output = ()>,
{
    let (end, is_over) = oneshot::channel();
    thread::Builder::new().name(NAME.to_owned()).spawn(move || {
        if let Err(error) = nice(LAST) {
            tracing::warn!(%error, "the search index is made as if somebody waited for it");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let done = runtime.map(|runtime| {
            runtime.block_on(begin());
            // What it still reads for nobody is not waited for.
            runtime.shutdown_background();
        });
        if end.send(done).is_err() {
            tracing::trace!("nobody waits for the end of what was done aside");
        }
    })?;
    is_over.await.unwrap_or_else(|_| Err(io::Error::other("its thread has panicked")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use rustix::process::{Pid, getpriority_process};
    use rustix::thread::gettid;

    use super::*;

    fn priority(thread: Pid) -> i32 {
        getpriority_process(Some(thread)).unwrap()
    }

    #[tokio::test]
    async fn the_work_and_what_it_starts_wait_for_everybody_else() {
        let before = priority(gettid());
        let (tell, told) = oneshot::channel();
        let work = async || {
            let own = priority(gettid());
            let started = tokio::task::spawn_blocking(|| priority(gettid())).await.unwrap();
            tell.send((own, started)).unwrap();
        };
        run(work).await.unwrap();
        assert_eq!(told.await.unwrap(), (LAST, LAST));
        assert_eq!(priority(gettid()), before, "nobody else does");
    }

    #[tokio::test]
    async fn work_that_panics_is_told_of() {
        let error = run(async || panic!("broken")).await.unwrap_err();
        assert_eq!(error.to_string(), "its thread has panicked");
    }
}
