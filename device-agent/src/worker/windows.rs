//! How long a session may be without its client.

use std::sync::Arc;
use std::time::Duration;

use belay_proto::wire::open::ResumeWindows;
use tokio::time::sleep_until;

use super::dock::{Berth, Harbour};

/// Waits until nobody has come back within the window; the longer one counts
/// while there is a terminal. Says why the session ends.
pub(super) async fn over(windows: ResumeWindows, harbour: Arc<Harbour>) -> String {
    let mut berth = harbour.berth.subscribe();
    let mut terminals = harbour.terminals.clone();
    loop {
        let now = *berth.borrow_and_update();
        let open = *terminals.borrow_and_update();
        let seconds = if open > 0 { windows.interactive } else { windows.other };
        let deadline = match now {
            Berth::Detached { since } => Some(since + Duration::from_secs(u64::from(seconds))),
            Berth::Empty | Berth::Attached | Berth::Closed => None,
        };
        tokio::select! {
            () = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            } => return reason(seconds),
            // Neither fails: the senders live as long as the session.
            Ok(()) = berth.changed() => {}
            Ok(()) = terminals.changed() => {}
        }
    }
}

fn reason(seconds: u32) -> String {
    let (count, unit) = match seconds {
        0 => return "the client went away, and the relay lets nobody come back".to_owned(),
        s if s % 3600 == 0 => (s / 3600, "h"),
        s if s % 60 == 0 => (s / 60, "min"),
        s => (s, "s"),
    };
    format!("nobody came back within {count} {unit}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use tokio::sync::watch;
    use tokio::time::{Instant, timeout};

    use super::*;

    const WINDOWS: ResumeWindows = ResumeWindows { interactive: 2, other: 0 };
    const SHORT: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn a_terminal_makes_the_window_longer_and_its_end_makes_it_shorter() {
        let (count, terminals) = watch::channel(1);
        let harbour = Harbour::new(terminals);
        let waiting = over(WINDOWS, Arc::clone(&harbour));
        tokio::pin!(waiting);
        assert!(timeout(SHORT, &mut waiting).await.is_err(), "nobody was there yet");
        harbour.berth.send_replace(Berth::Detached { since: Instant::now() });
        assert!(timeout(SHORT, &mut waiting).await.is_err(), "the terminal is open");
        count.send_replace(0);
        let reason = timeout(SHORT, &mut waiting).await.unwrap();
        assert!(reason.contains("went away"), "{reason}");
    }

    #[tokio::test]
    async fn whoever_comes_back_stops_the_clock() {
        let (_count, terminals) = watch::channel(0);
        let harbour = Harbour::new(terminals);
        harbour.berth.send_replace(Berth::Detached { since: Instant::now() });
        harbour.berth.send_replace(Berth::Attached);
        assert!(timeout(SHORT, over(WINDOWS, harbour)).await.is_err());
    }

    #[test]
    fn spans_are_said_in_the_largest_unit_that_fits() {
        assert!(reason(24 * 3600).ends_with("24 h"));
        assert!(reason(90 * 60).ends_with("90 min"));
        assert!(reason(61).ends_with("61 s"));
    }
}
