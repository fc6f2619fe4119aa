//! `realpath` as SFTP clients need it: the last part need not exist yet.

use std::io;
use std::path::{Component, Path, PathBuf};

pub(super) fn real(path: &Path) -> io::Result<PathBuf> {
    match std::fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        done => return done,
    }
    let Some(Component::Normal(last)) = path.components().next_back() else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    Ok(std::fs::canonicalize(parent)?.join(last))
}

/// `expand-path@openssh.com`: like [`real`], with `~` and `~user` first.
pub(super) fn expand(path: &Path) -> io::Result<PathBuf> {
    let mut parts = path.components();
    let Some(Component::Normal(first)) = parts.next() else { return real(path) };
    let Some(user) = first.to_str().and_then(|first| first.strip_prefix('~')) else {
        return real(path);
    };
    let home = home(user)?;
    real(&home.join(parts.as_path()))
}

/// The home directory of `user`, or our own for the empty name.
pub(super) fn home(user: &str) -> io::Result<PathBuf> {
    let found = if user.is_empty() {
        nix::unistd::User::from_uid(nix::unistd::Uid::current())?
    } else {
        nix::unistd::User::from_name(user)?
    };
    found.map(|user| user.dir).ok_or_else(|| io::ErrorKind::NotFound.into())
}
