//! `belay user add|role|disable|enable|code|list`

use belay_proto::api::{User, UserAnswer, UserChange, UserChanged, UserRequest, path};
use belay_proto::names::{Label, Login, UserName};
use belay_proto::policy::{Role, Selector};
use clap::{Subcommand, ValueEnum};
use hyper::Method;

use super::whoami::role_line;
use crate::api::{Api, path_of};
use crate::failure::{EXIT_USAGE, Failure};
use crate::output::{self, Format};
use crate::run::Context;
use crate::{span, table};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Add a person; prints the one-time code for their first login
    #[command(
        after_help = "Example:\n  belay user add anna --role engineer --label site=oslo --login support\n  belay user add eli --role engineer --label site=oslo --login root --break-glass\n  belay user add bo --role admin\n  belay user add ida --role auditor"
    )]
    Add {
        /// Name
        name: UserName,
        #[command(flatten)]
        role: RoleArgs,
    },
    /// Replace a person's roles by one
    #[command(
        after_help = "Example:\n  belay user role anna --role engineer --label site=bergen --login support"
    )]
    Role {
        /// Name
        name: UserName,
        #[command(flatten)]
        role: RoleArgs,
    },
    /// Shut a person out; their sessions are cut at once
    #[command(after_help = "Example:\n  belay user disable anna")]
    Disable {
        /// Name
        name: UserName,
    },
    /// Let a person in again
    #[command(after_help = "Example:\n  belay user enable anna")]
    Enable {
        /// Name
        name: UserName,
    },
    /// Make a new one-time code, for a forgotten password
    #[command(after_help = "Example:\n  belay user code anna")]
    Code {
        /// Name
        name: UserName,
    },
    /// List people and their roles
    #[command(after_help = "Example:\n  belay user list")]
    List,
}

