//! Becoming the login user, for good, before the first byte of a peer is read.

use nix::unistd::{Gid, Uid};
use thiserror::Error;

use super::account::Account;

/// Why the worker could not become its login user. It does not run on.
#[derive(Debug, Error)]
pub(super) enum PrivilegeError {
    #[error("cannot {what}: {errno}")]
    Call { what: &'static str, errno: nix::Error },
    #[error("rights were kept after the change of user: {0}")]
    Kept(&'static str),
}

fn call<T>(what: &'static str, result: nix::Result<T>) -> Result<T, PrivilegeError> {
    result.map_err(|errno| PrivilegeError::Call { what, errno })
}

/// Makes the process unreadable to others of the same user: no core, no
/// ptrace, no `/proc/PID/mem`. Called again after the change of user, which
/// resets it. A program started later is dumpable again by `execve`.
pub(super) fn hide() -> Result<(), PrivilegeError> {
    call("make the process undumpable", nix::sys::prctl::set_dumpable(false))
}

/// Takes on the account's groups and ids, and proves that root is gone.
///
/// Without root only our own account reaches this point, and nothing changes.
/// `no_new_privs` stays off: `sudo` must work in the engineer's shell.
pub(super) fn become_user(account: &Account) -> Result<(), PrivilegeError> {
    if Uid::effective().is_root() {
        call("set the groups", nix::unistd::initgroups(&account.c_name(), account.gid))?;
        let (uid, gid) = (account.uid, account.gid);
        call("set the group id", nix::unistd::setresgid(gid, gid, gid))?;
        call("set the user id", nix::unistd::setresuid(uid, uid, uid))?;
    }
    hide()?;
    verify(account)
}

fn verify(account: &Account) -> Result<(), PrivilegeError> {
    let uids = call("read the user ids", nix::unistd::getresuid())?;
    if [uids.real, uids.effective, uids.saved] != [account.uid; 3] {
        return Err(PrivilegeError::Kept("a user id is another"));
    }
    if account.uid.is_root() {
        return Ok(());
    }
    let gids = call("read the group ids", nix::unistd::getresgid())?;
    if [gids.real, gids.effective, gids.saved] != [account.gid; 3] {
        return Err(PrivilegeError::Kept("a group id is another"));
    }
    if account.gid.as_raw() != 0
        && call("read the groups", nix::unistd::getgroups())?.contains(&Gid::from_raw(0))
        && !is_member_of_root(account)
    {
        return Err(PrivilegeError::Kept("the root group"));
    }
    if nix::unistd::setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok() {
        return Err(PrivilegeError::Kept("root can be regained"));
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capability = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .is_some_and(|bits| !bits.trim_matches([':', '\t', ' ', '0']).is_empty())
    };
    if capability("CapPrm") || capability("CapEff") || capability("CapAmb") {
        return Err(PrivilegeError::Kept("capabilities"));
    }
    Ok(())
}

fn is_member_of_root(account: &Account) -> bool {
    nix::unistd::getgrouplist(&account.c_name(), account.gid)
        .is_ok_and(|groups| groups.contains(&Gid::from_raw(0)))
}
