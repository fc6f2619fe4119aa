//! Reading a directory, and the line `ls -l` would print for an entry.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{Metadata, ReadDir};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User};

use crate::worker::sys;

/// `ls` shows the time of day for entries of the last half year.
const RECENT: i64 = 182 * 24 * 3600;

/// An open directory.
pub(super) struct Listing {
    path: PathBuf,
    entries: ReadDir,
    dots: std::array::IntoIter<&'static str, 2>,
}

impl Listing {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            entries: std::fs::read_dir(path)?,
            path: path.to_owned(),
            dots: [".", ".."].into_iter(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Iterator for Listing {
    type Item = io::Result<(OsString, io::Result<Metadata>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(dot) = self.dots.next() {
            return Some(Ok((dot.into(), std::fs::symlink_metadata(self.path.join(dot)))));
        }
        Some(self.entries.next()?.map(|entry| (entry.file_name(), entry.metadata())))
    }
}

/// Names of users and groups already looked up.
#[derive(Default)]
pub(super) struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

/// Names remembered: a listing has a handful.
const NAMES_MAX: usize = 1024;

impl Names {
    pub(super) fn user(&mut self, uid: u32) -> &str {
        forget(&mut self.users);
        self.users.entry(uid).or_insert_with(|| {
            let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
            user.map_or_else(|| uid.to_string(), |user| user.name)
        })
    }

    pub(super) fn group(&mut self, gid: u32) -> &str {
        forget(&mut self.groups);
        self.groups.entry(gid).or_insert_with(|| {
            let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
            group.map_or_else(|| gid.to_string(), |group| group.name)
        })
    }

    /// One line as `ls -l` prints it, in the device's time zone; clients show
    /// it as it is, and some parse it.
    pub(super) fn long(&mut self, name: &OsStr, metadata: &Metadata, now: i64) -> Vec<u8> {
        let user = self.user(metadata.uid()).to_owned();
        let group = self.group(metadata.gid()).to_owned();
        let mut line = format!(
            "{} {:3} {user:<8} {group:<8} {:8} {} ",
            mode(metadata.mode()),
            metadata.nlink(),
            metadata.size(),
            date(metadata.mtime(), now),
        )
        .into_bytes();
        line.extend_from_slice(name.as_bytes());
        line
    }
}

fn forget(names: &mut HashMap<u32, String>) {
    if names.len() >= NAMES_MAX {
        names.clear();
    }
}

fn mode(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o020_000 => 'c',
        0o060_000 => 'b',
        0o010_000 => 'p',
        0o140_000 => 's',
        _ => '-',
    };
    let mut text = String::from(kind);
    for (shift, special, lower, upper) in
        [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')]
    {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => lower,
            (true, false) => upper,
        });
    }
    text
}

fn date(time: i64, now: i64) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let Some(local) = sys::local_time(time) else { return format!("@{time}") };
    let month =
        usize::try_from(local.month).ok().and_then(|month| MONTHS.get(month)).unwrap_or(&"???");
    if (now - RECENT..=now).contains(&time) {
        format!("{month} {:2} {:02}:{:02}", local.day, local.hour, local.minute)
    } else {
        format!("{month} {:2}  {:4}", local.day, local.year)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_like_ls() {
        for (bits, text) in [
            (0o100_644, "-rw-r--r--"),
            (0o040_755, "drwxr-xr-x"),
            (0o120_777, "lrwxrwxrwx"),
            (0o041_777, "drwxrwxrwt"),
            (0o104_755, "-rwsr-xr-x"),
            (0o106_644, "-rwSr-Sr--"),
            (0o010_600, "prw-------"),
        ] {
            assert_eq!(mode(bits), text);
        }
    }

    #[test]
    fn old_and_future_entries_show_their_year() {
        assert!(date(0, 1_800_000_000).ends_with(['0', '9']));
        assert!(date(1_800_000_000 - 60, 1_800_000_000).contains(':'));
        assert!(!date(1_800_000_000 + 60, 1_800_000_000).contains(':'));
    }
}
