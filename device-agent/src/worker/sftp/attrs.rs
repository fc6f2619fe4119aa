//! File attributes (draft-ietf-secsh-filexfer-02, section 5).

use std::fs::Metadata;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid};

use super::wire::{Fault, Fields, Malformed, put_u32, put_u64};

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const PERMISSIONS: u32 = 4;
const TIMES: u32 = 8;
const EXTENDED: u32 = 0x8000_0000;

/// Extended attributes in one request: nobody sends any.
const EXTENDED_MAX: u32 = 64;

/// What a client wants a file to be; absent fields stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attrs {
    pub(super) size: Option<u64>,
    pub(super) owner: Option<(u32, u32)>,
    pub(super) permissions: Option<u32>,
    /// Access and modification, in Unix seconds.
    pub(super) times: Option<(u32, u32)>,
}

impl Attrs {
    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let flags = fields.u32()?;
        let mut attrs = Self::default();
        if flags & SIZE != 0 {
            attrs.size = Some(fields.u64()?);
        }
        if flags & OWNER != 0 {
            attrs.owner = Some((fields.u32()?, fields.u32()?));
        }
        if flags & PERMISSIONS != 0 {
            attrs.permissions = Some(fields.u32()?);
        }
        if flags & TIMES != 0 {
            attrs.times = Some((fields.u32()?, fields.u32()?));
        }
        if flags & EXTENDED != 0 {
            let count = fields.u32()?;
            if count > EXTENDED_MAX {
                return Err(Malformed);
            }
            for _ in 0..count {
                fields.string()?;
                fields.string()?;
            }
        }
        Ok(attrs)
    }

    /// The permission bits, or `default` where none are given.
    pub(super) fn mode(&self, default: u32) -> Mode {
        Mode::from_raw_mode((self.permissions.unwrap_or(default) & 0o7777) as rustix::fs::RawMode)
    }

    fn timestamps(&self) -> Option<Timestamps> {
        let at = |seconds: u32| Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
        self.times.map(|(access, modification)| Timestamps {
            last_access: at(access),
            last_modification: at(modification),
        })
    }

    fn ids(&self) -> Option<(Uid, Gid)> {
        self.owner.map(|(uid, gid)| (Uid::from_raw(uid), Gid::from_raw(gid)))
    }

    /// To an open file. The mode goes before the owner, as OpenSSH's server
    /// does; times last, since the others change them.
    pub(super) fn apply_to(&self, file: impl AsFd) -> Result<(), Fault> {
        if let Some(size) = self.size {
            rustix::fs::ftruncate(&file, size)?;
        }
        if self.permissions.is_some() {
            rustix::fs::fchmod(&file, self.mode(0))?;
        }
        if let Some((uid, gid)) = self.ids() {
            rustix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        if let Some(times) = self.timestamps() {
            rustix::fs::futimens(&file, &times)?;
        }
        Ok(())
    }

    /// To a path, following links, or with `NOFOLLOW` to a link itself.
    pub(super) fn apply_at(&self, path: &Path, flags: AtFlags) -> Result<(), Fault> {
        if let Some(size) = self.size {
            std::fs::OpenOptions::new().write(true).open(path)?.set_len(size)?;
        }
        if self.permissions.is_some() {
            rustix::fs::chmodat(CWD, path, self.mode(0), flags)?;
        }
        if let Some((uid, gid)) = self.ids() {
            rustix::fs::chownat(CWD, path, Some(uid), Some(gid), flags)?;
        }
        if let Some(times) = self.timestamps() {
            rustix::fs::utimensat(CWD, path, &times, flags)?;
        }
        Ok(())
    }
}

/// Writes a file's attributes. Version 3 has 32 bits for a time: what lies
/// outside is shown as the nearest.
pub(super) fn put(out: &mut Vec<u8>, metadata: &Metadata) {
    let seconds = |time: i64| u32::try_from(time.max(0)).unwrap_or(u32::MAX);
    put_u32(out, SIZE | OWNER | PERMISSIONS | TIMES);
    put_u64(out, metadata.size());
    put_u32(out, metadata.uid());
    put_u32(out, metadata.gid());
    put_u32(out, metadata.mode());
    put_u32(out, seconds(metadata.atime()));
    put_u32(out, seconds(metadata.mtime()));
}

/// Of an entry that vanished while it was listed.
pub(super) fn put_unknown(out: &mut Vec<u8>) {
    put_u32(out, 0);
}
