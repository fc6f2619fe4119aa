//! The one function that says yes or no, and what it decides about.
//!
//! Deny by default: without a role that covers the device, the login and at least one action,
//! nothing opens. What it is not: it does not look anything up and it does not record; the relay
//! brings the facts and stores the decision.

mod break_glass;
mod decide;
mod role;

pub use break_glass::{BreakGlass, NoReason};
pub use decide::{Allowed, Decision, Denied, Facts, decide};
pub use role::{Action, AdminRight, Role, Selector, SelectorError};
