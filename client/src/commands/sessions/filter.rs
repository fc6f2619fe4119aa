//! Which sessions are wanted.

use belay_proto::api::Session;
use belay_proto::time::UnixTime;

/// A session's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum State {
    /// It has its client.
    Attached,
    /// It waits for its client.
    Detached,
    /// It is over.
    Ended,
}

impl State {
    /// A session's own.
    pub(super) const fn of(session: &Session) -> Self {
        if session.over.is_some() {
            Self::Ended
        } else if session.attached {
            Self::Attached
        } else {
            Self::Detached
        }
    }
}

/// What restricts a list.
#[derive(Debug, Default)]
pub(super) struct Filter {
    pub(super) device: Option<String>,
    pub(super) user: Option<String>,
    pub(super) login: Option<String>,
    pub(super) state: Option<State>,
    pub(super) since: Option<UnixTime>,
    /// Only those whose user broke the glass.
    pub(super) broken_glass: bool,
}

impl Filter {
    /// Whether nothing does.
    pub(super) const fn is_none(&self) -> bool {
        self.device.is_none()
            && self.user.is_none()
            && self.login.is_none()
            && self.state.is_none()
            && self.since.is_none()
            && !self.broken_glass
    }

    /// Whether it is wanted.
    pub(super) fn takes(&self, session: &Session) -> bool {
        let is = |wanted: &Option<String>, one: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == one)
        };
        is(&self.device, session.device.as_str())
            && is(&self.user, session.user.as_str())
            && is(&self.login, &session.login)
            && self.since.is_none_or(|since| session.opened >= since)
            && self.takes_here(session)
    }

    /// Whether something is asked that the relay does not choose by.
    pub(super) const fn is_here(&self) -> bool {
        self.state.is_some() || self.broken_glass
    }

    /// Whether that holds.
    pub(super) fn takes_here(&self, session: &Session) -> bool {
        self.state.is_none_or(|state| state == State::of(session))
            && (!self.broken_glass || session.break_glass.is_some())
    }
}
