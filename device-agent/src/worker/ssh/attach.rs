//! Asking for a terminal of this session: the subsystem `attach@belay`, after `pty-req`.
//!
//! `attach@belay N` names the terminal; without a number it is the only one, or the only one that
//! no client has. What it is for runs already, so what is asked of the gate is what it runs.

use russh::ChannelId;
use russh::server::Session;

use super::channel::Asked;
use super::handler::Handler;
use crate::worker::gate::{Denied, Request};

/// Which terminal a subsystem's name means; `None` when it is not about terminals.
pub(super) fn named(subsystem: &str) -> Option<Result<Option<u32>, Denied>> {
    let rest = subsystem.strip_prefix("attach@belay")?;
    if rest.is_empty() {
        return Some(Ok(None));
    }
    let number = rest.strip_prefix(' ')?.parse().map(Some);
    Some(number.map_err(|_| Denied::because("a terminal is named by its number")))
}

impl Handler {
    pub(super) async fn start_attach(
        &mut self,
        channel: ChannelId,
        named: Result<Option<u32>, Denied>,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let Some(ready) = self.prepared.get(&channel.number()) else {
            return session.channel_failure(channel);
        };
        let has_terminal = ready.terminal.is_some();
        let chosen = named.and_then(|named| self.shared.terminals.choose(named));
        let chosen = chosen.and_then(|about| {
            let needed = || Denied::because("attaching needs a terminal on your side");
            has_terminal.then_some(about).ok_or_else(needed)
        });
        match chosen {
            Ok(about) => {
                let request = Request::Attach(about.command.as_deref());
                self.start(channel, request, Asked::Attach(about.number), session).await
            }
            Err(denied) => {
                if let Some(ready) = self.prepared.remove(&channel.number()) {
                    self.refuse_program(channel, ready, denied);
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_terminal_is_named_by_a_number_or_not_at_all() {
        assert_eq!(named("attach@belay"), Some(Ok(None)));
        assert_eq!(named("attach@belay 3"), Some(Ok(Some(3))));
        for wrong in ["attach@belay -1", "attach@belay x", "attach@belay  3"] {
            assert!(named(wrong).unwrap().is_err(), "{wrong}");
        }
        for other in ["sftp", "attach@belayer", "attach@example.com"] {
            assert_eq!(named(other), None, "{other}");
        }
    }
}
