//! Who is on which terminal: utmp and wtmp, so that `who` and `last` on the device know the
//! engineer behind the login. Needs root; an agent of one user alone leaves it out.

use crate::session_dir::Record;

/// The open terminals of one session. They stay open when it is dropped: a later supervisor goes on
/// with them.
pub(super) struct Terminals {
    user: String,
    login: String,
    open: Vec<(String, u32)>,
}

impl Terminals {
    /// The terminals a session has. Those that are open have their entries.
    pub(super) fn new(record: &Record) -> Self {
        Self {
            user: record.user_name.to_string(),
            login: record.login.to_string(),
            open: record.terminals.clone(),
        }
    }

    /// Path and process of each.
    pub(super) fn open(&self) -> &[(String, u32)] {
        &self.open
    }

    /// A terminal was opened for a process, or is told of again.
    pub(super) fn opened(&mut self, tty: &str, pid: u32) {
        if self.open.iter().any(|(open, process)| open == tty && *process == pid) {
            return;
        }
        self.open.push((tty.to_owned(), pid));
        database::write(database::Entry { tty, pid, login: &self.login, host: &self.host() });
    }

    /// It was closed.
    pub(super) fn closed(&mut self, tty: &str, pid: u32) {
        self.open.retain(|(open, _)| open != tty);
        database::write(database::Entry { tty, pid, login: "", host: "" });
    }

    /// The session is over.
    pub(super) fn close(&mut self) {
        for (tty, pid) in std::mem::take(&mut self.open) {
            self.closed(&tty, pid);
        }
    }

    fn host(&self) -> String {
        format!("belay:{}", self.user)
    }
}

#[cfg(not(target_env = "gnu"))]
mod database {
    pub(super) struct Entry<'a> {
        pub(super) tty: &'a str,
        pub(super) pid: u32,
        pub(super) login: &'a str,
        pub(super) host: &'a str,
    }

    /// Only glibc keeps these files.
    pub(super) fn write(entry: Entry<'_>) {
        let Entry { tty, pid, login, host } = entry;
        tracing::trace!(tty, pid, login, host, "this system keeps no utmp");
    }
}

#[cfg(target_env = "gnu")]
mod database {
    #![allow(unsafe_code, reason = "utmp(5) is reached through libc only")]

    use std::ffi::c_char;
    use std::fs::File;
    use std::io::Write as _;
    use std::sync::{Mutex, PoisonError};

    use belay_tunnel::clock;

    /// One line of utmp. An empty login ends the process's entry.
    pub(super) struct Entry<'a> {
        pub(super) tty: &'a str,
        pub(super) pid: u32,
        pub(super) login: &'a str,
        pub(super) host: &'a str,
    }

    const WTMP: &str = "/var/log/wtmp";

    /// Writes to both files. Without root there is nothing to do.
    pub(super) fn write(entry: Entry<'_>) {
        /// libc keeps one position in the file for the whole process.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let line = entry.tty.strip_prefix("/dev/").unwrap_or(entry.tty);
        // As sshd and login have it: the id is what follows `pts/`, or the last four characters.
        let id = line.strip_prefix("pts/").map_or_else(
            || line.get(line.len().saturating_sub(4)..).unwrap_or(line).to_owned(),
            |number| format!("ts/{number}"),
        );
        // SAFETY: utmpx is plain old data; all zeros is a valid empty record.
        let mut record: libc::utmpx = unsafe { std::mem::zeroed() };
        record.ut_type =
            if entry.login.is_empty() { libc::DEAD_PROCESS } else { libc::USER_PROCESS };
        record.ut_pid = i32::try_from(entry.pid).unwrap_or(0);
        fill(&mut record.ut_line, line);
        fill(&mut record.ut_id, &id);
        fill(&mut record.ut_user, entry.login);
        fill(&mut record.ut_host, entry.host);
        let seconds = clock::now().0;
        record.ut_tv.tv_sec = seconds.try_into().unwrap_or(0);
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the record outlives the calls, and the lock keeps
        // other threads of this process out of libc's one utmp cursor.
        let written = unsafe {
            libc::setutxent();
            let written = !libc::pututxline(&raw const record).is_null();
            libc::endutxent();
            written
        };
        if !written {
            tracing::debug!(tty = entry.tty, "utmp could not be written");
        }
        // SAFETY: plain old data made of zeros and then filled, so every byte is initialised.
        let bytes = unsafe {
            std::slice::from_raw_parts((&raw const record).cast::<u8>(), size_of::<libc::utmpx>())
        };
        // wtmp is kept only where somebody made the file (utmp(5)).
        let appended = File::options().append(true).open(WTMP).and_then(|mut f| f.write_all(bytes));
        if let Err(error) = appended {
            tracing::debug!(%error, "wtmp could not be written");
        }
    }

    fn fill(field: &mut [c_char], text: &str) {
        for (slot, byte) in field.iter_mut().zip(text.bytes()) {
            *slot = byte.cast_signed();
        }
    }
}
