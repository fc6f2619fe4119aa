//! Trying until it works, a try every so often, without waiting for the ones before.
//!
//! QUIC and TCP both double the time between their own repetitions, so one patient attempt may be
//! silent for many seconds after the network is back. A new attempt every second is not.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

/// Starts an attempt every `period` and keeps at most `most` of them going, the oldest given up
/// first. Returns the first success, or the first failure that `fatal` says no further attempt
/// mends. Dropping the future ends all attempts.
///
/// # Errors
/// The fatal failure.
pub async fn insist<T, E, Fut>(
    period: Duration,
    most: usize,
    mut attempt: impl FnMut() -> Fut,
    fatal: impl Fn(&E) -> bool,
) -> Result<T, E>
where
    T: Send + 'static,
    E: Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
{
    let mut beat = interval(period);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tries = JoinSet::new();
    let mut ages = VecDeque::<AbortHandle>::new();
    loop {
        tokio::select! {
            _ = beat.tick() => {
                if ages.len() >= most.max(1) && let Some(oldest) = ages.pop_front() {
                    oldest.abort();
                }
                ages.push_back(tries.spawn(attempt()));
            }
            Some(ended) = tries.join_next(), if !tries.is_empty() => match ended {
                Ok(Ok(won)) => return Ok(won),
                Ok(Err(error)) if fatal(&error) => return Err(error),
                Ok(Err(_)) => {}
                Err(error) => {
                    if let Ok(panic) = error.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    }
                }
            },
        }
        ages.retain(|age| !age.is_finished());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::sleep;

    use super::*;

    const BEAT: Duration = Duration::from_millis(2);

    #[tokio::test]
    async fn a_try_that_hangs_does_not_hold_up_the_next() {
        let count = Arc::new(AtomicU32::new(0));
        let attempt = || {
            let number = count.fetch_add(1, Ordering::Relaxed);
            async move {
                if number < 10 {
                    sleep(Duration::from_secs(3600)).await;
                }
                Ok::<_, ()>(number)
            }
        };
        assert_eq!(insist(BEAT, 3, attempt, |()| true).await, Ok(10));
    }

    #[tokio::test]
    async fn no_more_attempts_are_under_way_than_allowed() {
        let under_way = Arc::new(AtomicU32::new(0));
        struct Place(Arc<AtomicU32>);
        impl Drop for Place {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let (count, most) = (AtomicU32::new(0), Arc::new(AtomicU32::new(0)));
        let attempt = || {
            let number = count.fetch_add(1, Ordering::Relaxed);
            let (under_way, most) = (Arc::clone(&under_way), Arc::clone(&most));
            async move {
                most.fetch_max(under_way.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                let _place = Place(under_way);
                if number < 20 {
                    sleep(Duration::from_secs(3600)).await;
                }
                Ok::<_, ()>(number)
            }
        };
        assert_eq!(insist(BEAT, 3, attempt, |()| true).await, Ok(20));
        // The oldest is told to end when the newest begins, and may take a moment to.
        assert!(most.load(Ordering::Relaxed) <= 4, "{most:?}");
    }

    #[tokio::test]
    async fn a_failure_is_tried_again_unless_it_is_fatal() {
        let count = Arc::new(AtomicU32::new(0));
        let attempt = || {
            let number = count.fetch_add(1, Ordering::Relaxed);
            async move { Err::<(), _>(number) }
        };
        assert_eq!(insist(BEAT, 3, attempt, |number| *number == 4).await, Err(4));
    }
}
