//! May this person open this kind of session, on this device, as this login?

use std::collections::{BTreeMap, BTreeSet};

use super::role::{Action, Role};
use crate::names::{LabelKey, LabelValue, Login};
use crate::refusal::Code;
use crate::wire::open::kind;

/// Everything a decision rests on. What is not here cannot sway it.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The person's roles.
    pub roles: &'a [Role],
    /// The device's labels.
    pub labels: &'a BTreeMap<LabelKey, LabelValue>,
    /// What the stream is to carry.
    pub kind: &'a str,
    /// The account asked for.
    pub login: &'a Login,
    /// Whether the session is to be opened though it may not be recorded as it must be.
    pub break_glass: bool,
}

/// Permission: only [`decide`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    actions: BTreeSet<Action>,
}

impl Allowed {
    /// What a session of its own may do; never empty.
    pub const fn actions(&self) -> &BTreeSet<Action> {
        &self.actions
    }

    /// Whether a terminal of somebody else's session of this login may be joined: whoever may have
    /// a shell there may see and type what others do in theirs.
    pub fn may_join(&self) -> bool {
        self.actions.contains(&Action::Shell)
    }
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// Its kind.
    pub code: Code,
    /// What went wrong.
    pub cause: String,
    /// What to do.
    pub remedy: String,
}

/// Yes with its extent, or no with its reason.
pub type Decision = Result<Allowed, Denied>;

/// Decides. Deny by default; roles add up.
///
/// # Errors
/// [`Denied`], whose code is [`Code::BadRequest`] for an unknown kind, [`Code::NotAllowed`] when
/// no role covers the device, or none of those that do lets the person break the glass who asks for it;
/// [`Code::LoginNotAllowed`] when one covers it but not with this login.
pub fn decide(facts: &Facts<'_>) -> Decision {
    if facts.kind != kind::SSH {
        return Err(Denied {
            code: Code::BadRequest,
            cause: format!("unknown session kind \"{}\"", facts.kind),
            remedy: "upgrade the relay, or use a client of its version".into(),
        });
    }
    let (mut covered, mut may_break) = (false, false);
    let mut logins = BTreeSet::new();
    let mut actions = BTreeSet::new();
    for role in facts.roles.iter().filter(|role| role.covers(facts.labels)) {
        match role {
            // Knows of every device, opens none.
            Role::Auditor => {}
            Role::Administrator => {
                may_break = true;
                actions.extend(Action::ALL.iter().filter(|action| **action != Action::Join));
            }
            Role::Engineer { logins: allowed, break_glass, .. } => {
                covered = true;
                logins.extend(allowed);
                if allowed.contains(facts.login) {
                    may_break |= *break_glass;
                    actions.extend([Action::Shell, Action::Exec, Action::Sftp, Action::Forward]);
                }
            }
        }
    }
    if !actions.is_empty() && facts.break_glass && !may_break {
        return Err(Denied {
            code: Code::NotAllowed,
            cause: "none of your roles lets you break the glass here".into(),
            remedy: "ask for the session without it, or an administrator for a role that does"
                .into(),
        });
    }
    if !actions.is_empty() {
        return Ok(Allowed { actions });
    }
    if covered {
        let list: Vec<_> = logins.iter().map(|login| login.as_str()).collect();
        return Err(Denied {
            code: Code::LoginNotAllowed,
            cause: format!("your role does not allow the login \"{}\" here", facts.login),
            remedy: if list.is_empty() {
                "ask an administrator for a login".into()
            } else {
                format!("use --login with one of: {}", list.join(", "))
            },
        });
    }
    Err(Denied {
        code: Code::NotAllowed,
        cause: if facts.roles.contains(&Role::Auditor) {
            "an auditor's role opens no session".into()
        } else {
            "none of your roles covers this device".into()
        },
        remedy: "ask an administrator for a role whose labels match it".into(),
    })
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
