//! The size of a terminal that several windows show: the smallest columns and rows of all of them.
//!
//! Its law: with one window it is that window's, whatever it says, as without this.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;

use super::{Track, size_of};
use crate::worker::limits::GUEST_WINDOW_MIN;

#[derive(Debug, Default)]
struct Windows {
    /// Of the session's own client, while there is one.
    own: Option<Winsize>,
    guests: BTreeMap<u64, Winsize>,
}

/// See the module.
#[derive(Debug, Default)]
pub(in crate::worker) struct Fit(Mutex<Windows>);

impl Fit {
    fn lock(&self) -> MutexGuard<'_, Windows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session's own client has this window, or there is none.
    pub(in crate::worker) fn own(&self, size: Option<Winsize>) {
        self.lock().own = size;
    }

    /// A guest has this one, or one so small that nobody could work in it.
    pub(super) fn guest(&self, id: u64, size: Winsize) {
        let Winsize { ws_col, ws_row, .. } = size;
        let (columns, rows) = GUEST_WINDOW_MIN;
        let size = if ws_col == 0 || ws_row == 0 {
            size
        } else {
            Winsize { ws_col: ws_col.max(columns), ws_row: ws_row.max(rows), ..size }
        };
        self.lock().guests.insert(id, size);
    }

    /// A guest is gone.
    pub(super) fn gone(&self, id: u64) {
        self.lock().guests.remove(&id);
    }

    /// What the terminal should have; `None` where nobody has said.
    pub(in crate::worker) fn size(&self) -> Option<Winsize> {
        let windows = self.lock();
        if windows.guests.is_empty() {
            return windows.own;
        }
        let all = windows.own.iter().chain(windows.guests.values());
        // One without a size, such as a pipe, is no window.
        let seen = all.filter(|size| size.ws_col != 0 && size.ws_row != 0).copied();
        seen.reduce(|one, other| Winsize {
            ws_col: one.ws_col.min(other.ws_col),
            ws_row: one.ws_row.min(other.ws_row),
            // Pixels are one window's own.
            ws_xpixel: 0,
            ws_ypixel: 0,
        })
    }

    /// Gives the terminal that size. Without guests it is always set, for that is what its client
    /// asked for; with them only where it changes.
    pub(in crate::worker) fn apply(&self, master: &AsyncFd<OwnedFd>, track: &Track) {
        let Some(size) = self.size() else { return };
        let shared = !self.lock().guests.is_empty();
        let cells = |size: Winsize| (size.ws_col, size.ws_row);
        if shared && size_of(master).map(cells) == Some(cells(size)) {
            return;
        }
        match tcsetwinsize(master.get_ref(), size) {
            Ok(()) => track.resized(size),
            Err(error) => tracing::debug!(%error, "the terminal's size stays"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(columns: u16, rows: u16) -> Winsize {
        Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 7, ws_ypixel: 7 }
    }

    #[test]
    fn the_smallest_of_all_that_look_on_and_given_back_when_one_leaves() {
        let fit = Fit::default();
        assert_eq!(fit.size(), None);
        fit.own(Some(window(120, 40)));
        assert_eq!(fit.size(), Some(window(120, 40)), "alone it is what its client says");
        let cells = |fit: &Fit| fit.size().map(|size| (size.ws_col, size.ws_row));
        fit.guest(1, window(80, 50));
        fit.guest(2, window(0, 0));
        assert_eq!(cells(&fit), Some((80, 40)), "a pipe has no window");
        fit.guest(3, window(200, 24));
        assert_eq!(cells(&fit), Some((80, 24)));
        fit.guest(4, window(1, 1));
        assert_eq!(cells(&fit), Some(GUEST_WINDOW_MIN), "no guest makes it useless");
        fit.gone(4);
        fit.own(None);
        fit.gone(3);
        assert_eq!(cells(&fit), Some((80, 50)), "who is away has no say");
        fit.own(Some(window(120, 40)));
        fit.gone(1);
        fit.gone(2);
        assert_eq!(fit.size(), Some(window(120, 40)));
    }
}
