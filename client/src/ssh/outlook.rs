//! When a person at the terminal is told that the line is down, and that it is back.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::kept::Weather;
use crate::terminal::notice;

/// How often the length of time in the notice is brought up to date.
const AGAIN: Duration = Duration::from_secs(5);

/// What to do about the notice.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// Show it, with this text.
    Down(String),
    /// Take it away.
    Up,
}

/// Watches the session's weather.
pub(super) struct Outlook {
    weather: watch::Receiver<Weather>,
    /// When it was shown last.
    shown: Option<Instant>,
    after: Duration,
    again: Duration,
}

impl Outlook {
    pub(super) const fn new(weather: watch::Receiver<Weather>) -> Self {
        Self { weather, shown: None, after: notice::AFTER, again: AGAIN }
    }

    /// The next thing to show. Safe to cancel.
    pub(super) async fn next(&mut self) -> Sight {
        loop {
            let now = self.weather.borrow_and_update().clone();
            match (now, self.shown) {
                (Weather::Fair, Some(_)) => {
                    self.shown = None;
                    return Sight::Up;
                }
                (Weather::Fair, None) => self.change().await,
                (Weather::Foul { since, why }, shown) => {
                    let due = shown.map_or(since + self.after, |at| at + self.again);
                    tokio::select! {
                        () = sleep_until(due) => {
                            self.shown = Some(Instant::now());
                            return Sight::Down(notice::text(since.elapsed(), &why));
                        }
                        () = self.change() => {}
                    }
                }
            }
        }
    }

    async fn change(&mut self) {
        // A keeper that is gone ends the session in another way.
        if self.weather.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn a_short_pause_is_not_mentioned_and_a_long_one_is_until_it_ends() {
        let (report, weather) = watch::channel(Weather::Fair);
        let mut outlook = Outlook { after: LONG, again: SHORT, ..Outlook::new(weather) };
        let foul = || Weather::Foul { since: Instant::now(), why: "no answer".into() };
        report.send(foul()).unwrap();
        assert!(timeout(SHORT, outlook.next()).await.is_err());
        report.send(Weather::Fair).unwrap();
        assert!(timeout(LONG * 2, outlook.next()).await.is_err());
        report.send(foul()).unwrap();
        for _ in 0..3 {
            let sight = outlook.next().await;
            assert!(matches!(&sight, Sight::Down(text) if text.contains("no answer")), "{sight:?}");
        }
        report.send(Weather::Fair).unwrap();
        assert_eq!(outlook.next().await, Sight::Up);
    }
}
