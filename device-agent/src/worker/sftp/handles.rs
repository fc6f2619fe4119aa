//! Open files and directories, by the handle the client knows them under.

use std::collections::HashMap;
use std::fs::File;

use super::listing::Listing;
use super::wire::{Code, Fault};

/// Handles at once, at most: far above any client, far below memory.
const HANDLES_MAX: u64 = 1024;

/// Descriptors kept for ourselves.
const RESERVED: u64 = 16;

pub(super) enum Open {
    File(File),
    Directory(Listing),
}

pub(super) struct Handles {
    open: HashMap<u32, Open>,
    next: u32,
    limit: u64,
}

impl Handles {
    pub(super) fn new() -> Self {
        let (soft, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
            .unwrap_or((256, 256));
        Self {
            open: HashMap::new(),
            next: 0,
            limit: soft.saturating_sub(RESERVED).min(HANDLES_MAX),
        }
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn room(&self) -> Result<(), Fault> {
        if self.open.len() as u64 >= self.limit {
            return Err(Fault::Because(Code::Failure, "too many files are open: close some first"));
        }
        Ok(())
    }

    /// A number no open handle has; one just closed is not given out again soon.
    pub(super) fn add(&mut self, open: Open) -> [u8; 4] {
        while self.open.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let handle = self.next;
        self.next = self.next.wrapping_add(1);
        self.open.insert(handle, open);
        handle.to_be_bytes()
    }

    fn number(handle: &[u8]) -> Result<u32, Fault> {
        handle.try_into().map(u32::from_be_bytes).map_err(|_| unknown())
    }

    pub(super) fn file(&self, handle: &[u8]) -> Result<&File, Fault> {
        match self.open.get(&Self::number(handle)?) {
            Some(Open::File(file)) => Ok(file),
            Some(Open::Directory(_)) | None => Err(unknown()),
        }
    }

    pub(super) fn directory(&mut self, handle: &[u8]) -> Result<&mut Listing, Fault> {
        match self.open.get_mut(&Self::number(handle)?) {
            Some(Open::Directory(listing)) => Ok(listing),
            Some(Open::File(_)) | None => Err(unknown()),
        }
    }

    pub(super) fn get(&self, handle: &[u8]) -> Result<&Open, Fault> {
        self.open.get(&Self::number(handle)?).ok_or_else(unknown)
    }

    pub(super) fn close(&mut self, handle: &[u8]) -> Result<(), Fault> {
        self.open.remove(&Self::number(handle)?).map(drop).ok_or_else(unknown)
    }
}

fn unknown() -> Fault {
    Fault::Because(Code::Failure, "no such handle")
}
