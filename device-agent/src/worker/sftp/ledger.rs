//! Which files were moved and what was changed: one line each, for the session's recording.
//!
//! A file is told of when it is closed, with length and SHA-256 of what passed, as long as it passed
//! from its beginning on and in order, which is how clients move files; and with the first thing that
//! went wrong. Looking around (listings, attributes) is not told. A line goes to standard error, which
//! the worker reads; [`MARK`] tells it from what is meant for the client.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use belay_proto::recording::cast::Fact;

use super::wire::{Code, Fault, Fields};

/// Begins a line for the recording: the record separator of RFC 7464.
pub(in crate::worker) const MARK: u8 = 0x1e;

/// A flag of opening a file (`SSH_FXF_WRITE`).
const WRITE: u32 = 2;

/// Bytes of an answer with data before the data.
const DATA_HEAD: usize = 13;

/// What passed one way.
struct Passed {
    bytes: u64,
    next: u64,
    in_order: bool,
    digest: Context,
}

impl Passed {
    fn new() -> Self {
        Self { bytes: 0, next: 0, in_order: true, digest: Context::new(&SHA256) }
    }

    fn add(&mut self, at: u64, bytes: &[u8]) {
        self.in_order &= at == self.next;
        if self.in_order {
            self.digest.update(bytes);
            self.next += bytes.len() as u64;
        }
        self.bytes += bytes.len() as u64;
    }

    fn fact(self, path: &str, direction: &str) -> Fact {
        let fact = Fact::new("file").text("path", path).text("direction", direction);
        let fact = fact.number("bytes", self.bytes);
        if !self.in_order {
            return fact;
        }
        let digest = self.digest.finish();
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        fact.text("sha256", &hex)
    }
}

struct Moved {
    path: String,
    /// What it was opened for.
    to_be_written: bool,
    from_device: Option<Passed>,
    to_device: Option<Passed>,
    /// The first thing that went wrong.
    fault: Option<String>,
}

impl Moved {
    /// The end of a file is no fault of reading it.
    fn went_wrong(&mut self, fault: &Fault) {
        let (code, why) = fault.status();
        if code != Code::Eof && self.fault.is_none() {
            self.fault = Some(why);
        }
    }
}

/// See the module. Without a recording it tells nothing.
pub(super) struct Ledger<W: Write> {
    out: Option<W>,
    files: HashMap<Vec<u8>, Moved>,
    /// Open directories: they too can be changed by handle.
    directories: HashMap<Vec<u8>, String>,
}

impl<W: Write> Ledger<W> {
    pub(super) fn new(out: Option<W>) -> Self {
        Self { out, files: HashMap::new(), directories: HashMap::new() }
    }

    /// Notes a request that was answered so; `answer` is what was written for it.
    pub(super) fn note(&mut self, packet: &[u8], done: Result<(), &Fault>, answer: &[u8]) {
        if self.out.is_none() {
            return;
        }
        let mut fields = Fields(packet);
        let (Ok(kind), Ok(_id)) = (fields.byte(), fields.u32()) else { return };
        match kind {
            3 => self.opened(&mut fields, done, answer),
            4 => {
                if let Ok(handle) = fields.string() {
                    if let (Err(fault), Some(moved)) = (done, self.files.get_mut(handle)) {
                        moved.went_wrong(fault);
                    }
                    self.closed(handle, "closed");
                    self.directories.remove(handle);
                }
            }
            5 => {
                if let (Ok(handle), Ok(at)) = (fields.string(), fields.u64())
                    && let Some(moved) = self.files.get_mut(handle)
                {
                    let data = answer.get(DATA_HEAD..).unwrap_or_default();
                    match done {
                        Ok(()) => moved.from_device.get_or_insert_with(Passed::new).add(at, data),
                        Err(fault) => moved.went_wrong(fault),
                    }
                }
            }
            6 => {
                if let (Ok(handle), Ok(at), Ok(data)) =
                    (fields.string(), fields.u64(), fields.string())
                    && let Some(moved) = self.files.get_mut(handle)
                {
                    match done {
                        Ok(()) => moved.to_device.get_or_insert_with(Passed::new).add(at, data),
                        Err(fault) => moved.went_wrong(fault),
                    }
                }
            }
            9 => self.changed("setstat", &mut fields, 1, done),
            10 => self.changed_by_handle(&mut fields, done),
            11 => {
                if let (Ok(path), Ok(()), Some(handle)) =
                    (fields.path(), done, answer.last_chunk::<4>())
                {
                    self.directories.insert(handle.to_vec(), shown(path));
                }
            }
            13 => self.changed("remove", &mut fields, 1, done),
            14 => self.changed("mkdir", &mut fields, 1, done),
            15 => self.changed("rmdir", &mut fields, 1, done),
            18 => self.changed("rename", &mut fields, 2, done),
            20 => self.changed("symlink", &mut fields, 2, done),
            200 => match fields.string() {
                Ok(b"posix-rename@openssh.com") => self.changed("rename", &mut fields, 2, done),
                Ok(b"hardlink@openssh.com") => self.changed("link", &mut fields, 2, done),
                Ok(b"lsetstat@openssh.com") => self.changed("setstat", &mut fields, 1, done),
                Ok(b"copy-data") => self.copied(&mut fields, done),
                Ok(_) | Err(_) => {}
            },
            _ => {}
        }
    }

