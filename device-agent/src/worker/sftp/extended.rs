//! OpenSSH's extensions (PROTOCOL, section 4), in the versions clients ask for.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, StatVfs};

use super::attrs::Attrs;
use super::paths;
use super::server::{Server, put_name};
use super::wire::{Code, DATA_MAX, Fault, Fields, PACKET_MAX, put_packet, put_string, put_u64};

const EXTENDED_REPLY: u8 = 201;

/// Ids in one `users-groups-by-id` request.
const IDS_MAX: usize = 4096;

impl<W: Write> Server<W> {
    /// `Ok(true)` where an answer was written, `Ok(false)` where "done" is one.
    pub(super) fn extended(
        &mut self,
        id: u32,
        fields: &mut Fields<'_>,
        out: &mut Vec<u8>,
    ) -> Result<bool, Fault> {
        match fields.string()? {
            b"posix-rename@openssh.com" => rustix::fs::rename(fields.path()?, fields.path()?)?,
            b"hardlink@openssh.com" => {
                let (old, new) = (fields.path()?, fields.path()?);
                rustix::fs::link(old, new)?;
            }
            b"fsync@openssh.com" => self.handles.file(fields.string()?)?.sync_all()?,
            b"lsetstat@openssh.com" => {
                let path = fields.path()?;
                Attrs::read(fields)?.apply_at(path, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            b"copy-data" => self.copy_data(fields)?,
            b"statvfs@openssh.com" => {
                let fs = rustix::fs::statvfs(fields.path()?)?;
                put_statvfs(out, id, &fs);
                return Ok(true);
            }
            b"fstatvfs@openssh.com" => {
                let fs = rustix::fs::fstatvfs(self.handles.file(fields.string()?)?.as_fd())?;
                put_statvfs(out, id, &fs);
                return Ok(true);
            }
            b"limits@openssh.com" => {
                let handles = self.handles.limit();
                put_packet(out, EXTENDED_REPLY, id, |out| {
                    for limit in [PACKET_MAX as u64, DATA_MAX as u64, DATA_MAX as u64, handles] {
                        put_u64(out, limit);
                    }
                });
                return Ok(true);
            }
            b"expand-path@openssh.com" => {
                put_name(out, id, paths::expand(fields.path()?)?.as_os_str().as_bytes());
                return Ok(true);
            }
            b"home-directory" => {
                let user = String::from_utf8_lossy(fields.string()?).into_owned();
                put_name(out, id, paths::home(&user)?.as_os_str().as_bytes());
                return Ok(true);
            }
            b"users-groups-by-id@openssh.com" => {
                self.names_by_id(id, fields, out)?;
                return Ok(true);
            }
            _ => return Err(Fault::Because(Code::Unsupported, "this extension is not served")),
        }
        Ok(false)
    }

    /// `copy-data` (draft-ietf-secsh-filexfer-extensions-00, section 7): a
    /// length of 0 means to the end of the file.
    fn copy_data(&self, fields: &mut Fields<'_>) -> Result<(), Fault> {
        let from_handle = fields.string()?;
        let (mut from_at, length) = (fields.u64()?, fields.u64()?);
        let to_handle = fields.string()?;
        let mut to_at = fields.u64()?;
        let (from, to) = (self.handles.file(from_handle)?, self.handles.file(to_handle)?);
        if from_handle == to_handle {
            return Err(Fault::Because(Code::Failure, "a file cannot be copied onto itself"));
        }
        let mut left = if length == 0 { u64::MAX } else { length };
        while left > 0 {
            let step = usize::try_from(left.min(1 << 30)).unwrap_or(1 << 30);
            let copied = match rustix::fs::copy_file_range(
                from,
                Some(&mut from_at),
                to,
                Some(&mut to_at),
                step,
            ) {
                Ok(copied) => copied,
                Err(
                    rustix::io::Errno::XDEV | rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS,
                ) => copy_by_hand(from, &mut from_at, to, &mut to_at, left)?,
                Err(error) => return Err(error.into()),
            };
            if copied == 0 {
                break;
            }
            left = left.saturating_sub(copied as u64);
        }
        Ok(())
    }

    fn names_by_id(
        &mut self,
        id: u32,
        fields: &mut Fields<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let (uids, gids) = (ids(fields.string()?)?, ids(fields.string()?)?);
        let (mut users, mut groups) = (Vec::new(), Vec::new());
        for uid in uids {
            put_string(&mut users, self.names.user(uid).as_bytes());
        }
        for gid in gids {
            put_string(&mut groups, self.names.group(gid).as_bytes());
        }
        put_packet(out, EXTENDED_REPLY, id, |out| {
            put_string(out, &users);
            put_string(out, &groups);
        });
        Ok(())
    }
}

fn ids(bytes: &[u8]) -> Result<Vec<u32>, Fault> {
    let mut fields = Fields(bytes);
    if bytes.len() / 4 > IDS_MAX {
        return Err(Fault::Because(Code::Failure, "too many ids in one request"));
    }
    let mut ids = Vec::new();
    while !fields.0.is_empty() {
        ids.push(fields.u32()?);
    }
    Ok(ids)
}

fn copy_by_hand(
    from: &std::fs::File,
    from_at: &mut u64,
    to: &std::fs::File,
    to_at: &mut u64,
    left: u64,
) -> Result<usize, Fault> {
    use std::os::unix::fs::FileExt;
    let mut chunk = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(DATA_MAX)];
    let read = from.read_at(&mut chunk, *from_at)?;
    to.write_all_at(chunk.get(..read).unwrap_or_default(), *to_at)?;
    *from_at += read as u64;
    *to_at += read as u64;
    Ok(read)
}

fn put_statvfs(out: &mut Vec<u8>, id: u32, fs: &StatVfs) {
    /// `SSH2_FXE_STATVFS_ST_RDONLY` and `…_NOSUID`.
    const READ_ONLY: u64 = 1;
    const NO_SETUID: u64 = 2;
    let flag = |flag, bit| if fs.f_flag.contains(flag) { bit } else { 0 };
    let flags = flag(rustix::fs::StatVfsMountFlags::RDONLY, READ_ONLY)
        | flag(rustix::fs::StatVfsMountFlags::NOSUID, NO_SETUID);
    put_packet(out, EXTENDED_REPLY, id, |out| {
        for value in [
            fs.f_bsize,
            fs.f_frsize,
            fs.f_blocks,
            fs.f_bfree,
            fs.f_bavail,
            fs.f_files,
            fs.f_ffree,
            fs.f_favail,
            fs.f_fsid,
            flags,
            fs.f_namemax,
        ] {
            put_u64(out, value);
        }
    });
}
