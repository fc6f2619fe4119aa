//! `belay whoami`

use belay_proto::api::{WhoAmI, path};
use belay_proto::policy::Role;

use crate::api::Api;
use crate::failure::Failure;
use crate::output;
use crate::run::Context;
use crate::span;

/// Asks the relay who this is.
///
/// # Errors
/// When there is no live login, or the relay refuses.
pub async fn run(context: &Context) -> Result<(), Failure> {
    let api = Api::of_home(&context.home)?;
    let who: WhoAmI = api.get(path::WHOAMI).await?;
    output::show(context.format, &who, |who| {
        let left = span::rough(who.expires.distance(who.clock));
        let mut text = format!(
            "{} at {}\nlogin good for {left}, until {}",
            who.user,
            api.relay(),
            span::at(who.expires)
        );
        if who.roles.is_empty() {
            text.push_str("\nno role: nothing is allowed; ask an administrator for one");
        }
        for role in &who.roles {
            text.push_str(&format!("\n{}", role_line(role)));
        }
        text
    })
}

/// A role in one line.
pub(super) fn role_line(role: &Role) -> String {
    match role {
        Role::Administrator => "administrator: everything, on every device".into(),
        Role::Auditor => "auditor: reads the audit log, opens no session".into(),
        Role::Engineer { selector, logins, break_glass } => {
            let logins: Vec<_> = logins.iter().map(|login| login.as_str()).collect();
            let glass = if *break_glass { ", may break the glass" } else { "" };
            format!("engineer: devices with {selector}, as {}{glass}", logins.join(", "))
        }
    }
}
