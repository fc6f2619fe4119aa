//! One request in, one answer out.

use std::fs::Metadata;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD};

use super::attrs::{self, Attrs};
use super::files;
use super::handles::{Handles, Open};
use super::ledger::Ledger;
use super::listing::{Listing, Names};
use super::paths;
use super::wire::{
    ANNOUNCED, Code, DATA_MAX, Fault, Fields, close_packet, put_packet, put_status, put_string,
    put_u32,
};

/// The version we speak.
const VERSION: u32 = 3;

/// Answers' kinds.
const VERSION_REPLY: u8 = 2;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;

/// Size of a listing's answer that ends it: clients take 256 KiB, and an entry
/// has at most 255 bytes of name, twice.
const LISTING_FULL: usize = 32 * 1024;

pub(super) struct Server<W: Write> {
    pub(super) handles: Handles,
    pub(super) names: Names,
    pub(super) ledger: Ledger<W>,
}

/// Whether an answer was written already.
enum Done {
    Answered,
    Plainly,
}

impl<W: Write> Server<W> {
    pub(super) fn new(ledger: Ledger<W>) -> Self {
        Self { handles: Handles::new(), names: Names::default(), ledger }
    }

    /// Answers one packet.
    ///
    /// # Errors
    /// Only for one without so much as an id: the stream makes no sense then.
    pub(super) fn answer(&mut self, packet: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let mut fields = Fields(packet);
        let nonsense = || io::Error::new(io::ErrorKind::InvalidData, "a packet without an id");
        let kind = fields.byte().map_err(|_| nonsense())?;
        let id = fields.u32().map_err(|_| nonsense())?;
        if kind == 1 {
            // SSH_FXP_INIT: what stands in the id's place is the client's version.
            put_version(out);
            return Ok(());
        }
        let start = out.len();
        let served = self.serve(kind, id, &mut fields, out);
        if served.is_err() {
            out.truncate(start);
        }
        let answer = out.get(start..).unwrap_or_default();
        self.ledger.note(packet, served.as_ref().map(|_| ()), answer);
        match served {
            Ok(Done::Answered) => {}
            Ok(Done::Plainly) => put_status(out, id, Code::Ok, "Success"),
            Err(fault) => {
                let (code, message) = fault.status();
                put_status(out, id, code, &message);
            }
        }
        Ok(())
    }

