//! Requests that change the tree of files.

use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::attrs::Attrs;
use super::wire::{Code, Fault};

const READ: u32 = 0x01;
const WRITE: u32 = 0x02;
const APPEND: u32 = 0x04;
const CREATE: u32 = 0x08;
const TRUNCATE: u32 = 0x10;
const EXCLUSIVE: u32 = 0x20;

/// Opens a file as `SSH_FXP_OPEN` asks.
///
/// A FIFO would hold us up for as long as its other end pleases, so it is
/// refused; devices are the kernel's to allow.
pub(super) fn open(path: &Path, flags: u32, attrs: &Attrs) -> Result<File, Fault> {
    let mut how = match (flags & READ != 0, flags & WRITE != 0) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        (true | false, false) => OFlags::RDONLY,
    };
    for (asked, flag) in [
        (APPEND, OFlags::APPEND),
        (CREATE, OFlags::CREATE),
        (TRUNCATE, OFlags::TRUNC),
        (EXCLUSIVE, OFlags::EXCL),
    ] {
        how.set(flag, flags & asked != 0);
    }
    // A new file never gets set-id bits by the way.
    let mode = attrs.mode(0o666) & Mode::from_raw_mode(0o777);
    let cautious = how | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(CWD, path, cautious, mode)?);
    let kind = file.metadata()?.file_type();
    if kind.is_fifo() {
        return Err(Fault::Because(Code::Failure, "a FIFO is not a file"));
    }
    if kind.is_dir() {
        return Err(Fault::Because(Code::Failure, "is a directory"));
    }
    rustix::fs::fcntl_setfl(&file, rustix::fs::fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

/// `SSH_FXP_RENAME`: never replaces what is there.
pub(super) fn rename_new(old: &Path, new: &Path) -> Result<(), Fault> {
    match rustix::fs::renameat_with(CWD, old, CWD, new, RenameFlags::NOREPLACE) {
        // A file system (or a kernel before 3.15) that cannot.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => rename_by_link(old, new),
        done => Ok(done?),
    }
}

/// A link fails where the name is taken. A directory cannot be linked, but
/// renaming one replaces at most an empty directory.
fn rename_by_link(old: &Path, new: &Path) -> Result<(), Fault> {
    match rustix::fs::link(old, new) {
        Ok(()) => Ok(rustix::fs::unlink(old)?),
        Err(Errno::EXIST) => Err(Errno::EXIST.into()),
        Err(_) => match rustix::fs::lstat(new) {
            Ok(_) => Err(Errno::EXIST.into()),
            Err(_) => Ok(rustix::fs::rename(old, new)?),
        },
    }
}
