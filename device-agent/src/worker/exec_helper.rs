//! The last step before a user's program: `belay-agent exec-helper`.
//!
//! A child of the worker inherits what the worker is: its ignored signals, its
//! descriptors, its directory. This helper runs in the child, already as the
//! login user, puts everything as a login would find it and then becomes the
//! program. It is a process of its own because nothing between `fork` and
//! `exec` may allocate, and all of this does.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Args;
use rustix::fs::Mode;

use super::limits::MOTD_MAX;
use super::{sftp, sys};

/// Files of the message of the day, in the order Debian's login shows them.
const MOTD: [&str; 2] = ["/run/motd.dynamic", "/etc/motd"];

/// Arguments of `exec-helper`, made by the worker and by nobody else.
#[derive(Args, Debug)]
pub struct ExecHelperArgs {
    /// Directory to start in; `/` with a notice where it cannot be entered.
    #[arg(long)]
    cwd: PathBuf,
    /// First argument of the program; a login shell's begins with `-`.
    #[arg(long, allow_hyphen_values = true, default_value = "")]
    argv0: OsString,
    /// Serve SFTP on standard input and output instead of running a program.
    #[arg(long, conflicts_with = "program", required_unless_present = "program")]
    sftp: bool,
    /// With --sftp: tell what becomes of files on standard error, for the recording.
    #[arg(long, requires = "sftp")]
    ledger: bool,
    /// Lead a session of its own (a terminal's child does already).
    #[arg(long)]
    new_session: bool,
    /// Show the message of the day, unless there is a .hushlogin.
    #[arg(long)]
    motd: bool,
    /// The program.
    program: Option<PathBuf>,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Becomes the program; returns only where it cannot.
pub fn exec_helper(args: ExecHelperArgs) -> ExitCode {
    sys::reset_signals();
    sys::close_on_exec_from_three();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    if args.new_session
        && let Err(error) = rustix::process::setsid()
    {
        complain(&format!("cannot lead a session: {error}"));
    }
    enter(&args.cwd);
    if args.motd && !args.cwd.join(".hushlogin").exists() {
        for path in MOTD {
            show(Path::new(path));
        }
    }
    let Some(program) = &args.program else { return sftp::main(args.ledger) };
    let error = Command::new(program).arg0(&args.argv0).args(&args.args).exec();
    complain(&format!("cannot run {}: {error}", program.display()));
    ExitCode::from(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
}

fn enter(cwd: &Path) {
    let Err(error) = rustix::process::chdir(cwd) else { return };
    complain(&format!("cannot enter the home directory {}: {error}", cwd.display()));
    if let Err(error) = rustix::process::chdir("/") {
        complain(&format!("cannot enter /: {error}"));
    }
}

fn show(path: &Path) {
    let mut text = Vec::new();
    // A device without a message of the day is the common case.
    let Ok(file) = File::open(path) else { return };
    let read = file.take(MOTD_MAX).read_to_end(&mut text);
    if let Err(error) = read.and_then(|_| io::stdout().write_all(&text)) {
        complain(&format!("cannot show {}: {error}", path.display()));
    }
}

/// To the engineer's own standard error: there is no other to tell.
fn complain(line: &str) {
    drop(writeln!(io::stderr(), "belay: {line}"));
}