    fn opened(&mut self, fields: &mut Fields<'_>, done: Result<(), &Fault>, answer: &[u8]) {
        let Ok(path) = fields.path().map(shown) else { return };
        match (done, answer.last_chunk::<4>()) {
            (Ok(()), Some(handle)) => {
                let to_be_written = fields.u32().is_ok_and(|flags| flags & WRITE != 0);
                let (from_device, to_device, fault) = (None, None, None);
                let moved = Moved { path, to_be_written, from_device, to_device, fault };
                self.files.insert(handle.to_vec(), moved);
            }
            (Ok(()), None) => {}
            (Err(fault), _) => {
                let fact = Fact::new("file").text("path", &path);
                self.tell(fact.text("result", &fault.status().1));
            }
        }
    }

    fn closed(&mut self, handle: &[u8], result: &str) {
        let Some(mut moved) = self.files.remove(handle) else { return };
        if moved.from_device.is_none() && moved.to_device.is_none() {
            // Created, emptied or only looked at.
            let meant = match moved.to_be_written {
                true => &mut moved.to_device,
                false => &mut moved.from_device,
            };
            *meant = Some(Passed::new());
        }
        let Moved { path, from_device, to_device, fault, .. } = moved;
        let result = fault.as_deref().unwrap_or(result);
        for (passed, direction) in [(from_device, "from-device"), (to_device, "to-device")] {
            if let Some(passed) = passed {
                self.tell(passed.fact(&path, direction).text("result", result));
            }
        }
    }

    fn changed(
        &mut self,
        how: &str,
        fields: &mut Fields<'_>,
        paths: usize,
        done: Result<(), &Fault>,
    ) {
        let mut fact = Fact::new("changed").text("how", how);
        for key in ["path", "to"].into_iter().take(paths) {
            let Ok(path) = fields.path() else { return };
            fact = fact.text(key, &shown(path));
        }
        self.tell(with_result(fact, done));
    }

    /// Attributes of what is open, its length among them.
    fn changed_by_handle(&mut self, fields: &mut Fields<'_>, done: Result<(), &Fault>) {
        let Ok(handle) = fields.string() else { return };
        let file = self.files.get(handle).map(|moved| &moved.path);
        let Some(path) = file.or_else(|| self.directories.get(handle)) else { return };
        let fact = Fact::new("changed").text("how", "setstat").text("path", path);
        self.tell(with_result(fact, done));
    }

    /// Bytes that went from one file of the device to another.
    fn copied(&mut self, fields: &mut Fields<'_>, done: Result<(), &Fault>) {
        let (Ok(from), Ok(_at), Ok(_length), Ok(to)) =
            (fields.string(), fields.u64(), fields.u64(), fields.string())
        else {
            return;
        };
        let path = |handle| self.files.get(handle).map_or("", |moved| moved.path.as_str());
        let fact = Fact::new("changed").text("how", "copy").text("path", path(from));
        let fact = fact.text("to", path(to));
        self.tell(with_result(fact, done));
    }

    fn tell(&mut self, fact: Fact) {
        let Some(out) = &mut self.out else { return };
        let mut line = vec![MARK];
        line.extend_from_slice(fact.finish().as_bytes());
        line.push(b'\n');
        if out.write_all(&line).is_err() {
            // Nobody reads it any more: the session is over.
            self.out = None;
        }
    }

    /// The client is gone: what is open was not finished.
    pub(super) fn finish(&mut self) {
        let mut open: Vec<Vec<u8>> = self.files.keys().cloned().collect();
        open.sort();
        for handle in open {
            self.closed(&handle, "unfinished");
        }
    }
}

fn with_result(fact: Fact, done: Result<(), &Fault>) -> Fact {
    match done {
        Ok(()) => fact.text("result", "done"),
        Err(fault) => fact.text("result", &fault.status().1),
    }
}

/// A path as it was asked for, from the root; what is no UTF-8 in it is replaced.
fn shown(path: &Path) -> String {
    let whole = std::path::absolute(path);
    let whole = whole.as_deref().unwrap_or(path);
    crate::worker::event::bounded(&whole.to_string_lossy())
}