    fn serve(
        &mut self,
        kind: u8,
        id: u32,
        fields: &mut Fields<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Done, Fault> {
        match kind {
            3 => {
                let path = fields.path()?;
                let flags = fields.u32()?;
                let wanted = Attrs::read(fields)?;
                self.handles.room()?;
                let file = files::open(path, flags, &wanted)?;
                put_handle(out, id, self.handles.add(Open::File(file)));
                return Ok(Done::Answered);
            }
            4 => self.handles.close(fields.string()?)?,
            5 => {
                self.read(id, fields, out)?;
                return Ok(Done::Answered);
            }
            6 => {
                let file = self.handles.file(fields.string()?)?;
                let at = fields.u64()?;
                file.write_all_at(fields.string()?, at)?;
            }
            7 => return put_attrs(out, id, &std::fs::symlink_metadata(fields.path()?)?),
            8 => {
                let metadata = match self.handles.get(fields.string()?)? {
                    Open::File(file) => file.metadata()?,
                    Open::Directory(listing) => std::fs::metadata(listing.path())?,
                };
                return put_attrs(out, id, &metadata);
            }
            9 => {
                let path = fields.path()?;
                Attrs::read(fields)?.apply_at(path, AtFlags::empty())?;
            }
            10 => {
                let handle = fields.string()?;
                let wanted = Attrs::read(fields)?;
                match self.handles.get(handle)? {
                    Open::File(file) => wanted.apply_to(file)?,
                    Open::Directory(listing) => {
                        wanted.apply_at(listing.path(), AtFlags::empty())?
                    }
                }
            }
            11 => {
                self.handles.room()?;
                let listing = Listing::open(fields.path()?)?;
                put_handle(out, id, self.handles.add(Open::Directory(listing)));
                return Ok(Done::Answered);
            }
            12 => {
                self.list(id, fields, out)?;
                return Ok(Done::Answered);
            }
            13 => rustix::fs::unlink(fields.path()?)?,
            14 => {
                let path = fields.path()?;
                rustix::fs::mkdirat(CWD, path, Attrs::read(fields)?.mode(0o777))?;
            }
            15 => rustix::fs::rmdir(fields.path()?)?,
            16 => {
                put_name(out, id, paths::real(fields.path()?)?.as_os_str().as_bytes());
                return Ok(Done::Answered);
            }
            17 => return put_attrs(out, id, &std::fs::metadata(fields.path()?)?),
            18 => files::rename_new(fields.path()?, fields.path()?)?,
            19 => {
                put_name(out, id, std::fs::read_link(fields.path()?)?.as_os_str().as_bytes());
                return Ok(Done::Answered);
            }
            20 => {
                // OpenSSH sends the target first, against the draft (PROTOCOL,
                // section 4.1), and everyone follows it.
                let (target, link) = (fields.path()?, fields.path()?);
                rustix::fs::symlink(target, link)?;
            }
            200 => {
                if self.extended(id, fields, out)? {
                    return Ok(Done::Answered);
                }
            }
            _ => return Err(Fault::Because(Code::Unsupported, "this request is not served")),
        }
        Ok(Done::Plainly)
    }

    /// Reads straight into the answer.
    fn read(&self, id: u32, fields: &mut Fields<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
        let file = self.handles.file(fields.string()?)?;
        let at = fields.u64()?;
        let length = (fields.u32()? as usize).min(DATA_MAX);
        let start = out.len();
        put_u32(out, 0);
        out.push(DATA);
        put_u32(out, id);
        put_u32(out, 0);
        let data = out.len();
        out.resize(data + length, 0);
        let read = rustix::io::pread(file, out.get_mut(data..).unwrap_or_default(), at)?;
        if read == 0 {
            // As many answers as asked for at the end of a file mean "no more".
            return Err(Fault::Because(Code::Eof, "End of file"));
        }
        out.truncate(data + read);
        let count = u32::try_from(read).unwrap_or(u32::MAX).to_be_bytes();
        if let Some(place) = out.get_mut(data - 4..data) {
            place.copy_from_slice(&count);
        }
        close_packet(out.get_mut(start..).unwrap_or_default(), 0);
        Ok(())
    }

    fn list(&mut self, id: u32, fields: &mut Fields<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
        let listing = self.handles.directory(fields.string()?)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let mut entries = Vec::new();
        let mut count = 0;
        while entries.len() < LISTING_FULL {
            let Some(entry) = listing.next() else { break };
            let (name, metadata) = entry?;
            count += 1;
            put_string(&mut entries, name.as_bytes());
            match metadata {
                Ok(metadata) => {
                    put_string(&mut entries, &self.names.long(&name, &metadata, now));
                    attrs::put(&mut entries, &metadata);
                }
                Err(_) => {
                    put_string(&mut entries, name.as_bytes());
                    attrs::put_unknown(&mut entries);
                }
            }
        }
        if count == 0 {
            return Err(Fault::Because(Code::Eof, "End of file"));
        }
        put_packet(out, NAME, id, |out| {
            put_u32(out, count);
            out.extend_from_slice(&entries);
        });
        Ok(())
    }
}

fn put_version(out: &mut Vec<u8>) {
    let at = out.len();
    put_u32(out, 0);
    out.push(VERSION_REPLY);
    put_u32(out, VERSION);
    for (name, version) in ANNOUNCED {
        put_string(out, name.as_bytes());
        put_string(out, version.as_bytes());
    }
    close_packet(out.get_mut(at..).unwrap_or_default(), 0);
}

fn put_handle(out: &mut Vec<u8>, id: u32, handle: [u8; 4]) {
    put_packet(out, HANDLE, id, |out| put_string(out, &handle));
}

fn put_attrs(out: &mut Vec<u8>, id: u32, metadata: &Metadata) -> Result<Done, Fault> {
    put_packet(out, ATTRS, id, |out| attrs::put(out, metadata));
    Ok(Done::Answered)
}

/// An answer of one name and nothing about it.
pub(super) fn put_name(out: &mut Vec<u8>, id: u32, name: &[u8]) {
    put_packet(out, NAME, id, |out| {
        put_u32(out, 1);
        put_string(out, name);
        put_string(out, name);
        attrs::put_unknown(out);
    });
}