#[derive(Debug, clap::Args)]
struct RoleArgs {
    /// What they may do
    #[arg(long, value_enum)]
    role: RoleName,
    /// Engineers: a label the devices must have; several must all be there
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<Label>,
    /// Engineers: an account on the device they may use; may be repeated
    #[arg(long, value_name = "ACCOUNT")]
    login: Vec<Login>,
    /// Engineers: in an emergency they may open a session there that is not recorded as it must be; it
    /// raises an alarm
    #[arg(long)]
    break_glass: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RoleName {
    /// Everything, on every device
    #[value(alias = "administrator")]
    Admin,
    /// Sessions on devices with certain labels, as certain accounts
    Engineer,
    /// The audit log and the list of devices; no session on any
    Auditor,
}

impl RoleArgs {
    fn into_role(self) -> Result<Role, Failure> {
        let usage = |cause: &str, remedy: &str| {
            Failure::new("usage", cause).remedy(remedy).exit(EXIT_USAGE)
        };
        if self.break_glass && self.role != RoleName::Engineer {
            return Err(usage(
                "--break-glass is an engineer's: an administrator may, an auditor opens no session",
                "leave it out",
            ));
        }
        match self.role {
            RoleName::Admin if self.label.is_empty() && self.login.is_empty() => {
                Ok(Role::Administrator)
            }
            RoleName::Admin => Err(usage(
                "an administrator may do everything, so --label and --login mean nothing",
                "leave them out, or use --role engineer",
            )),
            RoleName::Auditor if self.label.is_empty() && self.login.is_empty() => {
                Ok(Role::Auditor)
            }
            RoleName::Auditor => Err(usage(
                "an auditor opens no session, so --label and --login mean nothing",
                "leave them out, or use --role engineer",
            )),
            RoleName::Engineer => {
                let selector = Selector::of(self.label).map_err(|e| usage(&e.to_string(), ""))?;
                if self.login.is_empty() {
                    return Err(usage(
                        "an engineer needs an account to log in to",
                        "add --login, for example --login support",
                    ));
                }
                let (logins, break_glass) = (self.login.into_iter().collect(), self.break_glass);
                Ok(Role::Engineer { selector, logins, break_glass })
            }
        }
    }
}

/// Changes or lists people.
///
/// # Errors
/// When there is no live login, or the relay refuses.
pub async fn run(context: &Context, args: Args) -> Result<(), Failure> {
    match args.what {
        What::Add { name, role } => {
            let request = UserRequest { name, roles: vec![role.into_role()?] };
            let api = Api::of_home(&context.home)?;
            let answer: UserAnswer = api.send(Method::POST, path::USERS, &request).await?;
            if context.format == Format::Text && output::is_terminal() {
                output::note(format!(
                    "give {} this code; it is good once, until {}:",
                    request.name,
                    span::at(answer.expires)
                ));
            }
            output::show(context.format, &answer, |answer| answer.login_code.clone())
        }
        What::Role { name, role } => {
            let roles = Some(vec![role.into_role()?]);
            change(context, &name, &UserChange { roles, ..UserChange::default() }).await
        }
        What::Disable { name } => {
            change(context, &name, &UserChange { disabled: Some(true), ..UserChange::default() })
                .await
        }
        What::Enable { name } => {
            change(context, &name, &UserChange { disabled: Some(false), ..UserChange::default() })
                .await
        }
        What::Code { name } => {
            change(context, &name, &UserChange { new_code: true, ..UserChange::default() }).await
        }
        What::List => list(context).await,
    }
}

async fn change(context: &Context, name: &UserName, change: &UserChange) -> Result<(), Failure> {
    let api = Api::of_home(&context.home)?;
    let path = path_of(path::USER, name.as_str());
    let changed: UserChanged = api.send(Method::PATCH, &path, change).await?;
    output::show(context.format, &changed, |changed| match &changed.login_code {
        Some(code) => code.clone(),
        None => format!("{}: {}", changed.user.name, standing(&changed.user)),
    })
}

async fn list(context: &Context) -> Result<(), Failure> {
    let mut users: Vec<User> = Api::of_home(&context.home)?.get(path::USERS).await?;
    users.sort_by(|a, b| a.name.cmp(&b.name));
    output::show(context.format, &users, |users| {
        let rows: Vec<_> = users
            .iter()
            .map(|user| {
                let disabled = if user.disabled { "disabled" } else { "active" };
                vec![user.name.to_string(), disabled.into(), roles(user)]
            })
            .collect();
        table::render(&["name", "status", "roles"], &rows)
    })
}

fn standing(user: &User) -> String {
    if user.disabled { "disabled".into() } else { roles(user) }
}

fn roles(user: &User) -> String {
    user.roles.iter().map(role_line).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn args(role: RoleName, label: &[&str], login: &[&str]) -> RoleArgs {
        RoleArgs {
            role,
            label: label.iter().map(|l| l.parse().unwrap()).collect(),
            login: login.iter().map(|l| l.parse().unwrap()).collect(),
            break_glass: false,
        }
    }

    #[test]
    fn a_role_is_taken_only_when_it_means_something() {
        assert_eq!(args(RoleName::Admin, &[], &[]).into_role().unwrap(), Role::Administrator);
        assert_eq!(args(RoleName::Auditor, &[], &[]).into_role().unwrap(), Role::Auditor);
        args(RoleName::Engineer, &["site=oslo"], &["support"]).into_role().unwrap();
        let trusted = RoleArgs {
            break_glass: true,
            ..args(RoleName::Engineer, &["site=oslo"], &["support"])
        };
        let role = trusted.into_role().unwrap();
        assert!(matches!(role, Role::Engineer { break_glass: true, .. }), "{role:?}");
        for bad in [
            RoleArgs { break_glass: true, ..args(RoleName::Admin, &[], &[]) },
            RoleArgs { break_glass: true, ..args(RoleName::Auditor, &[], &[]) },
            args(RoleName::Admin, &["site=oslo"], &[]),
            args(RoleName::Admin, &[], &["root"]),
            args(RoleName::Auditor, &["site=oslo"], &[]),
            args(RoleName::Auditor, &[], &["root"]),
            args(RoleName::Engineer, &[], &["support"]),
            args(RoleName::Engineer, &["site=oslo"], &[]),
            args(RoleName::Engineer, &["site=a", "site=b"], &["support"]),
        ] {
            assert_eq!(bad.into_role().unwrap_err().status(), EXIT_USAGE);
        }
    }
}
