//! Files that hold secrets: readable by their owner only, replaced whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Makes a directory and its missing parents, mode 0700.
///
/// # Errors
/// Of the file system.
pub fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Puts `content` in place of whatever `path` held, mode 0600: after a power cut there is the old
/// file or the new one, never half. The directory is synced as well, for a new name in it.
///
/// # Errors
/// Of the file system; the old file is then still there.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let scratch = scratch_beside(path)?;
    let written = write_new(&scratch, content)
        .and_then(|()| fs::rename(&scratch, path))
        .and_then(|()| sync_dir_of(path));
    if written.is_err()
        && let Err(error) = fs::remove_file(&scratch)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %scratch.display(), %error, "cannot remove a scratch file");
    }
    written
}

/// Makes a file that must not be there yet, mode 0600, synced.
///
/// # Errors
/// `AlreadyExists`, or of the file system.
pub fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    write_new(path, content)?;
    sync_dir_of(path)
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn sync_dir_of(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn scratch_beside(path: &Path) -> io::Result<PathBuf> {
    let mut name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?
        .to_owned();
    name.push(format!(".{}.new", uuid::Uuid::now_v7().simple()));
    Ok(directory_of(path).join(name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_replaced_file_is_private_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn create_never_overwrites() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create(&path, b"first").unwrap();
        assert_eq!(create(&path, b"second").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
    }
}
