//! Raw mode, and its end: by drop, by panic.
//!
//! The mode before is kept in one place by crossterm, so restoring twice is harmless; signals end
//! the session in the ordinary way (`Local::next`), which drops the guard.

use std::io;
use std::panic;
use std::sync::Once;

use crossterm::terminal::{disable_raw_mode, enable_raw_mode};

/// Held while the terminal is raw.
pub(crate) struct RawMode(());

impl RawMode {
    pub(crate) fn enter() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                restore();
                before(info);
            }));
        });
        enable_raw_mode()?;
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    // A terminal that is gone needs no restoring.
    disable_raw_mode().ok();
}
